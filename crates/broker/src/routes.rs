//! The broker over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use casemate_service::Problem;
use casemate_service::http::{Gate, not_found, parse};
use serde::Deserialize;

use crate::broker::Broker;

/// Largest request that is read, in bytes: a release bundle with an act.
pub(crate) const BODY_LIMIT: usize = 64 << 20;

type Body = Result<Bytes, BytesRejection>;

#[derive(Clone)]
struct Shared {
    broker: Arc<Broker>,
    gate: Gate,
}

#[derive(Deserialize)]
struct Question {
    #[serde(default)]
    nonce: String,
}

/// What the broker answers, and where.
pub(crate) fn router(broker: Arc<Broker>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/v1/challenge", post(challenge))
        .route("/v1/release", post(release))
        .route("/v1/act", post(act))
        .route("/v1/list", get(list))
        .route("/v1/info", get(info))
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .with_state(Shared { broker, gate: Gate::default() })
}

async fn challenge(State(shared): State<Shared>) -> Response {
    let broker = shared.broker;
    shared.gate.answer(move || broker.challenge()).await
}

async fn release(State(shared): State<Shared>, body: Body) -> Response {
    let broker = shared.broker;
    let work = move || {
        let request = parse(&body, crate::BAD_REQUEST)?;
        broker.release(&request).map_err(Problem::from)
    };
    shared.gate.answer(work).await
}

async fn act(State(shared): State<Shared>, body: Body) -> Response {
    let broker = shared.broker;
    let work = move || {
        let request = parse(&body, crate::BAD_REQUEST)?;
        broker.act(&request).map_err(Problem::from)
    };
    shared.gate.answer(work).await
}

async fn list(State(shared): State<Shared>, Query(question): Query<Question>) -> Response {
    let broker = shared.broker;
    shared.gate.answer(move || broker.list(&question.nonce)).await
}

async fn info(State(shared): State<Shared>, Query(question): Query<Question>) -> Response {
    let broker = shared.broker;
    shared.gate.answer(move || broker.info(&question.nonce)).await
}
