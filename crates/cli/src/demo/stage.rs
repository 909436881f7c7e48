//! The demo's stage: runs this very binary as a user would, shows what it says, and keeps count.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use casemate_spec::Kind;

use crate::failure::{self, Failure};
use crate::output;

/// Where the demo plays.
pub struct Stage {
    exe: PathBuf,
    dir: PathBuf,
    started: Instant,
    steps: usize,
    refusals: usize,
    wrong: Vec<String>,
}

/// What a command of the demo did.
pub struct Outcome {
    /// Exit status; 128 + N if killed by signal N.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// What a finished process left.
    pub fn of(output: &Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let status = output.status.code().unwrap_or(128 + output.status.signal().unwrap_or(0));
        Self {
            status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Whether any line of either stream holds `text`.
    pub fn says(&self, text: &str) -> bool {
        self.stdout.contains(text) || self.stderr.contains(text)
    }

    /// The line that names the refusal, without the program's name.
    pub fn refusal(&self) -> String {
        self.stderr
            .lines()
            .chain(self.stdout.lines())
            .find_map(|l| l.find("CM-").map(|at| l[at..].to_owned()))
            .unwrap_or_else(|| self.stderr.lines().last().unwrap_or("").to_owned())
    }
}

impl Stage {
    /// A stage in `dir`.
    pub fn new(dir: &Path) -> Result<Self, Failure> {
        let exe = std::env::current_exe().map_err(|e| failure::io("this program's path", &e))?;
        Ok(Self {
            exe,
            dir: dir.to_owned(),
            started: Instant::now(),
            steps: 0,
            refusals: 0,
            wrong: Vec::new(),
        })
    }

    /// A path in the demo's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Announces a part of the story.
    pub fn part(&mut self, text: &str) {
        output::line("");
        output::heading(text);
    }

    /// Tells something.
    pub fn say(&self, text: &str) {
        for part in output::wrap(text, output::WIDTH - 2) {
            output::line(&format!("  {part}"));
        }
    }

    /// This binary with `args`, in the demo's directory, not yet started.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.exe);
        command.args(args).current_dir(&self.dir).stdin(Stdio::null());
        command.env_remove("CASEMATE_DIR");
        command
    }

    /// Runs this binary with `args` and waits.
    pub fn casemate<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Outcome, Failure> {
        run(&mut self.command(args))
    }

    /// A step of the story that must succeed: shows the command and what `show` picks of its
    /// output. Without it the story can not go on.
    pub fn step(
        &mut self,
        args: &[&str],
        show: impl Fn(&Outcome) -> Vec<String>,
    ) -> Result<Outcome, Failure> {
        output::line(&format!("  $ casemate {}", abbreviate(&args.join(" "))));
        let outcome = self.casemate(args)?;
        if outcome.status != 0 {
            return Err(Failure::new(
                "CM-CLI-0030",
                Kind::Environment,
                format!(
                    "demo: `casemate {}` ended with {}: {}",
                    args.join(" "),
                    outcome.status,
                    outcome.stderr.trim_end()
                ),
            ));
        }
        self.steps += 1;
        for line in show(&outcome) {
            for part in output::wrap(&shorten(&line), output::WIDTH - 6) {
                output::line(&format!("      {part}"));
            }
        }
        Ok(outcome)
    }

    /// Notes a fact of the story that must hold.
    pub fn must(&mut self, holds: bool, what: &str) {
        self.steps += 1;
        output::check(holds, what);
        if !holds {
            self.wrong.push(what.to_owned());
        }
    }

    /// An attack, which must end in exactly this code.
    pub fn refused(&mut self, attack: &str, code: &str, outcome: &Outcome) {
        self.refusals += 1;
        let named = outcome.says(code);
        let good = outcome.status == 1 && named;
        output::check(good, attack);
        for part in output::wrap(&shorten(&outcome.refusal()), output::WIDTH - 7).iter().take(3) {
            output::line(&format!("       {part}"));
        }
        if !good {
            let text = format!(
                "{attack}: expected status 1 and {code}, got status {}: {}",
                outcome.status,
                outcome.stderr.trim_end()
            );
            self.wrong.push(text);
        }
    }

    /// Runs an attack and notes its refusal.
    pub fn attack(&mut self, attack: &str, code: &str, args: &[&str]) -> Result<(), Failure> {
        let outcome = self.casemate(args)?;
        self.refused(attack, code, &outcome);
        Ok(())
    }

    /// The closing lines, and whether all was as it should be.
    pub fn close(&self) -> Result<(), Failure> {
        output::line("");
        output::line(&format!(
            "{} steps and facts, {} attacks refused, {} not as they should be, in {:.1} s",
            self.steps,
            self.refusals - self.wrong.len().min(self.refusals),
            self.wrong.len(),
            self.started.elapsed().as_secs_f64()
        ));
        if self.wrong.is_empty() {
            return Ok(());
        }
        Err(Failure::new("CM-CLI-0031", Kind::Refused, format!("demo: {}", self.wrong.join("; "))))
    }
}

/// Runs a command to its end, its streams captured.
pub fn run(command: &mut Command) -> Result<Outcome, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| failure::io(&name, &e))?;
    Ok(Outcome::of(&output))
}

/// Copies a directory tree of regular files and directories.
pub fn copy_tree(from: &Path, to: &Path) -> Result<(), Failure> {
    let context = |e: std::io::Error| failure::io(&from.display().to_string(), &e);
    fs::create_dir_all(to).map_err(context)?;
    for entry in fs::read_dir(from).map_err(context)? {
        let entry = entry.map_err(context)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(context)?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).map_err(context)?;
        }
    }
    Ok(())
}

/// `text` with long digests cut to their first digits: the demo's reader copies none of them.
fn shorten(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_hexdigit();
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_hex) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c| !is_hex(c)).unwrap_or(from.len());
        let (digits, after) = from.split_at(end);
        out += before;
        if digits.len() >= 40 {
            out += &digits[..12];
            out += "...";
        } else {
            out += digits;
        }
        rest = after;
    }
    out + rest
}

/// A command line short enough for one line of the terminal.
fn abbreviate(command: &str) -> String {
    let room = output::WIDTH - 15;
    if command.chars().count() <= room {
        return command.to_owned();
    }
    let cut: String = command.chars().take(room - 3).collect();
    format!("{cut}...")
}
