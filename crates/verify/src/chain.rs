//! The chain from artifact to people, as a verdict shows it.

use std::collections::BTreeMap;

use casemate_spec::trust::TeeKind;
use casemate_spec::{Sha256, Sha384};
use casemate_statement::bundle::{Artifact, TrustRef};
use casemate_statement::slsa::Config;
use jiff::Timestamp;
use serde::Serialize;

/// Everything from artifact to people. What is in it stood in statements whose signatures verified;
/// whether all of it holds together is what the checks say, so believe it only if the verdict is
/// an acceptance.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Chain {
    /// The artifact that was asked about, as the release lists it.
    pub artifact: Option<Artifact>,
    /// Everything that the release holds.
    pub artifacts: Vec<Artifact>,
    /// The trust file under which it was built.
    pub built_under: Option<TrustRef>,
    /// The trust file under which it was verified.
    pub verified_under: Option<TrustRef>,
    /// The source.
    pub source: Option<SourceLink>,
    /// The build.
    pub build: Option<BuildLink>,
    /// Who approved, in the order of the bundle.
    pub approvals: Vec<ApprovalLink>,
    /// How many people had to.
    pub threshold: usize,
    /// The release.
    pub release: Option<ReleaseLink>,
    /// Where in the ledger it all is.
    pub ledger: LedgerLink,
}

/// The source of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceLink {
    /// The repository's name.
    pub repository: String,
    /// The commit.
    pub commit: String,
    /// Its tree.
    pub tree: String,
    /// How many commits were verified.
    pub commits: u64,
    /// The commit that was taken as it is, with all before it.
    pub since: Option<String>,
    /// How many files the tree has.
    pub files: usize,
    /// Who signed the commits, by number of commits.
    pub signers: Vec<SignerLink>,
}

/// A developer who signed commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignerLink {
    /// The principal in the trust file.
    pub name: String,
    /// Fingerprint of the key.
    pub fingerprint: String,
    /// How many of the verified commits.
    pub commits: usize,
}

/// The build of a release.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BuildLink {
    /// Id of the key that was made in the builder's enclave.
    pub key: String,
    /// Workload measurement of the builder, by its evidence.
    pub measurement: Option<Sha384>,
    /// The TEE it ran in, by its evidence.
    pub tee: Option<TeeKind>,
    /// Checks of the evidence.
    pub evidence: Vec<EvidenceCheck>,
    /// Names this build among others.
    pub invocation: String,
    /// Start.
    pub started: Timestamp,
    /// End.
    pub finished: Timestamp,
    /// How reads were observed.
    pub observer: String,
    /// The `casemate.toml` that said how to build.
    pub config: Config,
    /// How many inputs of each class were read.
    pub inputs: BTreeMap<String, usize>,
    /// Digest of the signed provenance.
    pub provenance: Sha256,
}

/// One check of the builder's evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EvidenceCheck {
    /// Its name.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// The stable code of its failure.
    pub code: String,
    /// What passes.
    pub expected: String,
    /// What was there.
    pub found: String,
}

/// One person's approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApprovalLink {
    /// The approver's name in the trust file.
    pub name: String,
    /// Fingerprint of the key.
    pub fingerprint: String,
    /// Whether the key is in a security key.
    pub hardware: bool,
}

/// The signer's verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReleaseLink {
    /// Id of the release key.
    pub key: String,
    /// When the signer verified.
    pub time: Timestamp,
    /// Digest of the signed verdict.
    pub statement: Sha256,
}

/// The ledger's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct LedgerLink {
    /// The log's origin.
    pub origin: String,
    /// Every verified entry.
    pub entries: Vec<LedgerPosition>,
}

/// A verified entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerPosition {
    /// What it is the entry of.
    pub what: String,
    /// Its position.
    pub index: u64,
    /// The size of the log when the proof was made.
    pub size: u64,
}
