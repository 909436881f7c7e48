//! The life of the program: reaping, signals, its end.

use std::os::fd::AsFd;

use casemate_enclave_protocol::Channel;
use casemate_enclave_protocol::message::{Exit, FromAgent, ToAgent};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

use crate::error::AgentError;

/// Blocks SIGCHLD, so that it is seen by descriptor. Before the program is forked.
pub(crate) fn block_child_signal() -> Result<(), AgentError> {
    child_signal().thread_block().map_err(AgentError::system("blocking SIGCHLD"))
}

/// Reaps, forwards signals and reports how `program` ended. When the starting half is gone,
/// returns at once.
pub(crate) fn until_end(channel: &Channel, program: Pid) -> Result<(), AgentError> {
    let signals =
        SignalFd::with_flags(&child_signal(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(AgentError::system("watching SIGCHLD"))?;
    loop {
        // A child may have ended before the descriptor was there.
        if let Some(exit) = reap(program)? {
            channel.send(&FromAgent::Exited { exit }, &[])?;
            return Ok(());
        }
        let mut fds = [
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            PollFd::new(channel, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(AgentError::system("waiting"))?,
        };
        if !fds[0].revents().is_empty() {
            while let Ok(Some(_)) = signals.read_signal() {}
        }
        if !fds[1].revents().is_empty() {
            match channel.recv::<ToAgent>()? {
                None => return Ok(()),
                Some((ToAgent::Signal { number }, _)) => deliver(number, program),
                Some(_) => return Err(AgentError::Launch("expected a signal".into())),
            }
        }
    }
}

fn child_signal() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set
}

/// What a terminal would send goes to the program's process group, all else to the program.
fn deliver(number: i32, program: Pid) {
    let Ok(signal) = Signal::try_from(number) else { return };
    let target = match signal {
        Signal::SIGINT | Signal::SIGQUIT | Signal::SIGHUP => Pid::from_raw(-program.as_raw()),
        _ => program,
    };
    // The program may have ended meanwhile; that is noticed above.
    let _ = kill(target, signal);
}

fn reap(program: Pid) -> Result<Option<Exit>, AgentError> {
    let mut exit = None;
    loop {
        // Real-time signals have numbers but no names; this wait knows numbers only.
        match wait(WaitOptions::NOHANG) {
            Ok(None) | Err(Errno::CHILD) => return Ok(exit),
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == program.as_raw() => {
                let code = status.exit_status().map(Exit::Code);
                exit = code.or_else(|| status.terminating_signal().map(Exit::Signal)).or(exit);
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Err(e) => return Err(AgentError::system("waiting for the program")(e)),
        }
    }
}
