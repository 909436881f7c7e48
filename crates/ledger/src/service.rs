//! The log over HTTP: C2SP tlog-tiles for everybody's tools, and a few calls of our own.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /checkpoint` | the signed checkpoint |
//! | `GET /tile/…` | a tile of hashes or an entry bundle |
//! | `GET /v1/blob/SHA256` | a blob |
//! | `GET /v1/proof?index=I&size=N` | an inclusion proof |
//! | `GET /v1/consistency?from=M&to=N` | a consistency proof |
//! | `POST /v1/entries` | the entry with its proof, once it is durable |
//! | `GET /healthz` | `ok` while entries are taken |
//!
//! An entry is taken if its signature verifies over its artifact, sent as a blob, or by its digest.
//! Who signed is not the log's concern: a log shows what was signed, verifiers decide whose word
//! counts.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use casemate_spec::{Coded as _, Kind, Sha256, canonical};
use casemate_statement::json;
use casemate_statement::rekor::{DataDigest, HashedRekord, LogEntry, Verifier};
use casemate_tlog::{Tile, TlogError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::blob::Blobs;
use crate::error::LedgerError;
use crate::store::Log;
use crate::wire::{
    AddAnswer, AddRequest, ConsistencyQuery, MAX_BLOBS, MAX_REQUEST, Problem, ProofAnswer,
    ProofQuery,
};

/// How much memory requests in work may take together, in MiB.
const MEMORY: usize = 256;
/// How long a client may take to send a request.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers requests on `listener` until the process ends.
///
/// # Errors
/// [`LedgerError::Io`] if the listener can not be used.
pub fn serve(listener: TcpListener, log: Arc<Log>) -> Result<(), LedgerError> {
    let dir = log.dir().to_path_buf();
    let failed = |e| LedgerError::io("serving", dir)(e);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let run = |runtime: tokio::runtime::Runtime| {
        listener.set_nonblocking(true)?;
        runtime.block_on(async {
            axum::serve(tokio::net::TcpListener::from_std(listener)?, router(log)).await
        })
    };
    runtime.and_then(run).map_err(failed)
}

/// The service as a part of another one.
pub fn router(log: Arc<Log>) -> Router {
    let blobs = Blobs::beside(log.dir());
    let service = Arc::new(Service { log, blobs, memory: Arc::new(Semaphore::new(MEMORY)) });
    Router::new()
        .route("/checkpoint", get(checkpoint))
        .route("/tile/{*path}", get(tile))
        .route("/v1/blob/{digest}", get(blob))
        .route("/v1/proof", get(proof))
        .route("/v1/consistency", get(consistency))
        .route("/v1/entries", post(add))
        .route("/healthz", get(health))
        .fallback(nothing)
        .method_not_allowed_fallback(nothing)
        .with_state(service)
}

struct Service {
    log: Arc<Log>,
    blobs: Blobs,
    memory: Arc<Semaphore>,
}

type Shared = State<Arc<Service>>;

async fn checkpoint(State(service): Shared) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    (headers, service.log.published().note.clone()).into_response()
}

async fn tile(State(service): Shared, Path(path): Path<String>) -> Result<Response, LedgerError> {
    let tile: Tile = format!("tile/{path}").parse()?;
    let lifetime = match tile.is_full() {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    let content = blocking(move || service.log.tile(&tile)).await?;
    let headers = [(CONTENT_TYPE, "application/octet-stream"), (CACHE_CONTROL, lifetime)];
    Ok((headers, content).into_response())
}

async fn blob(State(service): Shared, Path(digest): Path<String>) -> Result<Response, LedgerError> {
    let digest: Sha256 = digest.parse().map_err(|e| LedgerError::Request(format!("{e}")))?;
    // a blob in memory is one of at most 16 MiB
    let _memory = reserve(&service, 16).await?;
    let found = blocking(move || service.blobs.read(&digest)).await?;
    let content = found.ok_or_else(|| LedgerError::NotFound(format!("blob {digest}")))?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], content).into_response())
}

async fn proof(
    State(service): Shared,
    query: Result<Query<ProofQuery>, QueryRejection>,
) -> Result<Json<ProofAnswer>, LedgerError> {
    let Query(ProofQuery { index, size }) = query.map_err(bad_query)?;
    Ok(Json(ProofAnswer { hashes: service.log.prove(index, size)? }))
}

