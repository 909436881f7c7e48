//! SLSA verification summaries v1 (<https://slsa.dev/spec/v1.1/verification_summary>): who
//! verified what, under which policy, from which attestations, with which result.

use casemate_spec::Sha256;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::intoto::{Predicate, Resource};

/// The verifier of sources: the builder's enclave.
pub const SOURCE_VERIFIER: &str = "https://casemate.dev/source-verifier/v1";

/// The verifier of releases: the signer's enclave.
pub const RELEASE_VERIFIER: &str = "https://casemate.dev/release-verifier/v1";

/// The URI of the policy: a trust file, named by its digest.
pub const POLICY: &str = "https://casemate.dev/trust/v1";

/// What a source verdict attests: every commit since the trusted one is signed by a developer who
/// was allowed to at that time. It claims no SLSA source level.
pub const SOURCE_LEVEL: &str = "CASEMATE_SOURCE_SIGNED";

/// What a release verdict attests: attested build from verified source, approved by a quorum of
/// people, all of it logged. It claims no SLSA build level.
pub const RELEASE_LEVEL: &str = "CASEMATE_RELEASE_APPROVED";

/// The predicate of a verification summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Vsa {
    /// Who verified.
    pub verifier: Verifier,
    /// When.
    pub time_verified: Timestamp,
    /// What the subjects are: `git+REPOSITORY` for a source, `casemate:REPOSITORY` for a release.
    pub resource_uri: String,
    /// Under which trust file.
    pub policy: Resource,
    /// From which attestations.
    pub input_attestations: Vec<Resource>,
    /// The result; a failed verification makes no statement here.
    pub verification_result: VerificationResult,
    /// What was found to hold.
    pub verified_levels: Vec<String>,
}

impl Predicate for Vsa {
    const TYPE: &'static str = "https://slsa.dev/verification_summary/v1";
}

/// Who verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verifier {
    /// [`SOURCE_VERIFIER`] or [`RELEASE_VERIFIER`].
    pub id: String,
}

/// The result of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum VerificationResult {
    /// It holds.
    Passed,
    /// It does not.
    Failed,
}

/// The policy field for the trust file with this digest.
pub fn policy(trust: &Sha256) -> Resource {
    Resource::at(POLICY).with_digest("sha256", trust)
}

/// An attestation that went into a verification: its predicate type and its digest
/// ([`crate::dsse::Envelope::digest`]).
pub fn input(predicate_type: &str, digest: &Sha256) -> Resource {
    Resource::at(predicate_type).with_digest("sha256", digest)
}
