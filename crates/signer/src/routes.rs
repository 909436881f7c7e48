//! The signer over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use casemate_service::Problem;
use casemate_service::http::{Gate, not_found, parse};
use casemate_statement::bundle::ReleaseBundle;
use serde::{Deserialize, Serialize};

use crate::error::SignerError;
use crate::signer::Signer;

/// Code of a request body that is not understood.
pub(crate) const BAD_REQUEST: &str = "CM-SIGN-0001";

/// Largest request that is read, in bytes.
pub(crate) const BODY_LIMIT: usize = 256 << 20;

/// `POST /v1/sign`: a bundle, with approvals on the way there, completed on the way back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Carried {
    pub(crate) bundle: serde_json::Value,
}

impl Carried {
    pub(crate) fn of(bundle: &ReleaseBundle) -> Result<Self, SignerError> {
        serde_json::to_value(bundle)
            .map(|bundle| Self { bundle })
            .map_err(|e| SignerError::Request(e.to_string()))
    }

    pub(crate) fn open(&self) -> Result<ReleaseBundle, SignerError> {
        let bytes =
            serde_json::to_vec(&self.bundle).map_err(|e| SignerError::Request(e.to_string()))?;
        ReleaseBundle::parse(&bytes).map_err(SignerError::other)
    }
}

type Body = Result<Bytes, BytesRejection>;

#[derive(Clone)]
struct Shared {
    signer: Arc<Signer>,
    gate: Gate,
}

#[derive(Deserialize)]
struct Question {
    #[serde(default)]
    nonce: String,
}

/// What the signer answers, and where.
pub(crate) fn router(signer: Arc<Signer>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/v1/sign", post(sign))
        .route("/v1/info", get(info))
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .with_state(Shared { signer, gate: Gate::default() })
}

async fn sign(State(shared): State<Shared>, body: Body) -> Response {
    let signer = shared.signer;
    let work = move || -> Result<Carried, Problem> {
        let carried: Carried = parse(&body, BAD_REQUEST)?;
        let done = carried.open().and_then(|bundle| signer.sign(bundle));
        Ok(Carried::of(&done?)?)
    };
    shared.gate.answer(work).await
}

async fn info(State(shared): State<Shared>, Query(question): Query<Question>) -> Response {
    let signer = shared.signer;
    shared.gate.answer(move || signer.info(&question.nonce)).await
}
