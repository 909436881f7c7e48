//! How long an enclave's start adds to a program's: `/bin/true` a hundred times each, in turns.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_enclave::{EnclaveError, Program, StartOptions, StreamSource, Tee, start};
use casemate_spec::spec::Spec;
use casemate_tee::sim::Platform;

const RUNS: usize = 100;

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let platform = Arc::new(Platform::create(&dir.path().join("sim"))?);
    let (mut native, mut enclave) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        native.push(timed(|| Ok(run_native()?))?);
        enclave.push(timed(|| Ok(run_enclave(&platform)?))?);
    }
    let (native, enclave) = (median(native), median(enclave));
    println!("/bin/true, median of {RUNS}, in turns:");
    println!("  native        {native:>9.2?}");
    println!("  in an enclave {enclave:>9.2?}");
    println!("  added         {:>9.2?}", enclave.saturating_sub(native));
    Ok(())
}

fn run_native() -> std::io::Result<()> {
    Command::new("/bin/true").stdin(Stdio::null()).status().map(drop)
}

fn run_enclave(platform: &Arc<Platform>) -> Result<(), EnclaveError> {
    let program = Program::new(Spec::minimal(), ["/bin/true"]);
    let mut options = StartOptions::new(program, Tee::Simulated(Arc::clone(platform)));
    options.streams = [StreamSource::Null, StreamSource::Null, StreamSource::Null];
    start(options)?.wait().map(drop)
}

fn timed(
    work: impl FnOnce() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<Duration, Box<dyn std::error::Error>> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
