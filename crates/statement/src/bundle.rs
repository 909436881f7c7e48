//! The release bundle: one file with everything that leads from signed commits to a release.
//!
//! A build makes it ([`ReleaseBundle::new`]), approvers and the signer complete it in place. It
//! holds nothing that must be believed: `casemate-verify` checks every part against the trust file.

use std::collections::BTreeSet;

use casemate_spec::Sha256;
use casemate_spec::trust::Trust;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::StatementError;
use crate::approval::{self, Approval};
use crate::intoto::{Predicate as _, Resource, SIZE, Statement, check_type};
use crate::json::{self, Base64};
use crate::key::PublicKey;
use crate::rekor::LogEntry;
use crate::sigstore;
use crate::slsa::Provenance;
use crate::source::SourceVerdict;
use crate::sshsig::SshSignature;
use crate::vsa::{self, Vsa};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.casemate.release-bundle.v1+json";

/// The largest bundle that is read, in bytes.
pub const MAX_SIZE: usize = 256 << 20;

/// The most artifacts and the most approvals in a bundle.
pub const MAX_PARTS: usize = 4096;

/// A release, from source to signature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ReleaseBundle {
    /// Always [`MEDIA_TYPE`].
    pub media_type: String,
    /// What is released, sorted by name.
    pub artifacts: Vec<Artifact>,
    /// The trust file under which it was built.
    pub trust: TrustRef,
    /// The verified source.
    pub source: Source,
    /// The build: [`Provenance`], signed by the builder.
    pub provenance: sigstore::Bundle,
    /// The builder.
    pub builder: Builder,
    /// People's approvals.
    pub approvals: Vec<SignedApproval>,
    /// The release verdict: [`Vsa`], signed by the signer. None until it is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<sigstore::Bundle>,
    /// The signer's signature of each artifact, in the order of the artifacts; empty until signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<ArtifactSignature>,
}

/// A released file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Its file name, no path.
    pub name: String,
    /// SHA-256 of its content.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
}

impl From<&Artifact> for Resource {
    fn from(artifact: &Artifact) -> Self {
        Self::named(&artifact.name, &artifact.sha256).with_annotation(SIZE, artifact.size)
    }
}

/// Names a trust file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustRef {
    /// Digest of version 1: the installation.
    pub root: Sha256,
    /// The version.
    pub version: u64,
    /// Digest of that version.
    pub digest: Sha256,
}

impl TrustRef {
    /// The name of this trust file.
    ///
    /// # Errors
    /// [`StatementError::Crypto`] if the version is above 2^53.
    pub fn of(trust: &Trust) -> Result<Self, StatementError> {
        let failed = |_| StatementError::Crypto("trust file has no canonical form");
        Ok(Self {
            root: trust.root_digest().map_err(failed)?,
            version: trust.version,
            digest: trust.digest().map_err(failed)?,
        })
    }
}

/// The verified source: a summary for SLSA tools and the verdict in detail, signed by the builder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// [`Vsa`].
    pub summary: sigstore::Bundle,
    /// [`SourceVerdict`].
    pub detail: sigstore::Bundle,
}

/// The builder: its key and the evidence that the key was made in its enclave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    /// SubjectPublicKeyInfo of the key that signed source verdict and provenance.
    pub key: Base64,
    /// The evidence record (`casemate-evidence`), as JSON.
    pub evidence: serde_json::Value,
}

impl Builder {
    /// Digest of the evidence, as [`crate::slsa::InternalParameters::evidence`] holds it.
    ///
    /// # Errors
    /// [`StatementError::Crypto`] if it holds a number without canonical form.
    pub fn evidence_digest(&self) -> Result<Sha256, StatementError> {
        evidence_digest(&self.evidence)
    }
}

/// SHA-256 of the canonical JSON of an evidence record.
///
/// # Errors
/// [`StatementError::Crypto`] if it holds a number without canonical form.
pub fn evidence_digest(record: &serde_json::Value) -> Result<Sha256, StatementError> {
    Ok(Sha256::of(&json::canonical(record)?))
}

