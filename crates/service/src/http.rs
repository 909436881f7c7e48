//! Serving: JSON over HTTP/1.1 on a socket that the enclave was handed.
//!
//! The transport is not trusted; what must be believed is signed or sealed end to end. What is
//! done for a request may wait for the ledger, so it runs beside the reactor, a bounded number at
//! a time.

use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::error::{Problem, ServiceError};

/// How many requests are worked on at a time; the others wait.
const CONCURRENT: usize = 32;

/// How many requests wait or are worked on at a time; more are turned away.
const ADMITTED: usize = 1024;

/// Gate in front of a service's work.
#[derive(Debug, Clone)]
pub struct Gate {
    admitted: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            admitted: Arc::new(Semaphore::new(ADMITTED)),
            working: Arc::new(Semaphore::new(CONCURRENT)),
        }
    }
}

impl Gate {
    /// Does `work` on a thread that may block, and gives its result or its refusal as JSON.
    pub async fn answer<T, E, F>(&self, work: F) -> Response
    where
        T: Serialize + Send + 'static,
        E: Into<Problem>,
        F: FnOnce() -> Result<T, E> + Send + 'static,
    {
        let Ok(_admitted) = self.admitted.clone().try_acquire_owned() else {
            return busy().into_response();
        };
        let Ok(_working) = self.working.clone().acquire_owned().await else {
            return busy().into_response();
        };
        let done = tokio::task::spawn_blocking(move || work().map_err(Into::into)).await;
        match done {
            Ok(Ok(value)) => match serde_json::to_vec(&value) {
                Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
                Err(e) => internal(&e.to_string()).into_response(),
            },
            Ok(Err(problem)) => problem.into_response(),
            Err(_) => internal("the request's worker ended early").into_response(),
        }
    }
}

/// Reads a request body; `code` is the service's code for a body that is not understood.
///
/// # Errors
/// A [`Problem`] that names the field at fault.
pub fn parse<T: DeserializeOwned>(
    body: &Result<Bytes, BytesRejection>,
    code: &'static str,
) -> Result<T, Problem> {
    let problem = |problem: String| Problem {
        code: code.into(),
        message: format!("request body: {problem}"),
        fix: Some("use a client of the same version".into()),
        status: 400,
    };
    let body = body.as_ref().map_err(|e| problem(e.body_text()))?;
    serde_json::from_slice(body).map_err(|e| problem(e.to_string()))
}

/// Serves `router` on `listener` until SIGTERM or SIGINT, then finishes what is under way.
///
/// `body_limit` bounds each request's body.
///
/// # Errors
/// If the socket or the signals can not be used.
pub fn serve(listener: TcpListener, router: Router, body_limit: usize) -> Result<(), ServiceError> {
    let io = |what: &'static str| move |e: std::io::Error| ServiceError::io(what, e);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(CONCURRENT + 2)
        .enable_all()
        .build()
        .map_err(io("starting the reactor"))?;
    runtime.block_on(async {
        listener.set_nonblocking(true).map_err(io("listening socket"))?;
        let listener =
            tokio::net::TcpListener::from_std(listener).map_err(io("listening socket"))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(io("SIGTERM"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(io("SIGINT"))?;
        let end = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let router = router.layer(DefaultBodyLimit::max(body_limit));
        axum::serve(listener, router).with_graceful_shutdown(end).await.map_err(io("serving"))
    })
}

/// The answer to a request for nothing that is there.
pub async fn not_found() -> Problem {
    Problem {
        code: "CM-SERV-0040".into(),
        message: "no such resource".into(),
        fix: None,
        status: 404,
    }
}

fn busy() -> Problem {
    Problem {
        code: "CM-SERV-0041".into(),
        message: format!("more than {ADMITTED} requests at a time"),
        fix: Some("try again later".into()),
        status: 503,
    }
}

fn internal(what: &str) -> Problem {
    Problem { code: "CM-SERV-0042".into(), message: what.into(), fix: None, status: 500 }
}
