//! Process 1 of a step: enters the root, gives up everything, starts the command, cleans up after it.

use std::collections::BTreeMap;
use std::io::{BufRead, Write, stderr, stdin, stdout};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};

use super::{BUILD_UID, BuildError, SOURCE_DIR, root, seccomp};

/// What the observer wants run: one JSON line on the stage's standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
}

/// What the stage answers: JSON lines on its standard error. Its standard output is the step's.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// In the root; waits for the order.
    Ready,
    /// The command has ended, and everything it left running. Waits for the end of its input.
    Ended {
        ending: Ending,
        /// Failed route look-ups in this network namespace.
        network_attempts: u64,
    },
    /// The stage could not do its work.
    Failed(BuildError),
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ending {
    Exit(i32),
    Signal(String),
    NotStarted(String),
}

pub(super) fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&Report::Failed(error));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), BuildError> {
    enter_root()?;
    report(&Report::Ready);
    let mut line = String::new();
    let lost = |e: &dyn std::fmt::Display| BuildError::setup("reading the step's order", e);
    stdin().lock().read_line(&mut line).map_err(|e| lost(&e))?;
    let order: Order = serde_json::from_str(&line).map_err(|e| lost(&e))?;
    give_up_privileges()?;
    let ending = execute(&order)?;
    let network_attempts = network_attempts()?;
    report(&Report::Ended { ending, network_attempts });
    // The observer looks at this process's mounts once more before it lets it go.
    let _ = stdin().lock().read_line(&mut line);
    Ok(())
}

fn enter_root() -> Result<(), BuildError> {
    root::detach_mounts()?;
    root::mount_proc(&format!("{}/proc", root::MOUNT_POINT))?;
    nix::unistd::sethostname("build").map_err(|e| BuildError::setup("setting the host name", e))?;
    let entering = |e: std::io::Error| BuildError::setup("entering the build's root", e);
    std::env::set_current_dir(root::MOUNT_POINT).map_err(entering)?;
    rustix::process::pivot_root(".", ".").map_err(|e| entering(e.into()))?;
    unmount(".", UnmountFlags::DETACH).map_err(|e| entering(e.into()))?;
    std::env::set_current_dir("/").map_err(entering)
}

fn give_up_privileges() -> Result<(), BuildError> {
    let bits = rustix::thread::capabilities_secure_bits()
        .map_err(|e| BuildError::setup("reading secure bits", e))?;
    if !bits.is_empty() {
        return Err(BuildError::setup(
            "giving up privileges",
            format!("secure bits {bits:?} are set"),
        ));
    }
    rustix::thread::set_no_new_privs(true)
        .map_err(|e| BuildError::setup("forbidding new privileges", e))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
        .map_err(|e| BuildError::setup("forbidding core dumps", e))?;
    umask(Mode::from_bits_truncate(0o022));
    seccomp::apply()
}

fn execute(order: &Order) -> Result<Ending, BuildError> {
    let starting = |e: std::io::Error| BuildError::setup("starting the step", e);
    let [program, arguments @ ..] = order.command.as_slice() else {
        return Ok(Ending::NotStarted("the command is empty".into()));
    };
    let output = stdout().as_fd().try_clone_to_owned().map_err(starting)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(&order.environment)
        .current_dir(SOURCE_DIR)
        .stdin(Stdio::null())
        .stdout(Stdio::from(output.try_clone().map_err(starting)?))
        .stderr(Stdio::from(output))
        // Also empties the supplementary groups, as this process is root.
        .gid(BUILD_UID)
        .uid(BUILD_UID);
    let child = match command.spawn() {
        Ok(child) => Pid::from_raw(child.id().cast_signed()),
        Err(error) => return Ok(Ending::NotStarted(error.to_string())),
    };
    let ending = loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => break Ending::Exit(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                break Ending::Signal(signal.to_string());
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(BuildError::setup("waiting for the step", e)),
        }
    };
    end_the_rest();
    Ok(ending)
}

/// What a step left running ends with it.
fn end_the_rest() {
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while matches!(wait(), Ok(_) | Err(Errno::EINTR)) {}
}

/// How often the kernel found no route in this network namespace: once for each attempt to reach
/// the network where there is none.
fn network_attempts() -> Result<u64, BuildError> {
    let read = |file: &str| match std::fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(BuildError::setup(format!("reading {file}"), e)),
    };
    let snmp = read("/proc/self/net/snmp")?;
    let snmp6 = read("/proc/self/net/snmp6")?;
    Ok(table_counter(&snmp, "Ip:", "OutNoRoutes") + list_counter(&snmp6, "Ip6OutNoRoutes"))
}

/// `/proc/net/snmp`: a line of names and one of values under the same prefix.
fn table_counter(text: &str, prefix: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(n, _)| *n == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

/// `/proc/net/snmp6`: a name and a value per line.
fn list_counter(text: &str, name: &str) -> u64 {
    let mut pairs = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    pairs.find(|(n, _)| *n == name).and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

fn report(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = stderr().lock().write_all(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_counters_of_lost_routes() {
        let snmp = "Ip: Forwarding OutNoRoutes FragOKs\nIp: 2 7 0\nTcp: OutNoRoutes\nTcp: 9\n";
        assert_eq!(table_counter(snmp, "Ip:", "OutNoRoutes"), 7);
        assert_eq!(table_counter("", "Ip:", "OutNoRoutes"), 0);
        assert_eq!(list_counter("Ip6InReceives\t1\nIp6OutNoRoutes   \t4\n", "Ip6OutNoRoutes"), 4);
    }
}
