//! The verdicts: which checks are made, in which order.

use casemate_spec::Sha256;
use casemate_spec::trust::TrustFile;
use casemate_statement::PublicKey;
use casemate_statement::bundle::{Artifact, ReleaseBundle, TrustRef};
use casemate_statement::intoto::{Resource, Statement};
use casemate_statement::vsa::{self, VerificationResult, Vsa};
use serde::Serialize;

use crate::chain::{Chain, ReleaseLink};
use crate::check::codes::{
    ARTIFACT, ARTIFACT_SIGNED, RELEASE_CONTENT, RELEASE_INPUTS, RELEASE_MISSING, RELEASE_SIGNED,
    RELEASE_TRUST, TRUST_KEY, TRUST_KNOWN, TRUST_NAMED, TRUST_SIGNED,
};
use crate::check::{Check, Checks, VerifyError};
use crate::log::{Ledger, Step};
use crate::trust::check_signatures;
use crate::{approvals, build, source};

/// The file that is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactDigest {
    /// Its name, for people; a renamed file is still the same file.
    pub name: String,
    /// SHA-256 of its content.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
}

/// What was found, with every check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether every check passed.
    pub accepted: bool,
    /// Whether the builder's TEE is simulated, and hides nothing from whoever owns that machine.
    /// None if the builder's evidence was refused.
    pub simulated: Option<bool>,
    /// Every check that was made, in the order they decide.
    pub checks: Vec<Check>,
    /// The chain, as far as its signatures verified.
    pub chain: Chain,
}

impl Verdict {
    /// The chain, or the first check that failed.
    ///
    /// # Errors
    /// [`VerifyError`] with that check.
    pub fn result(&self) -> Result<&Chain, VerifyError> {
        match self.checks.iter().find(|c| !c.passed) {
            None if self.accepted => Ok(&self.chain),
            None => Err(VerifyError {
                check: "verdict",
                code: TRUST_KNOWN,
                expected: "checks".into(),
                found: "none were made".into(),
            }),
            Some(check) => Err(VerifyError {
                check: check.name,
                code: check.code,
                expected: check.expected.clone(),
                found: check.found.clone(),
            }),
        }
    }
}

/// Verifies that `artifact` belongs to the signed release in `bundle`, and the release with it.
/// `now` is in Unix seconds.
pub fn verify_release(
    artifact: &ArtifactDigest,
    bundle: &ReleaseBundle,
    trust: &TrustFile,
    now: i64,
) -> Verdict {
    Verifier::new().verify_release(artifact, bundle, trust, now)
}

/// Verifies a signed release as a whole.
pub fn verify_bundle(bundle: &ReleaseBundle, trust: &TrustFile, now: i64) -> Verdict {
    Verifier::new().verify_bundle(bundle, trust, now)
}

/// Verifies everything that must hold before a release is signed: source, build, builder, ledger
/// and approvals.
pub fn verify_for_signing(bundle: &ReleaseBundle, trust: &TrustFile, now: i64) -> Verdict {
    Verifier::new().verify_for_signing(bundle, trust, now)
}

/// Verifies what must hold before anybody approves: source, build, builder and their ledger
/// entries.
pub fn verify_built(bundle: &ReleaseBundle, trust: &TrustFile, now: i64) -> Verdict {
    Verifier::new().verify_built(bundle, trust, now)
}

/// The same verdicts for whoever makes many: it remembers the certificate chains of TEEs that it
/// has verified, and nothing else.
#[derive(Debug, Default)]
pub struct Verifier {
    evidence: casemate_evidence::Verifier,
}

impl Verifier {
    /// A verifier that remembers nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`verify_release`].
    pub fn verify_release(
        &self,
        artifact: &ArtifactDigest,
        bundle: &ReleaseBundle,
        trust: &TrustFile,
        now: i64,
    ) -> Verdict {
        let mut verification = Verification::new(bundle, trust);
        verification.artifact(artifact);
        verification.built(&self.evidence, now);
        verification.approved();
        verification.released();
        verification.finish()
    }

    /// As [`verify_bundle`].
    pub fn verify_bundle(&self, bundle: &ReleaseBundle, trust: &TrustFile, now: i64) -> Verdict {
        let mut verification = Verification::new(bundle, trust);
        verification.built(&self.evidence, now);
        verification.approved();
        verification.released();
        verification.finish()
    }

    /// As [`verify_for_signing`].
    pub fn verify_for_signing(
        &self,
        bundle: &ReleaseBundle,
        trust: &TrustFile,
        now: i64,
    ) -> Verdict {
        let mut verification = Verification::new(bundle, trust);
        verification.built(&self.evidence, now);
        verification.approved();
        verification.finish()
    }

    /// As [`verify_built`].
    pub fn verify_built(&self, bundle: &ReleaseBundle, trust: &TrustFile, now: i64) -> Verdict {
        let mut verification = Verification::new(bundle, trust);
        verification.built(&self.evidence, now);
        verification.finish()
    }
}

