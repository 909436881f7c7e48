//! The signer itself: checks, signs once, logs.
//!
//! ECDSA signatures differ each time they are made. So what is signed for a bundle is sealed
//! before it is logged, and found again by what it says: the same bundle gets the same verdict and
//! the same leaves, also if the signer or its caller was killed in between.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use casemate_service::answer::Answer;
use casemate_service::keyring::Keyring;
use casemate_service::log::LogClient;
use casemate_service::sealed::DataDir;
use casemate_service::{Attester, Clock, ServiceError, pin};
use casemate_spec::Sha256;
use casemate_spec::trust::TrustFile;
use casemate_statement::SigningKey;
use casemate_statement::bundle::{ArtifactSignature, ReleaseBundle};
use casemate_statement::dsse::Envelope;
use casemate_statement::json::Base64;
use casemate_statement::sigstore;
use casemate_tlog::Checkpoint;
use casemate_verify::{verify_bundle, verify_for_signing};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::SignerError;

/// Names the signer's sealing key.
pub(crate) const LABEL: &str = "casemate-signer-v1";

/// Domain of the signature over [`Info`].
pub const INFO_DOMAIN: &[u8] = b"casemate-signer-info-v1\0";

const TRUST: &str = "trust.sealed";

/// A running signer.
pub struct Signer {
    dir: DataDir,
    key: SigningKey,
    trust: TrustFile,
    digest: Sha256,
    log: Arc<dyn LogClient>,
    clock: Arc<dyn Clock>,
    /// Held while something is signed, so that two requests for one bundle sign once.
    signing: Mutex<()>,
}

/// Who the signer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Info {
    /// The asker's nonce.
    pub nonce: String,
    /// Digest of the trust file in force.
    pub trust: Sha256,
    /// Its version.
    pub version: u64,
}

/// What was signed for one bundle, as it is sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    /// The release verdict.
    release: Envelope,
    /// The signature of each artifact, in the bundle's order.
    signatures: Vec<Base64>,
}

impl Signer {
    /// Opens the signer in `data_dir` under `trust`.
    ///
    /// # Errors
    /// If the key does not open, or the trust file is not one to follow.
    pub fn open(
        data_dir: &Path,
        trust: TrustFile,
        attester: &dyn Attester,
        log: Arc<dyn LogClient>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SignerError> {
        let dir = DataDir::open(data_dir, LABEL, attester)?;
        let key = Keyring::open(&dir)?.signing()?;
        check_named(&trust, &key, attester)?;
        follow(&dir, &trust)?;
        let digest = trust.signed.digest().map_err(SignerError::other)?;
        let signing = Mutex::new(());
        Ok(Self { dir, key, trust, digest, log, clock, signing })
    }

    /// Completes a bundle with the release verdict and the artifacts' signatures, if everything
    /// before them verifies. What a bundle already has of them is made anew.
    ///
    /// # Errors
    /// [`SignerError::Refused`] with every failed check; then nothing is signed.
    pub fn sign(&self, mut bundle: ReleaseBundle) -> Result<ReleaseBundle, SignerError> {
        bundle.release = None;
        bundle.signatures.clear();
        let now = self.clock.now();
        let verdict = verify_for_signing(&bundle, &self.trust, now);
        verdict.result().map_err(|first| SignerError::refused(first, &verdict))?;
        self.check_log(&bundle)?;
        let signed = self.signed(&bundle, now)?;
        self.complete(&mut bundle, signed)?;
        let finished = verify_bundle(&bundle, &self.trust, now);
        finished.result().map_err(SignerError::Unsound)?;
        Ok(bundle)
    }

    /// Who this is, signed for the asker's nonce.
    ///
    /// # Errors
    /// If the nonce is not 64 hexadecimal digits.
    pub fn info(&self, nonce: &str) -> Result<Answer, SignerError> {
        if nonce.len() != 64 || !nonce.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(SignerError::Request("nonce: expected 64 hexadecimal digits".into()));
        }
        let version = self.trust.signed.version;
        let info = Info { nonce: nonce.into(), trust: self.digest, version };
        Ok(Answer::sign(INFO_DOMAIN, &self.key, &info)?)
    }

