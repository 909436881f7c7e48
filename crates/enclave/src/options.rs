//! What to run and how it is connected to the outside.

use std::collections::BTreeMap;
use std::fmt;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use casemate_spec::Sha256;
use casemate_spec::spec::Spec;
use casemate_tee::sim::Platform;

/// The `PATH` of a program whose spec sets none. It is part of the measured environment.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program and its spec: what is measured.
#[derive(Debug, Clone)]
pub struct Program {
    /// The spec.
    pub spec: Spec,
    /// Program and arguments; empty: the spec's own command.
    pub command: Vec<String>,
    /// SHA-256 of the SubjectPublicKeyInfo of the broker's signing key; needed for secrets.
    pub broker: Option<Sha256>,
    /// Whether this is the build observer, which keeps what it needs to watch build steps.
    pub observer: bool,
    /// Path of the program's file inside the enclave, if it is to be another than outside: a
    /// program installed in different places then measures the same.
    pub place: Option<String>,
    /// Where relative paths begin: the program, `dir:PATH`, sources of volumes.
    pub directory: PathBuf,
}

impl Program {
    /// A program with its arguments, relative to the current directory, without a broker.
    pub fn new<A: Into<String>>(spec: Spec, command: impl IntoIterator<Item = A>) -> Self {
        Self {
            spec,
            command: command.into_iter().map(Into::into).collect(),
            broker: None,
            observer: false,
            place: None,
            directory: std::env::current_dir().unwrap_or_else(|_| "/".into()),
        }
    }
}

/// Where evidence comes from.
#[derive(Debug, Clone)]
pub enum Tee {
    /// This simulated platform, served by the starting half.
    Simulated(Arc<Platform>),
    /// The TEE of this machine, through the kernel's configfs-tsm.
    Device,
}

/// What is behind one standard stream of the program.
#[derive(Debug)]
pub enum StreamSource {
    /// The caller's own; the enclave's pseudo-terminal if that is a terminal.
    Inherit,
    /// `/dev/null`.
    Null,
    /// This descriptor.
    Fd(OwnedFd),
}

/// The way to services, as untrusted as the network behind it.
pub trait Relay: Send + Sync {
    /// POSTs the JSON `body` to `path` of `service` (`broker`) and returns the response's body,
    /// whatever its HTTP status: a refusal is JSON too.
    ///
    /// # Errors
    /// Why there is no response.
    fn call(&self, service: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, String>;
}

/// Everything `start` needs.
pub struct StartOptions {
    /// What to run.
    pub program: Program,
    /// Where evidence comes from.
    pub tee: Tee,
    /// Standard input, output and error.
    pub streams: [StreamSource; 3],
    /// Values of variables named by the spec's `pass_env`.
    pub pass_env: BTreeMap<String, String>,
    /// Listening sockets by the spec's port. One that is missing is bound to the spec's address.
    pub listeners: BTreeMap<u16, TcpListener>,
    /// Real addresses (`HOST:PORT`) of peers named `HOST:PORT` in the spec, over the spec's own.
    pub dial: BTreeMap<String, String>,
    /// The way to the broker; needed for secrets.
    pub relay: Option<Arc<dyn Relay>>,
    /// Whether signals that this process gets (INT, TERM, HUP, QUIT, USR1, USR2, CONT) go to the
    /// program. Installs handlers for the life of the enclave.
    pub forward_signals: bool,
}

impl StartOptions {
    /// Streams inherited, signals not forwarded, nothing else given.
    pub fn new(program: Program, tee: Tee) -> Self {
        Self {
            program,
            tee,
            streams: [StreamSource::Inherit, StreamSource::Inherit, StreamSource::Inherit],
            pass_env: BTreeMap::new(),
            listeners: BTreeMap::new(),
            dial: BTreeMap::new(),
            relay: None,
            forward_signals: false,
        }
    }
}

impl fmt::Debug for StartOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartOptions")
            .field("program", &self.program)
            .field("tee", &self.tee)
            .field("streams", &self.streams)
            .field("dial", &self.dial)
            .field("forward_signals", &self.forward_signals)
            .finish_non_exhaustive()
    }
}
