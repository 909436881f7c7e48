//! Starting: the agent's process, the launch message, and the conversation until the program runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use casemate_enclave_protocol::launch::{Stream, TeeSource};
use casemate_enclave_protocol::message::{FromAgent, ToAgent};
use casemate_enclave_protocol::{Channel, EvidenceRequest, LaunchConfig};
use casemate_spec::Sha384;
use casemate_spec::spec::{Listen, Volume, VolumeKind};
use casemate_spec::workload::Workload;
use casemate_tee::sim::{Launch, SimHandle, Simulator};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::termios::isatty;

use crate::dial::Outside;
use crate::error::EnclaveError;
use crate::idmap;
use crate::options::{Program, StartOptions, StreamSource, Tee};
use crate::plan::plan;
use crate::running::Running;
use crate::terminal::Terminal;

/// Starts a program in an enclave and returns when it runs.
///
/// # Errors
/// [`EnclaveError`]: what could not be planned or set up, or why the agent or a service behind it
/// refused. Nothing of the enclave is left then.
pub fn start(options: StartOptions) -> Result<Running, EnclaveError> {
    let forward = options.forward_signals;
    let mut session = Session::launch(options, None)?;
    match session.converse()? {
        Outcome::Started(started) => Running::new(session, started, forward),
        Outcome::Evidence(_) => Err(died("evidence came instead of a start")),
    }
}

/// Assembles and measures the enclave, proves `request` and ends, without running the program.
/// Returns the evidence record as JSON.
///
/// # Errors
/// As [`start`].
pub fn prove(options: StartOptions, request: EvidenceRequest) -> Result<Vec<u8>, EnclaveError> {
    let mut session = Session::launch(options, Some(request))?;
    match session.converse()? {
        Outcome::Evidence(record) => Ok(record.into_bytes()),
        Outcome::Started(_) => Err(died("a start came instead of evidence")),
    }
}

/// A launched agent.
pub(crate) struct Session {
    pub(crate) agent: Agent,
    pub(crate) channel: Channel,
    pub(crate) outside: Outside,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) simulator: Option<SimHandle>,
    tee: Tee,
    debug: bool,
    streams: [Stream; 3],
}

/// The agent's process. It is ended and waited for when this is dropped.
pub(crate) struct Agent(Child);

enum Outcome {
    Started(Started),
    Evidence(String),
}

/// What the agent says when the program runs.
pub(crate) struct Started {
    pub(crate) workload: Workload,
    pub(crate) measurement: Sha384,
    pub(crate) notices: Vec<String>,
}

impl Session {
    fn launch(
        mut options: StartOptions,
        evidence_only: Option<EvidenceRequest>,
    ) -> Result<Self, EnclaveError> {
        if matches!(options.tee, Tee::Simulated(_)) {
            casemate_tee::sim::refuse_beside_real_tee()?;
        }
        // The agent starts up while the root is planned.
        let (agent, channel) = spawn(&[])?;
        let planned = plan(&options.program)?;
        let spec = &options.program.spec;
        let outside = Outside::new(options.relay.take(), &spec.connect, &options.dial);
        let listeners = if evidence_only.is_some() {
            options.streams = [StreamSource::Null, StreamSource::Null, StreamSource::Null];
            Vec::new()
        } else {
            listeners(&spec.listen, &mut options.listeners)?
        };
        let (streams, stream_fds) = streams(options.streams)?;
        let debug = !planned.effective.production;
        let config = LaunchConfig {
            spec: planned.effective,
            agent: casemate_agent_image::digest(),
            plan: planned.plan,
            pass_env: options.pass_env,
            volumes: volumes(&options.program),
            tee: match options.tee {
                Tee::Simulated(_) => TeeSource::Simulated,
                Tee::Device => TeeSource::Device,
            },
            streams,
            evidence_only,
        };
        let mut fds: Vec<BorrowedFd<'_>> = stream_fds.iter().map(AsFd::as_fd).collect();
        fds.extend(listeners.iter().map(AsFd::as_fd));
        channel.send(&ToAgent::Launch { config: Box::new(config) }, &fds)?;
        let tee = options.tee;
        Ok(Self { agent, channel, outside, terminal: None, simulator: None, tee, debug, streams })
    }