    /// Checks that everything in the bundle is in the log as it is now. Each entry's own proof only
    /// shows that it was in *a* state of the log that the log signed: one that was rolled back or
    /// forked away since would pass.
    fn check_log(&self, bundle: &ReleaseBundle) -> Result<(), SignerError> {
        let vkey = self.trust.signed.ledger.vkey.parse().map_err(SignerError::other)?;
        let entries = [&bundle.source.detail.entry, &bundle.source.summary.entry];
        let entries = entries.into_iter().chain([&bundle.provenance.entry]);
        for entry in entries.chain(bundle.approvals.iter().map(|a| &a.entry)) {
            let note = &entry.inclusion_proof.checkpoint.envelope;
            let checkpoint = Checkpoint::open(note, &vkey).map_err(SignerError::other)?;
            self.log.continues(&checkpoint)?;
        }
        Ok(())
    }

    /// What was signed for this bundle before, or is signed now and sealed.
    fn signed(&self, bundle: &ReleaseBundle, now: i64) -> Result<Signed, SignerError> {
        let _one_at_a_time = self.signing.lock().unwrap_or_else(PoisonError::into_inner);
        let timeless = bundle
            .release_statement(&self.digest, Timestamp::UNIX_EPOCH)
            .and_then(|s| s.to_bytes())
            .map_err(SignerError::other)?;
        let file = self.dir.file(&format!("release-{}.sealed", Sha256::of(&timeless)));
        let content = |e: serde_json::Error| ServiceError::Content {
            file: file.shown(),
            problem: e.to_string(),
        };
        if let Some(sealed) = file.read()? {
            return Ok(serde_json::from_slice(&sealed.bytes).map_err(content)?);
        }
        let time = Timestamp::from_second(now).map_err(|_| ServiceError::Crypto("time"))?;
        let statement = bundle.release_statement(&self.digest, time).map_err(SignerError::other)?;
        let release = statement.sign(&self.key).map_err(SignerError::other)?;
        let sign =
            |a: &casemate_statement::bundle::Artifact| self.key.sign_digest(&a.sha256).map(Base64);
        let signatures = bundle
            .artifacts
            .iter()
            .map(sign)
            .collect::<Result<_, _>>()
            .map_err(SignerError::other)?;
        let signed = Signed { release, signatures };
        file.write(self.trust.signed.version, &serde_json::to_vec(&signed).map_err(content)?)?;
        Ok(signed)
    }

    /// Logs what was signed and puts it into the bundle.
    fn complete(&self, bundle: &mut ReleaseBundle, signed: Signed) -> Result<(), SignerError> {
        let public = self.key.public();
        let entry = self.log.add_dsse(&signed.release, public)?;
        bundle.release = Some(sigstore::Bundle::dsse(public, signed.release, entry));
        for (artifact, signature) in bundle.artifacts.iter().zip(signed.signatures) {
            let entry = self.log.add_signature(&artifact.sha256, &signature, public)?;
            bundle.signatures.push(ArtifactSignature {
                artifact: artifact.name.clone(),
                bundle: sigstore::Bundle::message(public, artifact.sha256, signature.0, entry),
            });
        }
        Ok(())
    }
}

/// Checks that the trust file means this signer.
fn check_named(
    trust: &TrustFile,
    key: &SigningKey,
    attester: &dyn Attester,
) -> Result<(), SignerError> {
    let named = &trust.signed.signer;
    let own = attester.workload()?.measurement().map_err(SignerError::other)?;
    pin::named("signer.key", &named.key, &key.public().spki_base64())?;
    pin::named("signer.measurement", &named.measurement.to_string(), &own.to_string())?;
    Ok(())
}

/// Pins a first trust file, or follows a proper successor.
fn follow(dir: &DataDir, trust: &TrustFile) -> Result<(), SignerError> {
    let file = dir.file(TRUST);
    let content =
        |e: serde_json::Error| ServiceError::Content { file: file.shown(), problem: e.to_string() };
    let pinned: Option<TrustFile> = match file.read()? {
        None => None,
        Some(sealed) => Some(serde_json::from_slice(&sealed.bytes).map_err(content)?),
    };
    if pin::check(pinned.as_ref(), trust)? == pin::Step::Forward {
        file.write(trust.signed.version, &serde_json::to_vec(trust).map_err(content)?)?;
    }
    Ok(())
}
