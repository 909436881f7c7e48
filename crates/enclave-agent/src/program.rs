//! The program's start: its own session, streams, root and environment, nothing else.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use casemate_enclave_protocol::Refusal;
use casemate_enclave_protocol::agent_api::{SOCKET, VARIABLE};
use casemate_spec::spec::EffectiveSpec;
use nix::unistd::Pid;
use rustix::fs::Mode;
use zeroize::Zeroize;

use crate::confine::Rules;
use crate::error::AgentError;
use crate::secrets::Secrets;
use crate::{mounts, supervise, sys};

/// First descriptor of sockets that are handed over (`sd_listen_fds(3)`).
const FIRST_SOCKET: i32 = 3;

/// Names the descriptor of the host's network namespace, for the build observer only.
const HOST_NETWORK: &str = "CASEMATE_HOST_NETNS";

/// Everything the program starts with.
pub(crate) struct Program<'a> {
    pub(crate) spec: &'a EffectiveSpec,
    pub(crate) pass_env: &'a BTreeMap<String, String>,
    pub(crate) secrets: &'a Secrets,
    pub(crate) streams: Streams,
    pub(crate) listeners: Vec<BorrowedFd<'a>>,
    pub(crate) host_network: Option<OwnedFd>,
    pub(crate) rules: Rules,
}

/// Standard streams (`None`: `/dev/null`) and the controlling terminal.
pub(crate) struct Streams {
    pub(crate) fds: Vec<Option<OwnedFd>>,
    pub(crate) controlling: Option<OwnedFd>,
}

/// Starts the program and returns when it executes.
pub(crate) fn start(program: Program<'_>) -> Result<Pid, AgentError> {
    supervise::block_child_signal()?;
    let (mut result, report) = std::io::pipe().map_err(AgentError::system("making a pipe"))?;
    let Some(child) = sys::fork().map_err(AgentError::system("forking"))? else {
        let error = become_program(program);
        let refusal = serde_json::to_vec(&Refusal::of(&error)).unwrap_or_default();
        let _ = (&report).write_all(&refusal);
        std::process::exit(127);
    };
    drop((report, program));
    let mut refusal = Vec::new();
    result.read_to_end(&mut refusal).map_err(AgentError::system("starting the program"))?;
    if refusal.is_empty() {
        return Ok(child);
    }
    Err(serde_json::from_slice::<Refusal>(&refusal).map_or_else(
        |e| AgentError::Launch(format!("the program's process ended early: {e}")),
        AgentError::Refused,
    ))
}

/// Only returns if the program does not start.
fn become_program(program: Program<'_>) -> AgentError {
    match prepare(program) {
        Err(error) => error,
        Ok((path, arguments, mut environment)) => {
            let source = sys::execute(&path, &arguments, &environment);
            for variable in environment.drain(..) {
                variable.into_bytes().zeroize();
            }
            AgentError::Exec { path: path.to_string_lossy().into_owned(), source }
        }
    }
}

type Arguments = (CString, Vec<CString>, Vec<CString>);

fn prepare(program: Program<'_>) -> Result<Arguments, AgentError> {
    let Program { spec, streams, listeners, host_network, rules, .. } = &program;
    let arguments = spec
        .command
        .iter()
        .map(|a| c_string(a.clone().into_bytes()))
        .collect::<Result<Vec<_>, _>>()?;
    let path = arguments
        .first()
        .cloned()
        .ok_or_else(|| AgentError::Launch("the program has no name".into()))?;

    rustix::process::setsid().map_err(AgentError::system("making a session"))?;
    if let Some(terminal) = &streams.controlling {
        rustix::process::ioctl_tiocsctty(terminal).map_err(|e| AgentError::Terminal(e.into()))?;
    }
    mounts::enter_program_root()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::chdir(spec.workdir.as_str()).map_err(|e| AgentError::Mount {
        doing: "entering the working directory",
        path: spec.workdir.clone(),
        source: e.into(),
    })?;
    let last = place_descriptors(streams, listeners, host_network.as_ref())?;
    let environment = environment(&program, last)?;
    sys::default_signals().map_err(AgentError::system("restoring signals"))?;
    sys::close_on_exec_from(last).map_err(AgentError::system("closing descriptors"))?;
    rules.apply(&streams.fds)?;
    Ok((path, arguments, environment))
}

/// Puts every descriptor that the program gets where it expects it. Returns the first free one.
fn place_descriptors(
    streams: &Streams,
    listeners: &[BorrowedFd<'_>],
    host_network: Option<&OwnedFd>,
) -> Result<i32, AgentError> {
    let fail = AgentError::system::<std::io::Error>;
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(fail("opening /dev/null"))?;
    let mut wanted: Vec<OwnedFd> = Vec::new();
    for stream in &streams.fds {
        let fd = stream.as_ref().map_or(null.as_fd(), OwnedFd::as_fd);
        wanted.push(sys::duplicate_high(fd).map_err(fail("moving descriptors"))?);
    }
    for socket in listeners.iter().copied().chain(host_network.map(OwnedFd::as_fd)) {
        wanted.push(sys::duplicate_high(socket).map_err(fail("moving descriptors"))?);
    }
    let mut number = 0;
    for fd in &wanted {
        sys::place(fd.as_fd(), number).map_err(fail("placing descriptors"))?;
        number += 1;
    }
    Ok(number)
}

fn environment(program: &Program<'_>, last: i32) -> Result<Vec<CString>, AgentError> {
    let mut all: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for (name, value) in program.spec.env.iter().chain(program.pass_env) {
        all.insert(name, value.clone().into_bytes());
    }
    for (name, value) in program.secrets.variables() {
        all.insert(name, value.to_vec());
    }
    if program.spec.attestation {
        all.insert(VARIABLE, SOCKET.into());
    }
    if !program.listeners.is_empty() {
        all.insert("LISTEN_FDS", program.listeners.len().to_string().into_bytes());
        all.insert("LISTEN_PID", std::process::id().to_string().into_bytes());
    }
    if program.host_network.is_some() {
        all.insert(HOST_NETWORK, (last - 1).to_string().into_bytes());
    }
    debug_assert!(last >= FIRST_SOCKET);
    all.into_iter()
        .map(|(name, mut value)| {
            let joined = c_string([name.as_bytes(), b"=", &value].concat());
            value.zeroize();
            joined
        })
        .collect()
}

fn c_string(bytes: Vec<u8>) -> Result<CString, AgentError> {
    CString::new(bytes).map_err(|_| AgentError::Launch("a NUL byte in argv or env".into()))
}

/// Whether `fd` is a file or device that a path-based rule can name.
pub(crate) fn has_path(fd: &OwnedFd) -> bool {
    use rustix::fs::FileType;
    let kind = rustix::fs::fstat(fd).map(|s| FileType::from_raw_mode(s.st_mode));
    matches!(kind, Ok(FileType::RegularFile | FileType::CharacterDevice)) && fd.as_raw_fd() >= 0
}
