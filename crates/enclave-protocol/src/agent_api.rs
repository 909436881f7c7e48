//! How a program inside asks the agent: evidence, sealing keys, its own workload.
//!
//! The program never touches the TEE. It talks to the agent over the socket that `CASEMATE_AGENT`
//! names (only when its spec says `attestation = true`), and the agent mixes the real workload
//! measurement into whatever it proves. So no program can speak for another.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_spec::binding::{NONCE_SIZE, Purpose};
use casemate_spec::workload::Workload;
use casemate_spec::{Coded, Kind};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::channel::{Channel, ChannelError};
use crate::launch::EvidenceRequest;
use crate::message::Refusal;

/// The variable that names the agent's socket.
pub const VARIABLE: &str = "CASEMATE_AGENT";

/// Where the socket is inside the enclave.
pub const SOCKET: &str = "/run/casemate/agent.sock";

/// Longest label of a sealing key, in bytes.
pub const MAX_LABEL: usize = 128;

const MAX_RESPONSE: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);

/// A request that the agent did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The process is not the program of an enclave with `attestation = true`.
    #[error("{VARIABLE} is not set: this is no enclave, or its spec lacks attestation = true")]
    Absent,
    /// The agent can not be reached.
    #[error("asking the agent")]
    Channel(#[from] ChannelError),
    /// The agent refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Coded for AgentError {
    fn code(&self) -> &'static str {
        match self {
            Self::Absent => "CM-ENCL-0070",
            Self::Channel(_) => "CM-ENCL-0071",
            Self::Refused(refusal) => refusal.code(),
        }
    }
    fn kind(&self) -> Kind {
        match self {
            Self::Absent | Self::Channel(_) => Kind::Environment,
            Self::Refused(refusal) => refusal.kind(),
        }
    }
    fn fix(&self) -> Option<String> {
        match self {
            Self::Absent => Some("set attestation = true in [enclave] and use casemate run".into()),
            Self::Channel(_) => None,
            Self::Refused(refusal) => refusal.fix(),
        }
    }
}

/// What a program asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Request {
    /// Evidence for a key.
    Evidence {
        /// Purpose, nonce and key.
        request: EvidenceRequest,
    },
    /// The workload's sealing key of this label.
    SealingKey {
        /// What the key is for; 1 to 128 bytes.
        label: String,
    },
    /// The workload as measured.
    Workload,
}

/// What the agent answers.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Response {
    /// Evidence record, JSON.
    Evidence {
        /// The record.
        record: String,
    },
    /// 32 bytes, base64.
    SealingKey {
        /// The key.
        key: Zeroizing<String>,
    },
    /// The workload.
    Workload {
        /// Its four inputs.
        workload: Workload,
    },
    /// Refused.
    Refused {
        /// Why.
        refusal: Refusal,
    },
}

/// The agent, seen from its program. Each call is one connection.
#[derive(Debug, Clone)]
pub struct AgentClient {
    socket: PathBuf,
}

impl AgentClient {
    /// The agent that `CASEMATE_AGENT` names.
    ///
    /// # Errors
    /// [`AgentError::Absent`] outside an enclave.
    pub fn from_env() -> Result<Self, AgentError> {
        std::env::var_os(VARIABLE).map(|path| Self::at(path.into())).ok_or(AgentError::Absent)
    }

    /// The agent behind `socket`.
    pub const fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Evidence (record JSON) that this workload holds the key in `spki`, for `purpose`.
    ///
    /// # Errors
    /// [`AgentError`]; [`Purpose::SecretRelease`] is always refused, and a purpose that needs a
    /// nonce without one.
    pub fn evidence(
        &self,
        purpose: Purpose,
        nonce: Option<[u8; NONCE_SIZE]>,
        spki: &[u8],
    ) -> Result<Vec<u8>, AgentError> {
        let request = EvidenceRequest { purpose, nonce, spki: spki.to_vec() };
        match self.ask(&Request::Evidence { request })? {
            Response::Evidence { record } => Ok(record.into_bytes()),
            other => Err(unexpected(other)),
        }
    }

    /// The sealing key of this workload on this platform for `label`. The same workload gets the
    /// same key again; any other workload, agent or platform gets another.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn sealing_key(&self, label: &str) -> Result<Zeroizing<[u8; 32]>, AgentError> {
        match self.ask(&Request::SealingKey { label: label.into() })? {
            Response::SealingKey { key } => {
                let mut out = Zeroizing::new([0; 32]);
                match BASE64_STANDARD.decode_slice(key.as_bytes(), out.as_mut_slice()) {
                    Ok(32) => Ok(out),
                    _ => Err(ChannelError::Message("a sealing key of another size".into()).into()),
                }
            }
            other => Err(unexpected(other)),
        }
    }

    /// What this workload was measured as.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn workload(&self) -> Result<Workload, AgentError> {
        match self.ask(&Request::Workload)? {
            Response::Workload { workload } => Ok(workload),
            other => Err(unexpected(other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Response, AgentError> {
        let connect = || {
            let socket = UnixStream::connect(&self.socket)?;
            socket.set_read_timeout(Some(TIMEOUT))?;
            socket.set_write_timeout(Some(TIMEOUT))?;
            Ok(socket)
        };
        let socket = connect().map_err(ChannelError::Io)?;
        let channel = Channel::limited(socket, MAX_RESPONSE);
        channel.send(request, &[])?;
        match channel.recv::<Response>()? {
            Some((response, _)) => Ok(response),
            None => Err(ChannelError::Message("the agent hung up".into()).into()),
        }
    }
}

fn unexpected(response: Response) -> AgentError {
    match response {
        Response::Refused { refusal } => refusal.into(),
        _ => ChannelError::Message("an answer to another question".into()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_so_when_there_is_no_agent() {
        let client = AgentClient::at("/nonexistent/agent.sock".into());
        assert_eq!(client.workload().expect_err("no agent").code(), "CM-ENCL-0071");
    }

    proptest::proptest! {
        #[test]
        fn no_json_makes_the_parsers_panic(text in ".{0,200}") {
            let _ = serde_json::from_str::<Request>(&text);
            let _ = serde_json::from_str::<Response>(&text);
        }
    }
}
