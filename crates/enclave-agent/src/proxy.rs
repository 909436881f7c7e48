//! Bytes between the enclave's loopback and sockets that the starting half owns.
//!
//! Nothing is protected here: `tls = "none"` says that the bytes are visible outside.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use casemate_enclave_protocol::net::{is_literal, peer_addresses};
use casemate_spec::spec::{MeasuredConnect, MeasuredListen};

use crate::error::AgentError;
use crate::relay::Outside;

/// Most connections at one time, in and out together. Two threads serve each.
const MAX_CONNECTIONS: usize = 4096;
const STACK: usize = 256 << 10;
const BUFFER: usize = 64 << 10;

/// How long a connection waits for the program to listen.
const PATIENCE: Duration = Duration::from_secs(5);

static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

/// A listener inside for each declared peer.
pub(crate) struct Peers(Vec<(usize, TcpListener)>);

/// Listens on the addresses that the enclave's `/etc/hosts` gives to declared peers.
pub(crate) fn bind_peers(connect: &[MeasuredConnect]) -> Result<Peers, AgentError> {
    let mut listeners = Vec::with_capacity(connect.len());
    for (index, (peer, address)) in connect.iter().zip(peer_addresses(connect)).enumerate() {
        let fail = |source| AgentError::Network {
            doing: format!("standing in for {}:{} inside", peer.host, peer.port),
            source,
        };
        if is_literal(&peer.host) {
            return Err(fail(io::Error::other("peers are declared by name, not by address")));
        }
        let listener = TcpListener::bind(SocketAddr::from((address, peer.port))).map_err(fail)?;
        listeners.push((index, listener));
    }
    Ok(Peers(listeners))
}

/// The listening sockets that the program gets itself.
pub(crate) fn handed_over<'a>(
    listen: &[MeasuredListen],
    sockets: &'a [OwnedFd],
) -> Vec<BorrowedFd<'a>> {
    listen
        .iter()
        .zip(sockets)
        .filter(|(l, _)| l.socket_activation)
        .map(|(_, socket)| socket.as_fd())
        .collect()
}

/// Accepts on the other listening sockets and passes the bytes to the program's port.
pub(crate) fn serve_listeners(
    listen: &[MeasuredListen],
    sockets: Vec<OwnedFd>,
) -> Result<(), AgentError> {
    for (entry, socket) in listen.iter().zip(sockets) {
        if entry.socket_activation {
            continue;
        }
        let listener = TcpListener::from(socket);
        let _ = listener.set_nonblocking(false);
        let port = entry.port;
        spawn("listen", move || accept_all(&listener, move || connect_inside(port)))?;
    }
    Ok(())
}

/// Accepts on the stand-ins of peers and passes the bytes to the peers.
pub(crate) fn serve_peers(peers: Peers, outside: Outside) -> Result<(), AgentError> {
    let outside = Arc::new(outside);
    for (index, listener) in peers.0 {
        let outside = Arc::clone(&outside);
        let dial = move || {
            outside.dial(index).map(TcpStream::from).map_err(|e| io::Error::other(e.to_string()))
        };
        spawn("connect", move || accept_all(&listener, dial))?;
    }
    Ok(())
}

fn accept_all<D>(listener: &TcpListener, dial: D)
where
    D: Fn() -> io::Result<TcpStream> + Clone + Send + 'static,
{
    loop {
        let Ok((client, _)) = listener.accept() else {
            // Out of descriptors, or the client is gone again: neither is a reason to spin.
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        if CONNECTIONS.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let dial = dial.clone();
        let served = spawn("connection", move || {
            if let Ok(server) = dial() {
                let _ = join(&client, &server);
            }
            CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
        });
        if served.is_err() {
            CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn connect_inside(port: u16) -> io::Result<TcpStream> {
    let start = Instant::now();
    loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Err(e)
                if e.kind() == io::ErrorKind::ConnectionRefused && start.elapsed() < PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

/// Copies both ways until both sides have ended; an end of one direction is passed on alone.
fn join(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    std::thread::scope(|scope| {
        let back = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, || copy(server, client))?;
        copy(client, server);
        let _ = back.join();
        Ok(())
    })
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(n) if to.write_all(&buffer[..n]).is_ok() => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => {
                // A broken side ends both directions, as it would natively.
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

fn spawn<F: FnOnce() + Send + 'static>(name: &str, work: F) -> Result<(), AgentError> {
    std::thread::Builder::new()
        .name(name.into())
        .stack_size(STACK)
        .spawn(work)
        .map(drop)
        .map_err(AgentError::system("starting a thread"))
}
