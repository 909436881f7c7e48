//! Who says what about which bytes: statements, signatures, log entries and the release bundle.
//!
//! Everything here is pure: bytes in, a value or an exact reason out. This crate knows no TEE and
//! no network; whether a signer is to be believed is decided by `casemate-verify`.
//!
//! - [`dsse`]: signed envelopes (DSSE v1)
//! - [`intoto`]: in-toto Statement v1, and the predicates in [`slsa`], [`vsa`], [`source`],
//!   [`approval`] and [`receipt`]
//! - [`sshsig`]: people's signatures, as `ssh-keygen -Y sign` makes them
//! - [`act`]: administrative acts that approvers sign, and [`quorum`]: counting people
//! - [`rekor`]: what a statement or a signature looks like in the log, and its inclusion proof
//! - [`sigstore`]: Sigstore bundles v0.3, one signature with its log entry
//! - [`bundle`]: the release bundle, from source to release in one file
//! - [`key`], [`json`]: public keys and strict JSON

#![forbid(unsafe_code)]

pub mod act;
pub mod approval;
pub mod bundle;
pub mod dsse;
mod error;
pub mod intoto;
pub mod json;
pub mod key;
pub mod quorum;
pub mod receipt;
pub mod rekor;
pub mod sigstore;
pub mod slsa;
pub mod source;
pub mod sshsig;
pub mod vsa;

pub use error::StatementError;
pub use key::{PublicKey, SigningKey};
