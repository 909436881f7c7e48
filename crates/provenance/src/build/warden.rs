//! The observer process: makes the root, watches, runs the steps, reports.
//!
//! It is process 1 of its pid namespace. It ends when its input does, which is when the process that
//! asked for the build is gone; with it end all processes of the build, and then its mounts.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use casemate_spec::Sha256;
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::classify::Classifier;
use super::debian::Packages;
use super::observe::Observer;
use super::step::Step;
use super::{
    Artifact, BuildError, Event, Frame, Output, RanCommand, Request, SOURCE_DIR, collect, root,
};

pub(super) fn main() -> ExitCode {
    let mut line = String::new();
    let request = stdin()
        .lock()
        .read_line(&mut line)
        .ok()
        .and_then(|_| serde_json::from_str::<Request>(&line).ok());
    let Some(request) = request else {
        return ExitCode::from(2);
    };
    std::thread::spawn(end_with_parent);
    match build(&request) {
        Ok(output) => {
            emit(&Frame::Done(output));
            ExitCode::SUCCESS
        }
        Err(error) => {
            emit(&Frame::Refused(error));
            ExitCode::FAILURE
        }
    }
}

/// Tells the process that asked for the build.
pub(super) fn emit_event(event: Event) {
    emit(&Frame::Event(event));
}

/// Ends this process, and by it the whole build, with a refusal.
pub(super) fn leave(reason: Option<BuildError>) -> ! {
    if let Some(error) = reason {
        emit(&Frame::Refused(error));
    }
    std::process::exit(1)
}

fn emit(frame: &Frame) {
    if let Ok(mut line) = serde_json::to_vec(frame) {
        line.push(b'\n');
        let mut out = stdout().lock();
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            std::process::exit(1);
        }
    }
}

fn end_with_parent() {
    let mut rest = [0; 64];
    while !matches!(stdin().lock().read(&mut rest), Ok(0) | Err(_)) {}
    std::process::exit(1);
}

fn build(request: &Request) -> Result<Output, BuildError> {
    root::detach_mounts()?;
    root::mount_proc("/proc")?;
    // Opened before anything is mounted over their names.
    let host = open_directory(&request.host_root)?;
    let source = open_directory(&request.source.root)?;
    let output = open_directory(&request.output)?;
    let host_path = root::tree_path(&host);
    let packages = Packages::read(&host_path)?;
    let toolchain = packages.toolchain(&request.build.toolchain)?;
    let world = root::assemble(&host_path, &toolchain)?;
    for path in world.skipped {
        emit_event(Event::ConfigurationSkipped { path });
    }
    let resolver = root::resolver(&request.resolver);
    root::write_source(&request.source, &source, request.source_date_epoch)?;
    let expected = request
        .source
        .files
        .iter()
        .map(|(path, file)| (format!("{SOURCE_DIR}/{path}"), *file))
        .collect();
    let classifier =
        Classifier::new(packages, toolchain, expected, world.provided, world.bound.clone());
    let observer = Observer::start(Path::new(root::MOUNT_POINT), host_path, classifier)?;
    let environment = environment(request);
    let started = now();
    let commands = run_steps(request, &observer, &world.bound, &environment, resolver)?;
    let finished = now();
    let mut artifacts = Vec::new();
    let result =
        collect_artifacts(request, &output, &mut artifacts).and_then(|()| observer.finish());
    let observed = match result {
        Ok(observed) => observed,
        Err(error) => {
            for artifact in &artifacts {
                collect::remove(&artifact.name, output.as_fd())?;
            }
            return Err(error);
        }
    };
    Ok(Output {
        artifacts,
        materials: observed.materials,
        commands,
        environment,
        withheld: observed.withheld,
        started,
        finished,
    })
}

fn run_steps(
    request: &Request,
    observer: &Observer,
    bound: &[String],
    environment: &BTreeMap<String, String>,
    resolver: Option<(String, Vec<u8>)>,
) -> Result<Vec<RanCommand>, BuildError> {
    let build = &request.build;
    let total = build.fetch.len() + build.steps.len();
    let fetches = build.fetch.iter().map(|command| (command, true));
    let steps = fetches.chain(build.steps.iter().map(|command| (command, false)));
    let mut commands = Vec::new();
    for (index, (command, fetch)) in steps.enumerate() {
        emit_event(Event::Step { number: index + 1, total, command: command.clone(), fetch });
        let step = Step { command, environment, fetch };
        let network_attempts = if fetch {
            run_fetch(&step, request, observer, bound, resolver.as_ref())?
        } else {
            step.run(&request.helper, observer, bound)?
        };
        commands.push(RanCommand { command: command.clone(), fetch, network_attempts });
    }
    Ok(commands)
}

/// A step with network; every file it leaves behind becomes a material.
fn run_fetch(
    step: &Step<'_>,
    request: &Request,
    observer: &Observer,
    bound: &[String],
    resolver: Option<&(String, Vec<u8>)>,
) -> Result<u64, BuildError> {
    if let Some((path, bytes)) = resolver {
        observer.provide(path, Sha256::of(bytes));
        std::fs::write(root::at(path), bytes)
            .map_err(|e| BuildError::setup(format!("writing {path}"), e))?;
    }
    let result = step.run(&request.helper, observer, bound);
    if let Some((path, _)) = resolver {
        std::fs::remove_file(root::at(path))
            .map_err(|e| BuildError::setup(format!("removing {path}"), e))?;
    }
    let attempts = result?;
    collect::written_files(&mut |path, sha256, size| observer.add_fetched(&path, sha256, size))?;
    observer.verdict()?;
    Ok(attempts)
}

fn collect_artifacts(
    request: &Request,
    output: &OwnedFd,
    artifacts: &mut Vec<Artifact>,
) -> Result<(), BuildError> {
    for path in &request.build.artifacts {
        artifacts.push(collect::artifact(path, output.as_fd())?);
    }
    Ok(())
}

/// What the steps see of the world outside: what the measured specification says, and the commit's time.
fn environment(request: &Request) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> = [
        ("PATH", "/usr/bin:/bin".to_owned()),
        ("HOME", "/tmp".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("SOURCE_DATE_EPOCH", request.source_date_epoch.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    environment.extend(request.build.env.clone());
    environment
}

fn open_directory(path: &Path) -> Result<OwnedFd, BuildError> {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| BuildError::setup(format!("opening {}", path.display()), e))
}

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}