/// A verification under way.
struct Verification<'a> {
    bundle: &'a ReleaseBundle,
    trust: &'a TrustFile,
    checks: Checks,
    chain: Chain,
    ledger: Ledger,
    simulated: Option<bool>,
    /// Digest of the trust file; without one nothing is known.
    digest: Option<Sha256>,
}

impl<'a> Verification<'a> {
    fn new(bundle: &'a ReleaseBundle, trust: &'a TrustFile) -> Self {
        let mut checks = Checks::default();
        let ledger = Ledger::new(&trust.signed.ledger, &mut checks);
        let verified_under = TrustRef::of(&trust.signed).ok();
        let digest = verified_under.as_ref().map(|t| t.digest);
        let chain = Chain {
            artifacts: bundle.artifacts.clone(),
            built_under: Some(bundle.trust.clone()),
            verified_under,
            threshold: trust.signed.thresholds.release,
            ..Chain::default()
        };
        let mut this = Self { bundle, trust, checks, chain, ledger, simulated: None, digest };
        this.trust_file();
        this
    }

    /// Whether the trust file is whole and knows the one the bundle was made under.
    fn trust_file(&mut self) {
        let (trust, named) = (&self.trust.signed, &self.bundle.trust);
        let signed = check_signatures(self.trust);
        self.checks.check(
            "trust file signatures",
            TRUST_SIGNED,
            signed.is_ok(),
            "signed by its approvers, or version 1",
            signed.err().map_or_else(|| format!("version {}", trust.version), |e| e.to_string()),
        );
        let own = self.digest.map_or_else(|| "without digest".into(), |d| d.to_string());
        let version = self.version_of(&named.digest);
        self.checks.check(
            "trust file",
            TRUST_KNOWN,
            version.is_some(),
            format!("trust file {} (version {}) or one before it", own, trust.version),
            format!("made under {} (version {})", named.digest, named.version),
        );
        let root = self.chain.verified_under.as_ref().map(|t| t.root);
        self.checks.check(
            "trust file name",
            TRUST_NAMED,
            root == Some(named.root) && version == Some(named.version),
            format!(
                "version {} of {}",
                version.map_or_else(|| "none".into(), |v| v.to_string()),
                root.map_or_else(|| "none".into(), |r| r.to_string())
            ),
            format!("version {} of {}", named.version, named.root),
        );
    }

    /// Which version of the trust file has this digest.
    fn version_of(&self, digest: &Sha256) -> Option<u64> {
        let trust = &self.trust.signed;
        if self.digest == Some(*digest) {
            return Some(trust.version);
        }
        let at = trust.ancestors.iter().position(|d| d == digest)?;
        Some(at as u64 + 1)
    }

    /// Whether the file is one of the release.
    fn artifact(&mut self, asked: &ArtifactDigest) {
        let same = |a: &&Artifact| a.sha256 == asked.sha256 && a.size == asked.size;
        let mut listed: Vec<&Artifact> = self.bundle.artifacts.iter().filter(same).collect();
        listed.sort_by_key(|a| a.name != asked.name);
        let found = format!("{} with sha256 {}, {} bytes", asked.name, asked.sha256, asked.size);
        let expected = match (listed.first(), self.bundle.artifact(&asked.name)) {
            (Some(artifact), _) => format!("{} of the release", artifact.name),
            (None, Some(a)) => format!("{} with sha256 {}, {} bytes", a.name, a.sha256, a.size),
            (None, None) => {
                format!("one of {} artifacts of the release", self.bundle.artifacts.len())
            }
        };
        self.checks.check("artifact", ARTIFACT, !listed.is_empty(), expected, found);
        self.chain.artifact = listed.first().map(|a| (*a).clone());
    }

    /// Builder, source, provenance.
    fn built(&mut self, evidence: &casemate_evidence::Verifier, now: i64) {
        let (bundle, checks) = (self.bundle, &mut self.checks);
        let trust = &self.trust.signed;
        let Some(builder) = build::check_builder(bundle, trust, evidence, now, checks) else {
            return;
        };
        self.simulated = builder.claims.as_ref().map(|c| c.simulated);
        let trust = &bundle.trust.digest;
        let source = source::check(bundle, &builder.key, trust, &mut self.ledger, checks);
        let ledger = &mut self.ledger;
        let provenance = build::check_provenance(bundle, &builder, source.as_ref(), ledger, checks);
        self.chain.source = source.as_ref().map(source::link);
        if let (Some(provenance), Ok(envelope)) = (&provenance, bundle.provenance.envelope()) {
            self.chain.build = Some(build::link(&builder, provenance, envelope.digest()));
        }
    }

    fn approved(&mut self) {
        let (bundle, trust) = (self.bundle, &self.trust.signed);
        self.chain.approvals = approvals::check(bundle, trust, &mut self.ledger, &mut self.checks);
    }

