//! The starting half of an enclave: outside, untrusted.
//!
//! It finds out which files a program needs ([`plan`]), launches the agent from the image inside
//! this very binary, hands it the plan, the standard streams and the listening sockets, stands in
//! for the hardware where the TEE is simulated, and carries bytes between the agent and the
//! outside. It decides nothing that matters: the agent measures what it really got, and whoever
//! verifies the evidence sees it.
//!
//! ```no_run
//! # fn main() -> Result<(), casemate_enclave::EnclaveError> {
//! use casemate_enclave::{Program, StartOptions, Tee, start};
//! # let platform: std::sync::Arc<casemate_tee::sim::Platform> = todo!();
//! let program = Program::new(casemate_spec::spec::Spec::minimal(), ["ls", "/"]);
//! let running = start(StartOptions::new(program, Tee::Simulated(platform)))?;
//! let exit = running.wait()?;
//! # Ok(()) }
//! ```

pub mod error;
pub mod options;
pub mod plan;
pub mod probe;

mod dial;
mod idmap;
mod launch;
mod measure;
mod running;
mod terminal;

pub use casemate_enclave_protocol::message::Exit;
pub use casemate_enclave_protocol::{EvidenceRequest, Refusal};
pub use error::EnclaveError;
pub use launch::{prove, start};
pub use measure::measure;
pub use options::{Program, Relay, StartOptions, StreamSource, Tee};
pub use plan::{Planned, plan};
pub use probe::{Finding, probe};
pub use running::{Running, Signaller, end_like};
