//! What the integration tests share.

#![allow(dead_code)]

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use casemate_enclave::{Exit, Program, Running, StartOptions, StreamSource, Tee, start};
use casemate_spec::spec::Spec;
use casemate_tee::sim::Platform;

/// One simulated platform for all tests of a process.
pub fn platform() -> Arc<Platform> {
    static PLATFORM: OnceLock<Arc<Platform>> = OnceLock::new();
    let make = || {
        let dir = tempfile::tempdir().expect("directory");
        Arc::new(Platform::create(&dir.path().join("sim")).expect("platform"))
    };
    Arc::clone(PLATFORM.get_or_init(make))
}

/// A spec from the text below `version = 1`.
pub fn spec(text: &str) -> Spec {
    Spec::parse(&format!("version = 1\n{text}"), "test").expect("spec")
}

/// Options for a program without standard streams.
pub fn options(text: &str, command: &[&str]) -> StartOptions {
    let program = Program::new(spec(text), command.iter().copied());
    let mut options = StartOptions::new(program, Tee::Simulated(platform()));
    options.streams = [StreamSource::Null, StreamSource::Null, StreamSource::Null];
    options
}

/// What a program wrote and how it ended.
#[derive(Debug)]
pub struct Output {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

/// Starts with standard output and error taken, and returns what reads them.
pub fn start_piped(mut options: StartOptions) -> (Running, impl FnOnce() -> (String, String)) {
    let (stdout, out) = std::io::pipe().expect("pipe");
    let (stderr, err) = std::io::pipe().expect("pipe");
    options.streams[1] = StreamSource::Fd(out.into());
    options.streams[2] = StreamSource::Fd(err.into());
    let running = match start(options) {
        Ok(running) => running,
        Err(e) => panic!("starting: {e} ({:?})", e),
    };
    let read = |mut pipe: std::io::PipeReader| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).expect("reading");
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let (stdout, stderr) = (read(stdout), read(stderr));
    (running, move || (stdout.join().expect("stdout"), stderr.join().expect("stderr")))
}

/// Runs a program to its end.
pub fn run(options: StartOptions) -> Output {
    let (running, streams) = start_piped(options);
    let exit = running.wait().expect("waiting");
    let (stdout, stderr) = streams();
    Output { exit, stdout, stderr }
}

/// Runs `script` with `/bin/sh` and these programs beside it.
pub fn shell(text: &str, script: &str) -> Output {
    run(options(text, &["/bin/sh", "-c", script]))
}

/// Programs for scripts, as a `[files]` section.
pub fn tools(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|n| format!("{n:?}")).collect();
    format!("[files]\ntrusted = [{}]\n", names.join(", "))
}

/// Starts this test binary again as a process of its own that plays `role` (see
/// `role_of_a_child_process` in the test file). As another user if `user` is given.
pub fn child(role: &str, user: Option<u32>) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command
        .args(["--ignored", "--exact", "role_of_a_child_process", "--nocapture"])
        .args(["--test-threads", "1"])
        .env("CASEMATE_TEST_ROLE", role)
        .current_dir("/")
        .stdin(Stdio::null());
    if let Some(id) = user {
        command.uid(id).gid(id).env("TMPDIR", "/tmp");
    }
    command
}

/// Whether this process may become another user.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Process ids whose command line contains `needle`.
pub fn processes_with(needle: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(needle) {
            found.push(pid);
        }
    }
    found
}

/// Waits up to ten seconds until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 10, "{what} did not happen");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A regular file with this content, open for reading.
pub fn file_with(dir: &Path, content: &[u8]) -> OwnedFd {
    let path = dir.join("input");
    std::fs::write(&path, content).expect("writing");
    std::fs::File::open(path).expect("opening").into()
}