    /// The signer's verdict, and its signature of each artifact.
    fn released(&mut self) {
        let (bundle, checks) = (self.bundle, &mut self.checks);
        let Some(release) = &bundle.release else {
            checks.check("release", RELEASE_MISSING, false, "a signed release", "no signature");
            return;
        };
        let key = PublicKey::from_spki_base64(&self.trust.signed.signer.key);
        let described = |key: &PublicKey| format!("key {}", key.keyid());
        let expected = "a release key in the trust file";
        let Some(key) = checks.result("release key", TRUST_KEY, expected, key, described) else {
            return;
        };
        let by = format!("signed by the release key {}", key.keyid());
        let parsed = release.verify_dsse(&key).and_then(Statement::<Vsa>::parse);
        let signed = |_: &_| by.clone();
        let statement = checks.result("release signature", RELEASE_SIGNED, &by, parsed, signed);
        let record = release.record(&key);
        self.ledger.check(Step::Release, "release".into(), &release.entry, record, checks);
        for (artifact, signature) in bundle.artifacts.iter().zip(&bundle.signatures) {
            let result = signature.bundle.verify_message(&key, &artifact.sha256);
            let named = signature.artifact == artifact.name;
            let expected = format!("{} {by}", artifact.name);
            let found = |(): &()| expected.clone();
            checks.result("artifact signature", ARTIFACT_SIGNED, &expected, result, found);
            if !named {
                let found = &signature.artifact;
                checks.check("artifact signature", ARTIFACT_SIGNED, false, &artifact.name, found);
            }
            let what = format!("signature of {}", artifact.name);
            let (entry, record) = (&signature.bundle.entry, signature.bundle.record(&key));
            self.ledger.check(Step::Release, what, entry, record, checks);
        }
        let (expected, found) = (bundle.artifacts.len(), bundle.signatures.len());
        checks.same("artifact signatures", ARTIFACT_SIGNED, &expected, &found);
        if let (Some(statement), Ok(envelope)) = (statement, release.envelope()) {
            self.release_says(&statement);
            let (key, time) = (key.keyid(), statement.predicate.time_verified);
            let statement = envelope.digest();
            self.chain.release = Some(ReleaseLink { key, time, statement });
        }
    }

    /// Whether the signer's verdict is about this very bundle.
    fn release_says(&mut self, statement: &Statement<Vsa>) {
        let (bundle, checks) = (self.bundle, &mut self.checks);
        let vsa = &statement.predicate;
        let subject: Vec<Resource> = bundle.artifacts.iter().map(Resource::from).collect();
        let same = statement.subject == subject;
        checks.check(
            "release artifacts",
            RELEASE_CONTENT,
            same,
            format!("a verdict about {} artifacts of the bundle", subject.len()),
            if same { "these artifacts" } else { "other artifacts" },
        );
        let says =
            (vsa.verifier.id.as_str(), vsa.verification_result, vsa.verified_levels.as_slice());
        let levels = [vsa::RELEASE_LEVEL.to_owned()];
        let wanted = (vsa::RELEASE_VERIFIER, VerificationResult::Passed, levels.as_slice());
        checks.check(
            "release verdict",
            RELEASE_CONTENT,
            says == wanted,
            format!("{wanted:?}"),
            format!("{says:?}"),
        );
        let repository = self.chain.source.as_ref().map(|s| format!("casemate:{}", s.repository));
        checks.check(
            "release resource",
            RELEASE_CONTENT,
            repository.as_ref() == Some(&vsa.resource_uri),
            repository.unwrap_or_else(|| "a verified source".into()),
            &vsa.resource_uri,
        );
        // The signer acts under its own trust file: the bundle's, or a later one that this
        // verifier's file descends from.
        let digest = vsa.policy.sha256().filter(|d| vsa.policy == vsa::policy(d));
        let signed_under = digest.and_then(|d| self.version_of(&d));
        let built_under = self.version_of(&bundle.trust.digest);
        let checks = &mut self.checks;
        checks.check(
            "release trust file",
            RELEASE_TRUST,
            signed_under.is_some() && built_under <= signed_under,
            "a trust file of this line, not older than the build's",
            digest.map_or_else(|| "no digest".into(), |d| d.to_string()),
        );
        let inputs = bundle.inputs();
        let described = |inputs: &Vec<Resource>| format!("{} statements", inputs.len());
        let expected = "statements to verify";
        if let Some(inputs) =
            checks.result("bundle inputs", RELEASE_INPUTS, expected, inputs, described)
        {
            let same = inputs == vsa.input_attestations;
            checks.check(
                "release inputs",
                RELEASE_INPUTS,
                same,
                format!("a verdict from the {} statements of the bundle", inputs.len()),
                if same { "these statements" } else { "other statements" },
            );
        }
    }

    fn finish(mut self) -> Verdict {
        self.ledger.check_order(&mut self.checks);
        self.chain.ledger = self.ledger.into_link();
        Verdict {
            accepted: self.checks.all_passed(),
            simulated: self.simulated,
            checks: self.checks.into_vec(),
            chain: self.chain,
        }
    }
}
