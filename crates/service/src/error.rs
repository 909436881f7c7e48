//! Why a service does not start or does not answer, and how that crosses the wire.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use casemate_enclave_protocol::Code;
use casemate_spec::{Coded, Kind};
use serde::{Deserialize, Serialize};

/// What a service can not do, whichever service it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// A file or a socket.
    #[error("{what}: {source}")]
    Io {
        /// What was being done to what.
        what: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Another process serves from the same directory.
    #[error("{0}: in use by another running service")]
    Locked(String),
    /// A sealed file that does not open.
    #[error(
        "{0}: expected a file sealed by this service on this platform, found an altered one, \
             one of another workload or one of another platform"
    )]
    Unsealed(String),
    /// A sealed file whose content is not what this version writes.
    #[error("{file}: {problem}")]
    Content {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The agent gave no evidence or no sealing key.
    #[error("agent: {0}")]
    Agent(String),
    /// No randomness, or a cipher that failed.
    #[error("{0} could not be made")]
    Crypto(&'static str),
    /// The trust file names another key or measurement for this service.
    #[error("trust file: {field} names {named}, this service has {own}")]
    NotNamed {
        /// Which field of the trust file.
        field: &'static str,
        /// What the file says.
        named: String,
        /// What this service has.
        own: String,
    },
    /// Genesis evidence that does not hold.
    #[error("genesis: {0}")]
    Genesis(String),
    /// The ledger does not continue what this service knows of it, or can not be read.
    #[error("ledger: {0}")]
    Ledger(String),
    /// A service that does not answer, or not in the format agreed.
    #[error("{url}: {problem}")]
    Unreachable {
        /// The address.
        url: String,
        /// What happened.
        problem: String,
    },
    /// An answer whose signature or nonce is wrong.
    #[error("{url}: {problem}")]
    Answer {
        /// The address.
        url: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// A service refused; its own code and words.
    #[error("{0}")]
    Refused(Problem),
    /// An error of another crate, passed on with its own code.
    #[error("{0}")]
    Other(Box<dyn Coded + Send + Sync>),
}

impl ServiceError {
    /// Passes on an error of another crate with its own code.
    pub fn other(error: impl Coded + Send + Sync + 'static) -> Self {
        Self::Other(Box::new(error))
    }

    /// An operating system's error while doing `what`.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}

impl Coded for ServiceError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "CM-SERV-0001",
            Self::Locked(_) => "CM-SERV-0002",
            Self::Unsealed(_) => "CM-SERV-0003",
            Self::Content { .. } => "CM-SERV-0004",
            Self::Agent(_) => "CM-SERV-0005",
            Self::Crypto(_) => "CM-SERV-0006",
            Self::NotNamed { .. } => "CM-SERV-0010",
            Self::Genesis(_) => "CM-SERV-0011",
            Self::Ledger(_) => "CM-SERV-0020",
            Self::Unreachable { .. } => "CM-SERV-0030",
            Self::Answer { .. } => "CM-SERV-0031",
            Self::Refused(problem) => {
                Code::parse(&problem.code).map_or("CM-SERV-0032", Code::as_str)
            }
            Self::Other(inner) => inner.code(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Io { .. } | Self::Locked(_) | Self::Agent(_) | Self::Crypto(_) => {
                Kind::Environment
            }
            Self::Unreachable { .. } => Kind::Environment,
            Self::Other(inner) => inner.kind(),
            Self::Refused(problem) => problem.kind(),
            _ => Kind::Refused,
        }
    }

    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::Io { .. } => "check that the installation's directory exists and is writable",
            Self::Locked(_) => "stop the other one first: casemate stop",
            Self::Unsealed(_) | Self::Content { .. } => {
                "start it with the same casemate binary, on the same platform, with the files it \
                 wrote last"
            }
            Self::Agent(_) => "services run only inside an enclave: casemate serve",
            Self::NotNamed { .. } => "give the service the trust file of its own installation",
            Self::Ledger(_) => {
                "the ledger's or the service's files were restored from an older copy: put back \
                 the newest of both"
            }
            Self::Unreachable { .. } => "start the services: casemate serve --detach",
            Self::Answer { .. } => "compare the trust file with the running services",
            Self::Refused(problem) => return problem.fix.clone(),
            Self::Other(inner) => return inner.fix(),
            Self::Crypto(_) | Self::Genesis(_) => return None,
        };
        Some(text.into())
    }
}

/// A refusal as it crosses the wire: a JSON object with a stable code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// Stable code, `CM-AREA-0000`.
    pub code: String,
    /// What was expected, what was found and where.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// HTTP status; not part of the JSON.
    #[serde(skip, default = "default_status")]
    pub status: u16,
}

const fn default_status() -> u16 {
    500
}

impl Problem {
    /// The problem that `error` is.
    pub fn of(error: &(dyn Coded + '_)) -> Self {
        Self {
            code: error.code().into(),
            message: error.to_string(),
            fix: error.fix(),
            status: match error.kind() {
                Kind::Refused => 403,
                Kind::Usage => 400,
                _ => 503,
            },
        }
    }

    /// What the refusal means, by its HTTP status.
    pub const fn kind(&self) -> Kind {
        match self.status {
            400 => Kind::Usage,
            500..=599 => Kind::Environment,
            _ => Kind::Refused,
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Refused(problem) => problem,
            other => Self::of(&other),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(CONTENT_TYPE, "application/json")], body).into_response()
    }
}
