//! The starting half as the way outside: untrusted, asked over the channel.
//!
//! Every request carries a socket of its own for the answer, so requests run side by side.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use casemate_enclave_protocol::Channel;
use casemate_enclave_protocol::message::{FromAgent, Reply};

use crate::error::AgentError;

/// The way outside.
pub(crate) struct Outside(Mutex<Channel>);

impl Outside {
    pub(crate) const fn new(channel: Channel) -> Self {
        Self(Mutex::new(channel))
    }

    /// POSTs JSON to a service and returns the body of the response, whatever its status.
    pub(crate) fn call(
        &self,
        service: &str,
        path: &str,
        body: String,
    ) -> Result<String, AgentError> {
        let message = FromAgent::Call { service: service.into(), path: path.into(), body };
        let problem = match self.ask(&message)? {
            (Reply::Body { body }, _) => return Ok(body),
            (Reply::Failed { message }, _) => message,
            _ => "an answer to another question".into(),
        };
        Err(AgentError::Relay { service: service.into(), path: path.into(), problem })
    }

    /// A connection to a declared peer.
    pub(crate) fn dial(&self, peer: usize) -> Result<OwnedFd, AgentError> {
        let problem = match self.ask(&FromAgent::Dial { peer })? {
            (Reply::Connected, fds) => match fds.into_iter().next() {
                Some(fd) => return Ok(fd),
                None => "no socket came".into(),
            },
            (Reply::Failed { message }, _) => message,
            _ => "an answer to another question".into(),
        };
        Err(AgentError::Relay { service: "peer".into(), path: peer.to_string(), problem })
    }

    fn ask(&self, message: &FromAgent) -> Result<(Reply, Vec<OwnedFd>), AgentError> {
        let (mine, theirs) = Channel::pair().map_err(AgentError::system("making a socket pair"))?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).send(message, &[theirs.as_fd()])?;
        drop(theirs);
        let gone = || AgentError::Launch("the starting half is gone".into());
        mine.recv::<Reply>()?.ok_or_else(gone)
    }
}
