//! SLSA build provenance v1 (<https://slsa.dev/spec/v1.1/provenance>): what was built, from what,
//! by whom.

use std::collections::BTreeMap;

use casemate_spec::{Sha256, Sha384};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::intoto::{Predicate, Resource};

/// How Casemate builds: steps of the repository's `casemate.toml`, on a tree written from verified
/// git objects, every file read observed.
pub const BUILD_TYPE: &str = "https://casemate.dev/build/v1";

/// The builder: an enclave whose measurement stands in [`InternalParameters`].
pub const BUILDER_ID: &str = "https://casemate.dev/builder/v1";

/// The predicate of build provenance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Provenance {
    /// What was asked for and what went in.
    pub build_definition: BuildDefinition,
    /// Who built it and when.
    pub run_details: RunDetails,
}

impl Predicate for Provenance {
    const TYPE: &'static str = "https://slsa.dev/provenance/v1";
}

/// What was asked for and what went in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BuildDefinition {
    /// Always [`BUILD_TYPE`].
    pub build_type: String,
    /// What the person who built chose.
    pub external_parameters: ExternalParameters,
    /// What the builder chose.
    pub internal_parameters: InternalParameters,
    /// Everything the build read: the source first ([`source_dependency`]), then each file or
    /// package with its digest, its class ([`crate::intoto::CLASS`]) and, where known, its purl.
    pub resolved_dependencies: Vec<Resource>,
}

/// What the person who built chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExternalParameters {
    /// The repository's name.
    pub repository: String,
    /// The commit, in hexadecimal.
    pub commit: String,
    /// The `casemate.toml` that says how to build.
    pub config: Config,
}

/// The `casemate.toml` that says how to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its path in the repository.
    pub path: String,
    /// Its digest.
    pub sha256: Sha256,
    /// Its text: how the program is meant to run, for whoever has only the bundle.
    pub content: String,
}

/// What the builder chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct InternalParameters {
    /// Digest of the trust file under which it built.
    pub trust: Sha256,
    /// Workload measurement of the builder's enclave.
    pub measurement: Sha384,
    /// SHA-256 of the canonical JSON of the builder's evidence record.
    pub evidence: Sha256,
    /// How reads were observed, such as `fanotify`.
    pub observer: String,
    /// The environment that build steps saw.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
}

/// Who built it and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RunDetails {
    /// Who built it.
    pub builder: Builder,
    /// When.
    pub metadata: Metadata,
    /// What came out beside the artifacts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub byproducts: Vec<Resource>,
}

/// Who built it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Builder {
    /// Always [`BUILDER_ID`].
    pub id: String,
    /// Versions of its parts by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub version: BTreeMap<String, String>,
}

/// When it was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Metadata {
    /// Names this build among others.
    pub invocation_id: String,
    /// Start.
    pub started_on: Timestamp,
    /// End.
    pub finished_on: Timestamp,
}

/// The first of the resolved dependencies: the source, by commit and tree.
pub fn source_dependency(repository: &str, commit: &str, tree: &str) -> Resource {
    Resource::at(format!("git+{repository}"))
        .with_digest("gitCommit", commit)
        .with_digest("gitTree", tree)
}