/// One person's approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedApproval {
    /// The bytes that were signed ([`ReleaseBundle::approval_bytes`]).
    pub statement: Base64,
    /// The armored SSH signature, namespace [`approval::NAMESPACE`].
    pub sshsig: String,
    /// Its log entry.
    pub entry: LogEntry,
}

/// The signer's signature of one artifact, usable on its own by Sigstore clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactSignature {
    /// The artifact's name.
    pub artifact: String,
    /// The signature and its log entry.
    pub bundle: sigstore::Bundle,
}

impl ReleaseBundle {
    /// A bundle as the build leaves it: nobody has approved, nothing is signed.
    ///
    /// # Errors
    /// [`StatementError::Bundle`] if the parts can not make a bundle.
    pub fn new(
        mut artifacts: Vec<Artifact>,
        trust: TrustRef,
        source: Source,
        provenance: sigstore::Bundle,
        builder: Builder,
    ) -> Result<Self, StatementError> {
        artifacts.sort();
        let bundle = Self {
            media_type: MEDIA_TYPE.into(),
            artifacts,
            trust,
            source,
            provenance,
            builder,
            approvals: Vec::new(),
            release: None,
            signatures: Vec::new(),
        };
        bundle.check()?;
        Ok(bundle)
    }

    /// Parses a bundle: strict JSON, every part of the right shape. No signature is verified.
    ///
    /// # Errors
    /// [`StatementError`] with the part at fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        let bundle: Self = json::from_slice(bytes, "release bundle", MAX_SIZE)?;
        bundle.check()?;
        Ok(bundle)
    }

    /// The JSON of the bundle as it is kept in `bundle.json`.
    ///
    /// # Errors
    /// Never in practice: a bundle holds text and sizes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StatementError> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|_| StatementError::Crypto("bundle has no json form"))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// SHA-256 of its canonical JSON: how a bundle is named in a grant.
    ///
    /// # Errors
    /// [`StatementError::Crypto`] if a number has no canonical form.
    pub fn digest(&self) -> Result<Sha256, StatementError> {
        Ok(Sha256::of(&json::canonical(self)?))
    }

    /// What an approver of this bundle signs: the canonical JSON of the approval statement.
    ///
    /// # Errors
    /// [`StatementError::Type`] if source or provenance is no envelope.
    pub fn approval_bytes(&self) -> Result<Vec<u8>, StatementError> {
        let approval = Approval {
            provenance: self.provenance.envelope()?.digest(),
            source: self.source.detail.envelope()?.digest(),
            trust: self.trust.digest,
        };
        approval::statement(&self.artifacts, approval).to_bytes()
    }

    /// Adds an approval. Whether its signer is an approver is left to `casemate-verify`.
    ///
    /// # Errors
    /// [`StatementError::Bundle`] if the release is signed already, and what the SSH signature's
    /// verification says.
    pub fn add_approval(
        &mut self,
        signature: &SshSignature,
        entry: LogEntry,
    ) -> Result<(), StatementError> {
        if self.release.is_some() {
            return Err(bad("approvals", "the release is signed already".into()));
        }
        let statement = self.approval_bytes()?;
        signature.verify_deliberate(approval::NAMESPACE, &statement)?;
        let sshsig = signature.to_armored();
        self.approvals.push(SignedApproval { statement: statement.into(), sshsig, entry });
        self.check()
    }

    /// What the release verdict must be made from: the source statements, the provenance and every
    /// approval, in that order.
    ///
    /// # Errors
    /// [`StatementError::Type`] if a part is no envelope, or what the SSH parser says.
    pub fn inputs(&self) -> Result<Vec<Resource>, StatementError> {
        let mut inputs = vec![
            vsa::input(Vsa::TYPE, &self.source.summary.envelope()?.digest()),
            vsa::input(SourceVerdict::TYPE, &self.source.detail.envelope()?.digest()),
            vsa::input(Provenance::TYPE, &self.provenance.envelope()?.digest()),
        ];
        for approval in &self.approvals {
            let digest = SshSignature::parse(&approval.sshsig)?.digest();
            inputs.push(vsa::input(Approval::TYPE, &digest));
        }
        Ok(inputs)
    }

    /// The release verdict over this bundle, for the signer to sign once it has verified it.
    /// `trust` is the digest of the trust file that the signer verified under.
    ///
    /// # Errors
    /// As [`Self::inputs`], and if the provenance is none.
    pub fn release_statement(
        &self,
        trust: &Sha256,
        time_verified: Timestamp,
    ) -> Result<Statement<Vsa>, StatementError> {
        let provenance =
            Statement::<Provenance>::parse(&self.provenance.envelope()?.payload)?.predicate;
        let repository = &provenance.build_definition.external_parameters.repository;
        Ok(Statement::new(
            self.artifacts.iter().map(Resource::from).collect(),
            Vsa {
                verifier: vsa::Verifier { id: vsa::RELEASE_VERIFIER.into() },
                time_verified,
                resource_uri: format!("casemate:{repository}"),
                policy: vsa::policy(trust),
                input_attestations: self.inputs()?,
                verification_result: vsa::VerificationResult::Passed,
                verified_levels: vec![vsa::RELEASE_LEVEL.into()],
            },
        ))
    }

    /// The builder's key.
    ///
    /// # Errors
    /// [`StatementError::PublicKey`].
    pub fn builder_key(&self) -> Result<PublicKey, StatementError> {
        PublicKey::from_spki(&self.builder.key)
    }

    /// The artifact with this name.
    pub fn artifact(&self, name: &str) -> Option<&Artifact> {
        self.artifacts.iter().find(|a| a.name == name)
    }

    fn check(&self) -> Result<(), StatementError> {
        check_type("release bundle media type", MEDIA_TYPE, &self.media_type)?;
        for (field, count) in
            [("artifacts", self.artifacts.len()), ("approvals", self.approvals.len())]
        {
            if count > MAX_PARTS {
                return Err(bad(field, format!("{count}, expected at most {MAX_PARTS}")));
            }
        }
        if self.artifacts.is_empty() {
            return Err(bad("artifacts", "none".into()));
        }
        if let Some(artifact) = self.artifacts.iter().find(|a| !is_file_name(&a.name)) {
            return Err(bad("artifacts", format!("{:?} is no plain file name", artifact.name)));
        }
        if let Some(pair) = self.artifacts.windows(2).find(|p| p[0].name >= p[1].name) {
            return Err(bad(
                "artifacts",
                format!("{:?} is out of order or repeated", pair[1].name),
            ));
        }
        self.builder_key()?;
        let mut seen = BTreeSet::new();
        for approval in &self.approvals {
            let signature = SshSignature::parse(&approval.sshsig)?;
            if signature.to_armored() != approval.sshsig {
                return Err(bad("approvals", "an ssh signature is not armored as usual".into()));
            }
            if !seen.insert(signature.digest()) {
                return Err(bad("approvals", "one signature occurs twice".into()));
            }
        }
        let signed: Vec<&str> = self.signatures.iter().map(|s| s.artifact.as_str()).collect();
        let names: Vec<&str> = self.artifacts.iter().map(|a| a.name.as_str()).collect();
        match &self.release {
            None if !signed.is_empty() => {
                Err(bad("signatures", "without a release verdict".into()))
            }
            Some(_) if signed != names => {
                Err(bad("signatures", format!("for {signed:?}, expected {names:?}")))
            }
            _ => Ok(()),
        }
    }
}

/// Whether `name` is one file name of an ordinary file system, which no terminal misreads.
fn is_file_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c == '\\' || c.is_control())
}

fn bad(field: &'static str, problem: String) -> StatementError {
    StatementError::Bundle { field, problem }
}
