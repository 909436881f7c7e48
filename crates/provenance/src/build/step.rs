//! One step: its namespaces, its process 1, its output, its end.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sched::CloneFlags;

use super::observe::{Observer, mount_table};
use super::stage::{Ending, Order, Report};
use super::warden::emit_event;
use super::{BuildError, Event, Helper, helper};

/// Last lines of a step's output that an error shows, and how many bytes of each.
const TAIL_LINES: usize = 20;
const TAIL_WIDTH: usize = 400;

/// The variable in which the agent names the descriptor of the host's network namespace.
const HOST_NETWORK: &str = "CASEMATE_HOST_NETNS";

/// A step that is to run.
pub(super) struct Step<'a> {
    pub command: &'a [String],
    pub environment: &'a BTreeMap<String, String>,
    /// Whether it keeps the network.
    pub fetch: bool,
}

impl Step<'_> {
    /// Runs the step under the observer's eyes; returns how often it tried a network it did not have.
    pub fn run(
        &self,
        own: &Helper,
        observer: &Observer,
        bound: &[String],
    ) -> Result<u64, BuildError> {
        let mut stage = self.spawn_in_new_namespaces(own)?;
        let result = self.converse(&mut stage, observer, bound);
        // Process 1 of the step takes everything in its namespace with it.
        let _ = stage.kill();
        let _ = stage.wait();
        let released = observer.guard_stage(None);
        // A file that was refused explains why the step failed, not the other way round.
        released.and(result)
    }

    fn converse(
        &self,
        stage: &mut Child,
        observer: &Observer,
        bound: &[String],
    ) -> Result<u64, BuildError> {
        let lost =
            |e: &dyn std::fmt::Display| BuildError::setup("talking to the step's first process", e);
        let (Some(mut orders), Some(output), Some(reports)) =
            (stage.stdin.take(), stage.stdout.take(), stage.stderr.take())
        else {
            return Err(lost(&"no pipes"));
        };
        let mut reports = BufReader::new(reports);
        match next_report(&mut reports)? {
            Some(Report::Ready) => {}
            Some(Report::Failed(error)) => return Err(error),
            other => return Err(lost(&format!("unexpected report {other:?}"))),
        }
        let mounts = observer.mark_mounts(stage.id(), bound)?;
        observer.guard_stage(Some(stage.id()))?;
        let order = Order { command: self.command.to_vec(), environment: self.environment.clone() };
        let mut line = serde_json::to_vec(&order).map_err(|e| lost(&e))?;
        line.push(b'\n');
        let relay = std::thread::spawn(move || relay(output));
        orders.write_all(&line).map_err(|e| lost(&e))?;
        let ended = next_report(&mut reports)?;
        let mounts_after = mount_table(stage.id());
        drop(orders);
        let _ = stage.wait();
        let tail = relay.join().unwrap_or_default();
        observer.verdict()?;
        match ended {
            Some(Report::Ended { ending, network_attempts }) => {
                if mounts_after? != mounts {
                    let how = "mounts appeared or went".into();
                    return Err(BuildError::ChangedFromOutside { path: "/".into(), how });
                }
                self.judge(&ending, if self.fetch { 0 } else { network_attempts }, tail)
            }
            Some(Report::Failed(error)) => Err(error),
            other => Err(lost(&format!("unexpected end {other:?}"))),
        }
    }

    fn judge(&self, ending: &Ending, attempts: u64, tail: String) -> Result<u64, BuildError> {
        let command = self.command.join(" ");
        let status = match ending {
            Ending::Exit(0) => {
                if attempts > 0 {
                    emit_event(Event::NetworkAttempts { command: self.command.to_vec(), attempts });
                }
                return Ok(attempts);
            }
            Ending::Exit(status) => format!("exited with status {status}"),
            Ending::Signal(signal) => format!("was ended by {signal}"),
            Ending::NotStarted(reason) => format!("could not be started: {reason}"),
        };
        Err(match attempts {
            0 => BuildError::StepFailed { command, status, tail },
            _ => BuildError::StepNetwork { command, status, attempts, tail },
        })
    }

    fn spawn_in_new_namespaces(&self, own: &Helper) -> Result<Child, BuildError> {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(&own.arguments)
            .arg(helper::STAGE)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut flags =
            CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
        if !self.fetch {
            flags |= CloneFlags::CLONE_NEWNET;
        }
        // A thread may leave its namespaces only once, so each step is started by a thread of its own.
        let spawned = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    nix::sched::unshare(flags)
                        .map_err(|e| BuildError::setup("making the step's namespaces", e))?;
                    if self.fetch {
                        enter_host_network()?;
                    }
                    command
                        .spawn()
                        .map_err(|e| BuildError::setup("starting the step's first process", e))
                })
                .join()
        });
        spawned.unwrap_or_else(|_| {
            Err(BuildError::setup("starting the step's first process", "panic"))
        })
    }
}

/// Takes the calling thread to the host's network, where the agent of the builder's enclave has
/// left a way there. Outside of an enclave the host's network is the one it is in.
fn enter_host_network() -> Result<(), BuildError> {
    let Ok(number) = std::env::var(HOST_NETWORK) else { return Ok(()) };
    let failed = |e: std::io::Error| BuildError::setup("entering the host's network", e);
    let namespace = std::fs::File::open(format!("/proc/self/fd/{number}")).map_err(failed)?;
    nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|e| failed(e.into()))
}

fn next_report(from: &mut BufReader<ChildStderr>) -> Result<Option<Report>, BuildError> {
    let mut line = String::new();
    let read =
        from.read_line(&mut line).map_err(|e| BuildError::setup("reading the step's report", e))?;
    if read == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line)
        .map(Some)
        .map_err(|_| BuildError::setup("running the step's first process", line.trim()))
}

/// Passes a step's output on and keeps its last lines.
fn relay(mut output: impl Read) -> String {
    let mut tail = Tail::default();
    let mut buffer = [0; 16 * 1024];
    loop {
        match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                tail.push(&text);
                emit_event(Event::Output { text });
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    tail.text()
}

#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    /// Whether the last line still waits for its end.
    open: bool,
}

impl Tail {
    fn push(&mut self, text: &str) {
        for piece in text.split_inclusive('\n') {
            let (line, ends) = piece.strip_suffix('\n').map_or((piece, false), |line| (line, true));
            if !self.open {
                self.lines.push_back(String::new());
                if self.lines.len() > TAIL_LINES {
                    self.lines.pop_front();
                }
            }
            if let Some(last) = self.lines.back_mut() {
                let room = TAIL_WIDTH.saturating_sub(last.chars().count());
                last.extend(line.chars().take(room));
            }
            self.open = !ends;
        }
    }

    fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_however_they_arrive() {
        let mut tail = Tail::default();
        for number in 0..100 {
            tail.push("li");
            tail.push(&format!("ne {number}\n"));
        }
        tail.push("half");
        let text = tail.text();
        assert_eq!(text.lines().count(), TAIL_LINES);
        assert!(text.starts_with("line 81\n") && text.ends_with("line 99\nhalf"), "{text}");
        tail.push(&"x".repeat(10_000));
        assert!(tail.text().len() < 1000);
    }
}
