//! Answers the program's questions: evidence, sealing keys, its workload.

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_enclave_protocol::agent_api::{Request, Response};
use casemate_enclave_protocol::{Channel, ChannelError, Refusal};
use zeroize::Zeroizing;

use crate::error::AgentError;
use crate::evidence::Prover;

const MAX_CLIENTS: usize = 64;
const MAX_REQUEST: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves the socket from a thread of its own.
pub(crate) fn serve(listener: UnixListener, prover: Prover) -> Result<(), AgentError> {
    let prover = Arc::new(prover);
    let clients = Arc::new(AtomicUsize::new(0));
    let work = move || {
        loop {
            let Ok((socket, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            let (prover, counter) = (Arc::clone(&prover), Arc::clone(&clients));
            if counter.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS {
                counter.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let started = std::thread::Builder::new().name("api-client".into()).spawn(move || {
                // A client that hangs up or sends nonsense only loses its own connection.
                let _ = answer(socket, &prover);
                counter.fetch_sub(1, Ordering::Relaxed);
            });
            if started.is_err() {
                clients.fetch_sub(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::Builder::new()
        .name("api".into())
        .spawn(work)
        .map(drop)
        .map_err(AgentError::system("starting a thread"))
}

fn answer(socket: UnixStream, prover: &Prover) -> Result<(), ChannelError> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let channel = Channel::limited(socket, MAX_REQUEST);
    while let Some((request, _)) = channel.recv::<Request>()? {
        let response = respond(&request, prover)
            .unwrap_or_else(|e| Response::Refused { refusal: Refusal::of(&e) });
        channel.send(&response, &[])?;
    }
    Ok(())
}

fn respond(request: &Request, prover: &Prover) -> Result<Response, AgentError> {
    Ok(match request {
        Request::Evidence { request } => Response::Evidence { record: prover.for_others(request)? },
        Request::SealingKey { label } => {
            let key = prover.sealing_key(label)?;
            Response::SealingKey { key: Zeroizing::new(BASE64_STANDARD.encode(key.as_slice())) }
        }
        Request::Workload => Response::Workload { workload: prover.workload().clone() },
        _ => return Err(AgentError::Evidence("a question this version does not know".into())),
    })
}
