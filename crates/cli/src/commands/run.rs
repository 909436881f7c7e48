//! `casemate run`: a program, unmodified, in an enclave; ends as the program does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use casemate_enclave::{end_like, start};

use crate::args::Run;
use crate::failure::Failure;
use crate::installation::Installation;
use crate::output;
use crate::workload::{self, BrokerRelay};

/// Runs the command. It does not return once the program has run: this process ends as the program
/// did, with its status or by its signal.
///
/// # Errors
/// If the enclave can not start, or a secret is refused: the program then has not run.
pub fn run(dir: Option<&Path>, args: &Run) -> Result<u8, Failure> {
    let installation = match (dir, Installation::find(dir)) {
        (Some(_), found) => Some(found?),
        (None, found) => found.ok(),
    };
    let program = workload::program(installation.as_ref(), &args.workload)?;
    let wants_secrets = !program.spec.secrets.is_empty();
    let pass_env: BTreeMap<String, String> = program
        .spec
        .enclave
        .pass_env
        .iter()
        .filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)))
        .collect();
    let mut options = workload::options(installation.as_ref(), program)?;
    options.pass_env = pass_env;
    options.forward_signals = true;
    if let Some(installation) = installation.as_ref().filter(|_| wants_secrets) {
        options.relay = Some(Arc::new(BrokerRelay::new(installation)?));
    }
    let running = start(options)?;
    output::error_line(&format!(
        "casemate: SIMULATED TEE, hides nothing from root here; measurement\ncasemate: {}",
        running.measurement()
    ));
    for notice in running.notices() {
        output::error_line(&format!("casemate: {notice}"));
    }
    end_like(running.wait()?)
}
