//! The helper role of a build as a program of its own: for tests, benches and users of the library
//! whose own program cannot call [`casemate_provenance::build::helper::main`].

use std::process::ExitCode;

fn main() -> ExitCode {
    let role = std::env::args().nth(1).unwrap_or_default();
    casemate_provenance::build::helper::main(&role)
}
