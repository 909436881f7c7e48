//! What a workload is and whom an installation trusts: the types, their parsers and their digests.
//!
//! Everything here is pure: bytes in, a valid value or an exact reason out. A value of one of
//! these types that exists is valid; nothing downstream checks it a second time.
//!
//! - [`spec`]: `casemate.toml`, what a program needs to run in an enclave and to be built in one
//! - [`trust`]: the trust file, whose keys, thresholds and measurements an installation accepts
//! - [`workload`]: the workload measurement, one SHA-384 over spec, root, agent and production flag
//! - [`binding`]: how a key, a nonce and a measurement enter a TEE's report data
//! - [`canonical`]: RFC 8785 canonical JSON, the bytes that are hashed and signed
//! - [`error`]: stable refusal codes and the exit status that goes with each

#![forbid(unsafe_code)]

pub mod binding;
pub mod canonical;
pub mod digest;
pub mod error;
pub mod spec;
pub mod trust;
pub mod workload;

pub use digest::{Sha256, Sha384};
pub use error::{Coded, Kind};
