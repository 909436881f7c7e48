//! The entry of the helper processes that a build starts from the same program.
//!
//! They are started again, not forked, because what they do to namespaces and privileges is only
//! safe in a process with a single thread and nothing inherited.

use std::process::ExitCode;

/// Role of the observer, process 1 of the build's pid namespace.
pub const WARDEN: &str = "warden";

/// Role of process 1 of a single step's pid namespace.
pub const STAGE: &str = "stage";

/// Runs the helper `role`; to be called first thing by the program that [`super::Helper`] names.
/// Both roles speak over their standard streams with the process that started them.
pub fn main(role: &str) -> ExitCode {
    match role {
        WARDEN => super::warden::main(),
        STAGE => super::stage::main(),
        _ => ExitCode::from(2),
    }
}
