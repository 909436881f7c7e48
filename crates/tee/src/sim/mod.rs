//! The simulated TEE: SEV-SNP in format and protocol, under an installation's own root.
//!
//! [`Platform`] is the simulated machine: a root of its own, one chip with its endorsement key, and
//! a secret from which sealing keys come. [`Simulator`] plays the device of one enclave: it knows
//! which agent was launched, serves the report interface as a directory tree, and signs. It runs
//! outside of the enclave, where hardware would be. Whoever owns the machine can read its keys:
//! **it proves the workflow and hides nothing from that person.**

mod platform;
mod server;
mod tree;

use std::path::Path;

pub use platform::Platform;
pub use server::{Launch, SimHandle, Simulator};

use crate::device;
use crate::error::TeeError;

/// Refuses if this machine has a real TEE: nothing is simulated beside one.
///
/// # Errors
/// [`TeeError::RealTee`] with the device found.
pub fn refuse_beside_real_tee() -> Result<(), TeeError> {
    device::refuse_any(Path::new("/"))
}
