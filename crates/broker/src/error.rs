//! Why the broker does not do what it was asked.

use casemate_service::{Problem, ServiceError};
use casemate_spec::{Coded, Kind, Sha256, Sha384};

/// A refusal of the broker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// A request that makes no sense.
    #[error("request: {0}")]
    Request(String),
    /// Too many nonces outstanding.
    #[error("more nonces are asked for than are answered")]
    Crowded,
    /// A nonce that was never given out, or was used before.
    #[error(
        "expected a nonce of this broker, found one it did not give out or that was used before"
    )]
    Nonce,
    /// A nonce that is too old.
    #[error("expected an answer to the nonce within 60 s, it came after {age} s")]
    Expired {
        /// Seconds since it was given out.
        age: i64,
    },
    /// No such secret.
    #[error("no secret {name:?}")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// No grant for this workload.
    #[error("secret {name:?} is not granted to workload {measurement}{reason}")]
    NotGranted {
        /// The secret.
        name: String,
        /// The workload.
        measurement: Sha384,
        /// Why grants to releases do not apply, if there are any.
        reason: String,
    },
    /// A grant that can not be taken back because it was never given.
    #[error("secret {name:?} has no such grant")]
    NoGrant {
        /// The secret.
        name: String,
    },
    /// The workload's detail does not match its evidence.
    #[error("workload detail: expected {what} {expected} as in the evidence, found {found}")]
    Detail {
        /// `spec` or `root`.
        what: &'static str,
        /// Digest in the evidence.
        expected: Sha256,
        /// Digest of what was sent.
        found: Sha256,
    },
    /// An act under another trust file.
    #[error("act {id}: expected trust file {expected}, found {found}")]
    OtherTrust {
        /// The act.
        id: String,
        /// The trust file in force.
        expected: Sha256,
        /// The one in the act.
        found: Sha256,
    },
    /// An act from the future.
    #[error("act {id}: made {ahead} s after now")]
    Future {
        /// The act.
        id: String,
        /// By how much.
        ahead: i64,
    },
    /// An act that is too old.
    #[error("act {id}: expected one made within the last {limit} s, it was made {age} s ago")]
    Stale {
        /// The act.
        id: String,
        /// Its age in seconds.
        age: i64,
        /// The limit in seconds.
        limit: i64,
    },
    /// A second act with the id of one that was applied.
    #[error("act {id}: another act with this id was applied before")]
    Reused {
        /// The id.
        id: String,
    },
    /// A value that does not open, or is too large.
    #[error("secret {name:?}: {problem}")]
    Value {
        /// The secret.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// More than the broker keeps.
    #[error("expected at most {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: usize,
    },
    /// A grant to a release whose bundle is missing or another.
    #[error("release: {0}")]
    Bundle(String),
    /// The ledger knows a newer state than the file: an old copy was put back.
    #[error(
        "state: the ledger has this broker at epoch {ledger}, the state file is of epoch {file}"
    )]
    RolledBack {
        /// Epoch in the ledger.
        ledger: u64,
        /// Epoch of the file.
        file: u64,
    },
    /// Two different states of one epoch: two brokers with the same keys.
    #[error("state: the ledger has another state of epoch {epoch} than this broker")]
    Forked {
        /// The epoch.
        epoch: u64,
    },
    /// What every service can fail at.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl BrokerError {
    /// Passes on an error of another crate with its own code.
    pub fn other(error: impl Coded + Send + Sync + 'static) -> Self {
        Self::Service(ServiceError::other(error))
    }
}

impl Coded for BrokerError {
    fn code(&self) -> &'static str {
        match self {
            Self::Request(_) => crate::BAD_REQUEST,
            Self::Crowded => "CM-BROK-0002",
            Self::Nonce => "CM-BROK-0003",
            Self::Expired { .. } => "CM-BROK-0004",
            Self::Unknown { .. } => "CM-BROK-0005",
            Self::NotGranted { .. } => "CM-BROK-0006",
            Self::Detail { .. } => "CM-BROK-0007",
            Self::NoGrant { .. } => "CM-BROK-0008",
            Self::OtherTrust { .. } => "CM-BROK-0009",
            Self::Future { .. } => "CM-BROK-0010",
            Self::Stale { .. } => "CM-BROK-0011",
            Self::Reused { .. } => "CM-BROK-0012",
            Self::Value { .. } => "CM-BROK-0013",
            Self::Limit { .. } => "CM-BROK-0014",
            Self::Bundle(_) => "CM-BROK-0015",
            Self::RolledBack { .. } => "CM-BROK-0020",
            Self::Forked { .. } => "CM-BROK-0021",
            Self::Service(inner) => inner.code(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Request(_) => Kind::Usage,
            Self::Crowded => Kind::Environment,
            Self::Service(inner) => inner.kind(),
            _ => Kind::Refused,
        }
    }

    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::Request(_) => "use a client of the same version",
            Self::Crowded => "try again in a minute",
            Self::Nonce | Self::Expired { .. } => "start the program again: it gets a new nonce",
            Self::Unknown { .. } => "store it: casemate secret put NAME",
            Self::NotGranted { measurement, .. } => {
                return Some(format!(
                    "compare with casemate measure --diff; if the workload is the one you mean: \
                     casemate secret grant NAME --measurement {measurement}"
                ));
            }
            Self::NoGrant { .. } => "see which there are: casemate secret list",
            Self::Detail { .. } => "the agent and the broker disagree: use one version of casemate",
            Self::OtherTrust { .. } => "make the act again under the trust file in force",
            Self::Future { .. } => "set the clock of the machine where the act was made",
            Self::Stale { .. } | Self::Reused { .. } => "make the act again and have it signed",
            Self::Value { .. } => "store a value of at most 65536 bytes, sealed to this broker",
            Self::Limit { .. } => "revoke what is no longer needed",
            Self::Bundle(_) => "give the bundle of the release, as casemate sign completed it",
            Self::RolledBack { .. } | Self::Forked { .. } => {
                "put back the newest files of the broker; an older copy is never accepted"
            }
            Self::Service(inner) => return inner.fix(),
        };
        Some(text.into())
    }
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Service(inner) => inner.into(),
            other => Self::of(&other),
        }
    }
}
