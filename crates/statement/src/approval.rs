//! What approvers sign: these artifacts, with this provenance, from this source, under this trust
//! file. The same bytes for every approver, so that anybody can make them and compare.

use casemate_spec::Sha256;
use serde::{Deserialize, Serialize};

use crate::bundle::Artifact;
use crate::intoto::{Predicate, Resource, Statement};

/// SSHSIG namespace of approvals.
pub const NAMESPACE: &str = "casemate-approval";

/// The predicate of an approval. The subjects are the artifacts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The signed provenance ([`crate::dsse::Envelope::digest`]).
    pub provenance: Sha256,
    /// The signed source verdict in detail.
    pub source: Sha256,
    /// The trust file whose threshold counts.
    pub trust: Sha256,
}

impl Predicate for Approval {
    const TYPE: &'static str = "https://casemate.dev/approval/v1";
}

/// The statement that is signed.
pub fn statement(artifacts: &[Artifact], approval: Approval) -> Statement<Approval> {
    Statement::new(artifacts.iter().map(Resource::from).collect(), approval)
}
