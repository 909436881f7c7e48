//! Answers the agent's requests for the outside: HTTP calls and connections to declared peers.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use casemate_enclave_protocol::Channel;
use casemate_enclave_protocol::message::Reply;
use casemate_spec::spec::Connect;

use crate::options::Relay;

const TIMEOUT: Duration = Duration::from_secs(10);

/// The ways outside of one enclave.
#[derive(Clone)]
pub(crate) struct Outside {
    relay: Option<Arc<dyn Relay>>,
    peers: Arc<Vec<String>>,
}

impl Outside {
    /// `dial` replaces the addresses of the spec.
    pub(crate) fn new(
        relay: Option<Arc<dyn Relay>>,
        connect: &[Connect],
        dial: &BTreeMap<String, String>,
    ) -> Self {
        let peers = connect.iter().map(|peer| {
            let name = format!("{}:{}", peer.host, peer.port);
            dial.get(&name).or(peer.address.as_ref()).cloned().unwrap_or(name)
        });
        Self { relay, peers: Arc::new(peers.collect()) }
    }

    /// Makes a call on a thread of its own and answers on `reply`.
    pub(crate) fn call(&self, service: String, path: String, body: String, reply: OwnedFd) {
        let relay = self.relay.clone();
        answer(reply, move || {
            let Some(relay) = relay else {
                return Err(format!("no way to the {service} was given"));
            };
            let body = relay.call(&service, &path, body.as_bytes())?;
            let body = String::from_utf8(body).map_err(|_| "the response is not UTF-8")?;
            Ok((Reply::Body { body }, None))
        });
    }

    /// Connects to a peer on a thread of its own and answers on `reply`.
    pub(crate) fn dial(&self, peer: usize, reply: OwnedFd) {
        let address = self.peers.get(peer).cloned();
        answer(reply, move || {
            let address = address.ok_or("no such peer is declared")?;
            let socket = connect(&address).map_err(|e| format!("{address}: {e}"))?;
            Ok((Reply::Connected, Some(socket.into())))
        });
    }
}

fn connect(address: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, TIMEOUT) {
            Ok(socket) => return Ok(socket),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn answer<F>(reply: OwnedFd, work: F)
where
    F: FnOnce() -> Result<(Reply, Option<OwnedFd>), String> + Send + 'static,
{
    let work = move || {
        let (message, socket) = work().unwrap_or_else(|message| (Reply::Failed { message }, None));
        let fds: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
        // An agent that no longer waits has ended.
        let _ = Channel::from(reply).send(&message, &fds);
    };
    // Without a thread the reply socket closes, which the agent takes for a refusal.
    let _ = std::thread::Builder::new().name("enclave-outside".into()).spawn(work);
}
