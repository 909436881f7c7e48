//! TEE evidence of any vendor into claims, or the exact reason why not.
//!
//! Evidence travels as a [`Record`]: the vendor's own bytes, untouched, beside the certificates
//! that came with them and the four inputs of the workload measurement. [`appraise`] compares a
//! record with what the verifier itself knows ([`Expect`]) and whom it trusts
//! (`AcceptedTee` of the trust file) at a given time, and answers with every check by name.
//! Nothing here opens a socket, reads a clock or panics on any input.
//!
//! - [`record`]: the RATS CMW collection that carries evidence
//! - [`appraise`](mod@appraise): the verdict; [`Verifier`] keeps certificate chains it has verified
//! - [`snp`]: AMD SEV-SNP reports, certificate tables and chains, usable on their own
//! - [`inspect`](mod@inspect): what evidence says, field by field, believed or not
//!
//! A simulated TEE signs the same format under a root of its own. It takes the same way through
//! this crate; only the root in the trust file, and the name of the TEE in the claims, differ.

#![forbid(unsafe_code)]

pub mod appraise;
pub mod error;
pub mod inspect;
pub mod record;
pub mod snp;

pub use appraise::{Appraisal, Check, Claims, Expect, Platform, Verifier, appraise};
pub use error::EvidenceError;
pub use inspect::inspect;
pub use record::Record;
