//! Why an enclave ends before its program runs.

use std::io;

use casemate_enclave_protocol::{ChannelError, Refusal};
use casemate_envelope::EnvelopeError;
use casemate_evidence::EvidenceError;
use casemate_spec::canonical::CanonicalError;
use casemate_spec::{Coded, Kind};
use casemate_tee::TeeError;

/// Why an enclave ends before its program runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The launch message contradicts itself or the spec in it.
    #[error("launch message: {0}")]
    Launch(String),
    /// The kernel refuses the namespaces.
    #[error("making the enclave's namespaces: {0}")]
    Namespaces(io::Error),
    /// A file of the root can not be copied.
    #[error("copying {path:?} into the enclave: {source}")]
    Copy {
        /// Its path.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Something can not be mounted or made in the root.
    #[error("{doing} {path:?} in the enclave: {source}")]
    Mount {
        /// What was being done.
        doing: &'static str,
        /// With which path.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The enclave's network.
    #[error("{doing}: {source}")]
    Network {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The enclave's terminal.
    #[error("opening the enclave's terminal: {0}")]
    Terminal(io::Error),
    /// A system call without a better place.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Evidence is asked for that the agent never gives.
    #[error("{0}")]
    Evidence(String),
    /// The relay brings no answer.
    #[error("asking {service} for {path}: {problem}")]
    Relay {
        /// The service.
        service: String,
        /// The path of the request.
        path: String,
        /// What the transport says.
        problem: String,
    },
    /// The broker's answer is no answer of this protocol.
    #[error("answer of the broker to {path}: {problem}")]
    Answer {
        /// The path of the request.
        path: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The answer is not from the broker whose key is measured.
    #[error("the broker's key has SHA-256 {found}, the spec is bound to {expected}")]
    BrokerKey {
        /// The measured digest.
        expected: String,
        /// What came.
        found: String,
    },
    /// The broker's signature does not fit its answer.
    #[error("the broker's signature does not fit its answer: it was altered on the way")]
    BrokerSignature,
    /// The answer is to another question.
    #[error("the broker's answer is for another nonce or workload: it was replayed")]
    BrokerReplay,
    /// A secret does not come.
    #[error("secret {0:?} is not in the broker's answer")]
    SecretMissing(String),
    /// A secret can not become an environment variable.
    #[error("secret {0:?} contains a NUL byte and can not be an environment variable")]
    SecretNul(String),
    /// The program can not be confined.
    #[error("confining the program: {doing}: {problem}")]
    Confine {
        /// Which part.
        doing: &'static str,
        /// Why it failed.
        problem: String,
    },
    /// The program can not be executed.
    #[error("executing {path:?}: {source}")]
    Exec {
        /// Its path inside.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// An error that crossed a process boundary, or came from a service.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The channel to the starting half.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The TEE.
    #[error(transparent)]
    Tee(#[from] TeeError),
    /// What the TEE gave.
    #[error(transparent)]
    Record(#[from] EvidenceError),
    /// A sealed secret.
    #[error("secret {name:?}: {source}")]
    Envelope {
        /// Its name.
        name: String,
        /// Why it does not open.
        source: EnvelopeError,
    },
    /// No canonical form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
}

impl AgentError {
    /// For `map_err`: a system call that failed.
    pub(crate) fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { doing, source: source.into() }
    }
}

impl Coded for AgentError {
    fn code(&self) -> &'static str {
        match self {
            Self::Launch(_) => "CM-ENCL-0040",
            Self::Namespaces(_) => "CM-ENCL-0041",
            Self::Copy { .. } => "CM-ENCL-0042",
            Self::Mount { .. } => "CM-ENCL-0043",
            Self::Network { .. } => "CM-ENCL-0044",
            Self::Terminal(_) => "CM-ENCL-0045",
            Self::System { .. } => "CM-ENCL-0046",
            Self::Evidence(_) => "CM-ENCL-0047",
            Self::Relay { .. } => "CM-ENCL-0050",
            Self::Answer { .. } => "CM-ENCL-0051",
            Self::BrokerKey { .. } => "CM-ENCL-0052",
            Self::BrokerSignature => "CM-ENCL-0053",
            Self::BrokerReplay => "CM-ENCL-0054",
            Self::SecretMissing(_) => "CM-ENCL-0055",
            Self::SecretNul(_) => "CM-ENCL-0056",
            Self::Confine { .. } => "CM-ENCL-0060",
            Self::Exec { .. } => "CM-ENCL-0061",
            Self::Refused(e) => e.code(),
            Self::Channel(e) => e.code(),
            Self::Tee(e) => e.code(),
            Self::Record(e) => e.code(),
            Self::Envelope { source, .. } => source.code(),
            Self::Canonical(e) => e.code(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Launch(_) => Kind::Usage,
            Self::Evidence(_)
            | Self::Answer { .. }
            | Self::BrokerKey { .. }
            | Self::BrokerSignature
            | Self::BrokerReplay
            | Self::SecretMissing(_)
            | Self::SecretNul(_) => Kind::Refused,
            Self::Refused(e) => e.kind(),
            Self::Channel(e) => e.kind(),
            Self::Tee(e) => e.kind(),
            Self::Record(e) => e.kind(),
            Self::Envelope { source, .. } => source.kind(),
            Self::Canonical(e) => e.kind(),
            _ => Kind::Environment,
        }
    }

    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::Namespaces(_) | Self::Confine { .. } => {
                "casemate doctor shows what this kernel allows"
            }
            Self::Copy { .. } => "make the file readable for the user who starts the enclave",
            Self::Relay { .. } => "start the services with casemate serve, then try again",
            Self::BrokerKey { .. } => "use the trust file that names this broker",
            Self::SecretNul(_) => "deliver it as a file instead",
            Self::Refused(e) => return e.fix(),
            Self::Tee(e) => return e.fix(),
            Self::Record(e) => return e.fix(),
            _ => return None,
        };
        Some(text.into())
    }
}
