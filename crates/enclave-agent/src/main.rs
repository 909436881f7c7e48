//! `casemate-agent`: started by the other half of an enclave, never by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    casemate_enclave_agent::run()
}
