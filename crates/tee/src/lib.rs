//! Evidence and sealing keys from the TEE device in front of it, and the simulated TEE behind the
//! same interface.
//!
//! - [`tsm`]: asks the Linux report interface (configfs-tsm) for evidence
//! - [`sealing`]: keys that only this workload on this platform can derive, and sealed bytes
//! - [`device`]: which TEE devices this machine has, for `doctor`
//! - [`sim`]: the simulated TEE: its platform keys, and the server that plays the device
//!
//! Nothing here falls back: without a device there is no evidence, and the simulator refuses to
//! start where a real TEE is. The crate needs no `unsafe` code.

#![forbid(unsafe_code)]

pub mod device;
pub mod error;
pub mod sealing;
pub mod sim;
pub mod tsm;

pub use device::{TeeDevice, detect};
pub use error::TeeError;