async fn consistency(
    State(service): Shared,
    query: Result<Query<ConsistencyQuery>, QueryRejection>,
) -> Result<Json<ProofAnswer>, LedgerError> {
    let Query(ConsistencyQuery { from, to }) = query.map_err(bad_query)?;
    Ok(Json(ProofAnswer { hashes: service.log.prove_consistency(from, to)? }))
}

async fn add(State(service): Shared, request: Request) -> Result<Json<AddAnswer>, LedgerError> {
    let _memory = reserve(&service, mebibytes(request.headers())?).await?;
    let body = receive(request.into_body()).await?;
    let entry = blocking(move || log_entry(&service, &body)).await?;
    Ok(Json(AddAnswer { entry }))
}

async fn health(State(service): Shared) -> Result<&'static str, LedgerError> {
    service.log.check_running()?;
    Ok("ok\n")
}

async fn nothing() -> LedgerError {
    LedgerError::NotFound("such address or method".into())
}

/// Verifies an entry, keeps its blobs, appends it: in this order, so that no leaf lacks its blobs.
fn log_entry(service: &Service, body: &[u8]) -> Result<LogEntry, LedgerError> {
    let AddRequest { entry, blobs } = json::from_slice(body, "request", MAX_REQUEST)?;
    if blobs.len() > MAX_BLOBS {
        let found = blobs.len();
        return Err(LedgerError::Request(format!(
            "has {found} blobs, expected {MAX_BLOBS} at most"
        )));
    }
    let leaf = canonical::to_vec(&entry).map_err(|e| LedgerError::Request(e.to_string()))?;
    let record = HashedRekord::parse(&leaf)?;
    verify(&record, blobs.iter().map(|blob| blob.as_ref()))?;
    for blob in &blobs {
        service.blobs.put(blob)?;
    }
    let appended = service.log.append(leaf.clone())?;
    let checkpoint = &appended.published.checkpoint;
    Ok(LogEntry::new(
        service.log.key(),
        appended.index,
        leaf,
        (checkpoint.size, &checkpoint.root),
        &appended.proof,
        appended.published.note.clone(),
    ))
}

/// Checks the signature of an entry over its artifact, if that is among the blobs, or by its digest.
fn verify<'a>(
    record: &HashedRekord,
    mut blobs: impl Iterator<Item = &'a [u8]>,
) -> Result<(), LedgerError> {
    let artifact = match &record.verifier {
        Verifier::Key { scheme, .. } => {
            blobs.find(|blob| DataDigest::of(*scheme, blob) == record.digest)
        }
        _ => None,
    };
    match artifact {
        Some(artifact) => record.verify(artifact)?,
        None => record.verify_digest()?,
    }
    Ok(())
}

/// How much memory a request may need, by the length it announces.
fn mebibytes(headers: &HeaderMap) -> Result<u32, LedgerError> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let length: usize = announced.unwrap_or(MAX_REQUEST);
    if length > MAX_REQUEST {
        let (limit, found) = (MAX_REQUEST, length);
        return Err(LedgerError::TooLarge { what: "a request", limit, found });
    }
    // the text, what is decoded from it, and some room
    Ok((length * 2).div_ceil(1024 * 1024).max(1) as u32)
}

async fn reserve(service: &Service, mebibytes: u32) -> Result<OwnedSemaphorePermit, LedgerError> {
    let memory = Arc::clone(&service.memory).acquire_many_owned(mebibytes);
    match tokio::time::timeout(PATIENCE, memory).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(LedgerError::Busy("requests")),
    }
}

async fn receive(body: Body) -> Result<Bytes, LedgerError> {
    match tokio::time::timeout(PATIENCE, to_bytes(body, MAX_REQUEST)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(e)) => Err(LedgerError::Request(format!("can not be read: {e}"))),
        Err(_) => Err(LedgerError::Request("was not sent within a minute".into())),
    }
}

/// Runs what touches the disk or computes long on a thread made for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, LedgerError> {
    let ended = |e: tokio::task::JoinError| LedgerError::Stopped(e.to_string());
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

fn bad_query(rejection: QueryRejection) -> LedgerError {
    LedgerError::Request(rejection.body_text())
}

impl IntoResponse for LedgerError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Entry(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Tlog(TlogError::Range { .. } | TlogError::RolledBack { .. }) => {
                StatusCode::BAD_REQUEST
            }
            other => match other.kind() {
                Kind::Usage => StatusCode::BAD_REQUEST,
                Kind::Environment => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        };
        (status, Json(Problem::from(&self))).into_response()
    }
}