    /// Answers the agent until the program runs or evidence is there.
    fn converse(&mut self) -> Result<Outcome, EnclaveError> {
        loop {
            let Some((message, fds)) = self.channel.recv::<FromAgent>()? else {
                return Err(died("it closed the channel"));
            };
            let mut fds = fds.into_iter();
            let mut fd = || fds.next().ok_or_else(|| died("a descriptor is missing"));
            match message {
                FromAgent::MapIds => {
                    idmap::write(self.agent.id())
                        .map_err(|source| EnclaveError::IdMap { source })?;
                    self.channel.send(&ToAgent::IdsMapped, &[])?;
                }
                FromAgent::TeeTree => {
                    let tree = fd()?;
                    if let Tee::Simulated(platform) = &self.tee {
                        let agent = casemate_agent_image::digest();
                        let launch = Launch { agent, debug: self.debug };
                        let handle = Simulator::start(Arc::clone(platform), launch, tree)?;
                        self.simulator = Some(handle);
                    }
                    self.channel.send(&ToAgent::TeeReady, &[])?;
                }
                FromAgent::Terminal => {
                    let [input, output, error] = self.streams.map(|s| s == Stream::Terminal);
                    let terminal = Terminal::start(fd()?, input, output || error)
                        .map_err(launch_error("connecting the terminal"))?;
                    self.terminal = Some(terminal);
                    self.channel.send(&ToAgent::TerminalReady, &[])?;
                }
                FromAgent::Call { service, path, body } => {
                    self.outside.call(service, path, body, fd()?);
                }
                FromAgent::Dial { peer } => self.outside.dial(peer, fd()?),
                FromAgent::Started { workload, measurement, notices } => {
                    return Ok(Outcome::Started(Started { workload, measurement, notices }));
                }
                FromAgent::Evidence { record } => return Ok(Outcome::Evidence(record)),
                FromAgent::Failed { refusal } => return Err(refusal.into()),
                _ => return Err(died("a message out of turn")),
            }
        }
    }
}

impl Agent {
    /// Waits until the agent, and with it everything inside, has ended.
    pub(crate) fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        self.0.wait()
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Process 1 inside is tied to this one's life.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Spawns the agent from sealed memory: no file of the host is involved.
pub(crate) fn spawn(arguments: &[&str]) -> Result<(Agent, Channel), EnclaveError> {
    let image = image().map_err(launch_error("copying its image into sealed memory"))?;
    let (ours, theirs) = Channel::pair().map_err(launch_error("making a channel"))?;
    let child = Command::new(format!("/proc/self/fd/{}", image.as_raw_fd()))
        .arg0("casemate-agent")
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(launch_error("executing it"))?;
    Ok((Agent(child), ours))
}

fn image() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match rustix::fs::memfd_create("casemate-agent", flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know the flag and need none.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("casemate-agent", flags)?,
        other => other?,
    };
    let mut file = File::from(memory);
    io::Write::write_all(&mut file, casemate_agent_image::AGENT)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Host directories of volumes, in the spec's order.
fn volumes(program: &Program) -> Vec<Option<String>> {
    let source = |v: &Volume| match v.kind {
        VolumeKind::Untrusted => v.source.as_ref().map(|s| program.directory.join(s)),
        _ => None,
    };
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    program.spec.volumes.iter().map(|v| source(v).map(text)).collect()
}

/// One listening socket per entry of the spec: the caller's, or a new one.
fn listeners(
    entries: &[Listen],
    given: &mut BTreeMap<u16, TcpListener>,
) -> Result<Vec<TcpListener>, EnclaveError> {
    let listeners = entries
        .iter()
        .map(|entry| match given.remove(&entry.port) {
            Some(listener) => Ok(listener),
            None => listen(entry.address.as_deref(), entry.port),
        })
        .collect::<Result<_, _>>()?;
    match given.keys().next() {
        Some(port) => {
            Err(EnclaveError::Options(format!("port {port} is not in the spec's listen")))
        }
        None => Ok(listeners),
    }
}

fn listen(address: Option<&str>, port: u16) -> Result<TcpListener, EnclaveError> {
    let address = address.map_or_else(|| format!("127.0.0.1:{port}"), Into::into);
    TcpListener::bind(&address).map_err(|source| EnclaveError::Listen { address, source })
}

fn streams(sources: [StreamSource; 3]) -> Result<([Stream; 3], Vec<OwnedFd>), EnclaveError> {
    let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let mut kinds = [Stream::Null; 3];
    let mut fds = Vec::new();
    for ((kind, source), own) in kinds.iter_mut().zip(sources).zip(own) {
        match source {
            StreamSource::Null => {}
            StreamSource::Inherit if isatty(own) => *kind = Stream::Terminal,
            StreamSource::Inherit => {
                *kind = Stream::Fd;
                let fd = own.try_clone_to_owned();
                fds.push(fd.map_err(launch_error("duplicating a standard stream"))?);
            }
            StreamSource::Fd(fd) => {
                *kind = Stream::Fd;
                fds.push(fd);
            }
        }
    }
    Ok((kinds, fds))
}

fn launch_error(step: &'static str) -> impl FnOnce(io::Error) -> EnclaveError {
    move |source| EnclaveError::Launch { step, source }
}

fn died(how: &str) -> EnclaveError {
    EnclaveError::AgentDied(how.into())
}
