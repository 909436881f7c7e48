//! The starting half of an enclave: outside, untrusted.
//!
//! It finds out which files a program needs ([`plan`]), launches the agent from the image inside
//! this very binary, hands it the plan, the standard streams and the listening sockets, stands in
//! for the hardware where the TEE is simulated, and carries bytes between the agent and the
//! outside. It decides nothing that matters: the agent measures what it really got, and whoever
//! verifies the evidence sees it.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use casemate_enclave::{EnclaveError, Exit, Program, StartOptions, Tee, start};
//! use casemate_spec::spec::Spec;
//! use casemate_tee::sim::Platform;
//!
//! fn list(platform: Arc<Platform>) -> Result<Exit, EnclaveError> {
//!     let program = Program::new(Spec::minimal(), ["ls", "/"]);
//!     start(StartOptions::new(program, Tee::Simulated(platform)))?.wait()
//! }
//! ```

#![forbid(unsafe_code)]

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
