//! The source verdict in detail: which commits, which files, who signed.

use casemate_spec::Sha256;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::StatementError;
use crate::dsse::Envelope;
use crate::intoto::{Predicate, Resource, Statement};
use crate::vsa::{self, Vsa};

/// The predicate of a source verdict. The subject is the commit ([`SourceVerdict::subject`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceVerdict {
    /// The repository's name.
    pub repository: String,
    /// The commit, in hexadecimal.
    pub commit: String,
    /// Its tree, in hexadecimal.
    pub tree: String,
    /// Digest of the trust file whose developers were allowed.
    pub trust: Sha256,
    /// How much of the history was verified.
    pub history: History,
    /// Every verified commit, newest first.
    pub commits: Vec<Commit>,
    /// Every file of the tree, by path.
    pub files: Vec<File>,
}

impl Predicate for SourceVerdict {
    const TYPE: &'static str = "https://casemate.dev/source/v1";
}

/// How much of the history was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// How many commits were verified.
    pub commits: u64,
    /// The commit that is taken as it is, with all before it; none if the whole history was
    /// verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// One verified commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// Its id, in hexadecimal.
    pub id: String,
    /// The principal of the trust file whose key signed it.
    pub signer: String,
    /// Fingerprint of that key.
    pub fingerprint: String,
    /// The committer's time.
    pub time: Timestamp,
}

/// One file of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its path in the repository.
    pub path: String,
    /// Its git mode in octal, such as `100644`.
    pub mode: String,
    /// Its blob, in hexadecimal.
    pub blob: String,
    /// SHA-256 of its content.
    pub sha256: Sha256,
    /// The last commit that changed it; the trusted commit if that was before it.
    pub commit: String,
    /// Who signed that commit; none if it was before the trusted commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

impl SourceVerdict {
    /// What the verdict is about: the commit and its tree.
    pub fn subject(&self) -> Resource {
        Resource { name: Some(self.repository.clone()), ..Resource::default() }
            .with_digest("gitCommit", &self.commit)
            .with_digest("gitTree", &self.tree)
    }

    /// The statement of this verdict.
    pub fn statement(self) -> Statement<Self> {
        Statement::new(vec![self.subject()], self)
    }

    /// The summary of this verdict for SLSA tools. `detail` is the signed [`Self::statement`].
    pub fn summary(&self, detail: &Envelope, time_verified: Timestamp) -> Statement<Vsa> {
        Statement::new(
            vec![self.subject()],
            Vsa {
                verifier: vsa::Verifier { id: vsa::SOURCE_VERIFIER.into() },
                time_verified,
                resource_uri: format!("git+{}", self.repository),
                policy: vsa::policy(&self.trust),
                input_attestations: vec![vsa::input(Self::TYPE, &detail.digest())],
                verification_result: vsa::VerificationResult::Passed,
                verified_levels: vec![vsa::SOURCE_LEVEL.into()],
            },
        )
    }

    /// Refuses a verdict that contradicts itself.
    ///
    /// # Errors
    /// [`StatementError::Bundle`] with the field at fault.
    pub fn check(&self) -> Result<(), StatementError> {
        let bad = |field, problem: String| Err(StatementError::Bundle { field, problem });
        if self.commits.len() as u64 != self.history.commits {
            return bad(
                "source.history",
                format!("{} commits, {} listed", self.history.commits, self.commits.len()),
            );
        }
        match (self.commits.first(), &self.history.since) {
            (Some(newest), _) if newest.id == self.commit => {}
            (None, Some(since)) if *since == self.commit => {}
            _ => return bad("source.commits", format!("do not begin with {}", self.commit)),
        }
        if let Some(pair) = self.files.windows(2).find(|p| p[0].path >= p[1].path) {
            return bad("source.files", format!("{:?} is out of order or repeated", pair[1].path));
        }
        Ok(())
    }
}
