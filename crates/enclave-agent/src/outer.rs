//! The process the starting half spawned: makes the namespaces, then only watches.
//!
//! It stays outside of the new pid namespace, so that the starting half can wait for it, and it
//! ends only when everything inside has ended. When the starting half dies, its end of the
//! channel closes; this process then kills process 1 inside, and the kernel all the others.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use casemate_enclave_protocol::message::{FromAgent, ToAgent};
use casemate_enclave_protocol::{Channel, LaunchConfig, Refusal};
use nix::sched::CloneFlags;
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{DumpableBehavior, PidfdFlags, Resource, Rlimit, WaitOptions};

use crate::error::AgentError;
use crate::{inner, probe, sys};

/// The agent's whole life. Standard input is the channel to the starting half.
pub fn run() -> ExitCode {
    let Ok(channel) = take_channel() else { return ExitCode::from(3) };
    if std::env::args_os().nth(1).is_some_and(|a| a == "probe") {
        return probe::run(&channel);
    }
    match launch(&channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = channel.send(&FromAgent::Failed { refusal: Refusal::of(&error) }, &[]);
            ExitCode::from(3)
        }
    }
}

/// Takes the channel off standard input, so that no program can inherit it by number.
fn take_channel() -> io::Result<Channel> {
    let channel = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(channel.into())
}

fn launch(channel: &Channel) -> Result<(), AgentError> {
    let Some((message, fds)) = channel.recv::<ToAgent>()? else { return Ok(()) };
    let ToAgent::Launch { config } = message else {
        return Err(AgentError::Launch("expected the launch first".into()));
    };
    // A session of its own: the terminal's signals reach the program only through the agent.
    rustix::process::setsid().map_err(AgentError::system("making a session"))?;
    sys::plain_personality().map_err(AgentError::system("setting the personality"))?;
    no_core_dumps()?;
    let host_network = open_host_network(&config)?;
    make_namespaces(channel, &config)?;
    match sys::fork().map_err(AgentError::Namespaces)? {
        Some(child) => watch(channel.as_fd(), child),
        None => inner::run(channel, *config, fds, host_network),
    }
}

/// The build observer may enter the host's network for declared fetch steps; nobody else may.
fn open_host_network(config: &LaunchConfig) -> Result<Option<OwnedFd>, AgentError> {
    if !config.spec.observer {
        return Ok(None);
    }
    std::fs::File::open("/proc/self/ns/net")
        .map(|f| Some(f.into()))
        .map_err(AgentError::system("opening the host's network namespace"))
}

fn make_namespaces(channel: &Channel, config: &LaunchConfig) -> Result<(), AgentError> {
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    if config.spec.observer {
        // fanotify for whole mounts and the mounts of build steps need the real root.
        if !rustix::process::geteuid().is_root() {
            return Err(AgentError::Launch("the build observer must be started by root".into()));
        }
    } else {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    nix::sched::unshare(flags).map_err(|e| AgentError::Namespaces(e.into()))?;
    if config.spec.observer {
        return Ok(());
    }
    // An ordinary user's id maps can be written only while the process is dumpable. It holds
    // nothing secret yet.
    dumpable(true)?;
    channel.send(&FromAgent::MapIds, &[])?;
    match channel.recv::<ToAgent>()? {
        Some((ToAgent::IdsMapped, _)) => dumpable(false),
        _ => Err(AgentError::Launch("expected the id maps to be written".into())),
    }
}

fn dumpable(yes: bool) -> Result<(), AgentError> {
    let behaviour = if yes { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    rustix::process::set_dumpable_behavior(behaviour)
        .map_err(AgentError::system("keeping other processes out of the agent"))
}

fn no_core_dumps() -> Result<(), AgentError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none)
        .map_err(AgentError::system("forbidding core dumps"))
}

/// Waits for process 1 to end, and ends it when the starting half is gone.
fn watch(channel: BorrowedFd<'_>, child: Pid) -> Result<(), AgentError> {
    let fail = AgentError::system::<rustix::io::Errno>;
    let pid = rustix::process::Pid::from_raw(child.as_raw())
        .ok_or_else(|| AgentError::Namespaces(io::Error::other("process 1 has no id outside")))?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(fail("watching process 1"))?;
    loop {
        // Without requested events only the hang-up of the channel is reported.
        let mut fds = [
            PollFd::new(&process, PollFlags::IN),
            PollFd::from_borrowed_fd(channel, PollFlags::empty()),
        ];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(fail("watching process 1"))?,
        };
        if !fds[0].revents().is_empty() {
            break;
        }
        if !fds[1].revents().is_empty() {
            let kill = rustix::process::Signal::KILL;
            rustix::process::pidfd_send_signal(&process, kill).map_err(fail("ending process 1"))?;
            break;
        }
    }
    let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
    Ok(())
}
