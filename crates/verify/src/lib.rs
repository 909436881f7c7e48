//! Release bundle, trust file and artifact in; verdict with the whole chain out.
//!
//! Nothing here needs a service, a secret, a clock or the network: whoever holds the three files
//! reaches the same verdict. Each check has a name and a stable code and says what was expected and
//! what was found, whether it passed or not. There is no switch that leaves one out.
//!
//! - [`verify_release`]: an artifact against a signed release; what `casemate verify` shows
//! - [`verify_bundle`]: a signed release as a whole; what the broker asks before a grant
//! - [`verify_for_signing`]: everything but the signer's own words; what the signer asks
//! - [`verify_built`]: source, build and builder; what to look at before approving
//! - [`Verifier`]: the same for whoever verifies many
//! - [`trust`]: whether a trust file is the proper successor of another

#![forbid(unsafe_code)]

mod approvals;
mod build;
mod chain;
mod check;
mod log;
mod release;
mod source;
pub mod trust;

pub use chain::{
    ApprovalLink, BuildLink, Chain, EvidenceCheck, LedgerLink, LedgerPosition, ReleaseLink,
    SignerLink, SourceLink,
};
pub use check::{Check, VerifyError};
pub use release::{
    ArtifactDigest, Verdict, Verifier, verify_built, verify_bundle, verify_for_signing,
    verify_release,
};
