//! Why the signer does not sign.

use casemate_service::{Problem, ServiceError};
use casemate_spec::{Coded, Kind};
use casemate_verify::{Verdict, VerifyError};

/// A refusal of the signer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// A request that makes no sense.
    #[error("request: {0}")]
    Request(String),
    /// A bundle that does not verify: the first failed check, and the others after it.
    #[error("{first}{others}")]
    Refused {
        /// The check that decides; its code is the code of the refusal.
        first: VerifyError,
        /// The other failed checks, each with its code.
        others: String,
    },
    /// What was signed does not verify; nothing of it is given out.
    #[error("the finished bundle does not verify: {0}")]
    Unsound(VerifyError),
    /// What every service can fail at.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl SignerError {
    /// Passes on an error of another crate with its own code.
    pub fn other(error: impl Coded + Send + Sync + 'static) -> Self {
        Self::Service(ServiceError::other(error))
    }

    /// The refusal that a verdict with failed checks is.
    pub(crate) fn refused(first: VerifyError, verdict: &Verdict) -> Self {
        let others = verdict.checks.iter().filter(|c| !c.passed).skip(1).map(|c| {
            format!("; {} ({}): expected {}, found {}", c.name, c.code, c.expected, c.found)
        });
        Self::Refused { first, others: others.collect() }
    }
}

impl Coded for SignerError {
    fn code(&self) -> &'static str {
        match self {
            Self::Request(_) => crate::routes::BAD_REQUEST,
            Self::Refused { first, .. } => first.code(),
            Self::Unsound(_) => "CM-SIGN-0002",
            Self::Service(inner) => inner.code(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Request(_) => Kind::Usage,
            Self::Service(inner) => inner.kind(),
            _ => Kind::Refused,
        }
    }

    fn fix(&self) -> Option<String> {
        match self {
            Self::Request(_) => Some("use a client of the same version".into()),
            Self::Refused { first, .. } => first.fix(),
            Self::Unsound(_) => {
                Some("compare the signer's trust file and ledger with the installation's".into())
            }
            Self::Service(inner) => inner.fix(),
        }
    }
}

impl From<SignerError> for Problem {
    fn from(error: SignerError) -> Self {
        match error {
            SignerError::Service(inner) => inner.into(),
            other => Self::of(&other),
        }
    }
}
