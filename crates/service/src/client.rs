//! The other end of a service: plain HTTP, bounded answers, refusals passed on as they are.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Problem, ServiceError};

/// Largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// Talks to one service.
#[derive(Debug, Clone)]
pub struct Http {
    agent: ureq::Agent,
    base: String,
}

impl Http {
    /// A client of the service at `base` (`http://127.0.0.1:PORT`). No request is made yet.
    pub fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        Self { agent: config.into(), base: base.trim_end_matches('/').into() }
    }

    /// The service's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The bytes of a successful `GET`.
    ///
    /// # Errors
    /// If the service does not answer or refuses.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, ServiceError> {
        let url = format!("{}{path}", self.base);
        let answer = self.agent.get(&url).call();
        finish(&url, answer)
    }

    /// The bytes of a successful `POST` of a JSON body.
    ///
    /// # Errors
    /// If the service does not answer or refuses.
    pub fn post(&self, path: &str, body: &[u8]) -> Result<Vec<u8>, ServiceError> {
        let url = format!("{}{path}", self.base);
        let answer = self.agent.post(&url).content_type("application/json").send(body);
        finish(&url, answer)
    }

    /// `GET` of a JSON value.
    ///
    /// # Errors
    /// As [`Self::get`], or if the answer is of another shape.
    pub fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ServiceError> {
        self.decode(path, &self.get(path)?)
    }

    /// `POST` of a JSON value, answered by another.
    ///
    /// # Errors
    /// As [`Self::post`], or if the answer is of another shape.
    pub fn post_json<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ServiceError> {
        let body = serde_json::to_vec(body).map_err(|e| ServiceError::Answer {
            url: format!("{}{path}", self.base),
            problem: format!("request: {e}"),
        })?;
        self.decode(path, &self.post(path, &body)?)
    }

    fn decode<T: DeserializeOwned>(&self, path: &str, bytes: &[u8]) -> Result<T, ServiceError> {
        serde_json::from_slice(bytes).map_err(|e| ServiceError::Answer {
            url: format!("{}{path}", self.base),
            problem: format!("answer: {e}"),
        })
    }
}

fn finish(
    url: &str,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Vec<u8>, ServiceError> {
    let lost =
        |e: ureq::Error| ServiceError::Unreachable { url: url.into(), problem: e.to_string() };
    let mut answer = answer.map_err(lost)?;
    let status = answer.status();
    let bytes = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(lost)?;
    if status.is_success() {
        return Ok(bytes);
    }
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(mut problem) => {
            problem.status = status.as_u16();
            Err(ServiceError::Refused(problem))
        }
        Err(_) => Err(ServiceError::Answer {
            url: url.into(),
            problem: format!("status {status} without a reason"),
        }),
    }
}
