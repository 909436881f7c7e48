//! What this kernel allows, found by trying. Runs in a process of its own, outside of any enclave.

use std::process::ExitCode;

use casemate_enclave_protocol::Channel;
use casemate_enclave_protocol::message::Probe;
use nix::sched::CloneFlags;

use crate::{confine, seccomp, sys};

/// Tries everything and sends a [`Probe`].
pub(crate) fn run(channel: &Channel) -> ExitCode {
    let probe = Probe {
        landlock_abi: confine::landlock_abi().map_or(0, |abi| abi as i32),
        memfd_secret: sys::has_memfd_secret(),
        fanotify: fanotify(),
        seccomp: seccomp::Filters::new(true)
            .and_then(|filters| {
                rustix::thread::set_no_new_privs(true)
                    .map_err(crate::AgentError::system("forbidding new privileges"))?;
                in_child(|| filters.install().is_ok())
            })
            .err()
            .map(|e| e.to_string()),
        namespaces: namespaces(),
    };
    match channel.send(&probe, &[]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fanotify() -> Option<String> {
    use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags};
    let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC;
    Fanotify::init(flags, EventFFlags::O_RDONLY).err().map(|e| e.to_string())
}

fn namespaces() -> Option<String> {
    let all = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    nix::sched::unshare(all).err().map(|e| e.to_string())
}

/// Tries something that can not be undone, in a child.
fn in_child(attempt: impl FnOnce() -> bool) -> Result<(), crate::AgentError> {
    use nix::sys::wait::{WaitStatus, waitpid};
    let fail = || crate::AgentError::Confine {
        doing: "seccomp",
        problem: "the kernel refuses the filter".into(),
    };
    match sys::fork().map_err(crate::AgentError::system("forking"))? {
        None => std::process::exit(i32::from(!attempt())),
        Some(child) => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            _ => Err(fail()),
        },
    }
}
