//! Releases: secrets to a workload that has just proved what it is.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_envelope::Envelope;
use casemate_evidence::{Claims, Expect, Record};
use casemate_service::answer::Answer;
use casemate_spec::binding::{NONCE_SIZE, Purpose};
use casemate_spec::{Sha256, Sha384};
use casemate_statement::act::{Frame, Grantee};
use casemate_statement::receipt::Receipt;
use casemate_statement::rekor::LogEntry;
use serde::{Deserialize, Serialize};

use crate::broker::{Broker, Current, lock, timestamp};
use crate::error::BrokerError;
use crate::frame::{Detail, mismatch};

/// Domain of the signature over a response; the response's canonical JSON follows.
pub const RELEASE_DOMAIN: &[u8] = b"casemate-release-v1\0";

/// HPKE `info` of a secret on its way to a workload; `aad` is the nonce and the secret's name.
pub const SECRET_INFO: &[u8] = b"casemate-secret-v1";

/// The most secrets in one request.
const MAX_NAMES: usize = 64;

/// Answer to `POST /v1/challenge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// 32 random bytes, base64; good once, for a minute.
    pub nonce: String,
}

/// `POST /v1/release`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Evidence record (JSON text), purpose [`Purpose::SecretRelease`], over nonce and key.
    pub evidence: String,
    /// SubjectPublicKeyInfo of the X25519 key to seal to, base64.
    pub envelope_key: String,
    /// The nonce that the evidence answers, base64.
    pub nonce: String,
    /// The secrets that are asked for.
    pub names: Vec<String>,
    /// Spec and root as measured; without them only grants by measurement apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Detail>,
}

/// The signed answer to a release request: [`Released`] under [`RELEASE_DOMAIN`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseResponse {
    /// Canonical JSON, base64.
    pub response: String,
    /// ECDSA P-256 signature (DER), base64.
    pub signature: String,
    /// SubjectPublicKeyInfo of the broker's signing key, base64.
    pub broker_key: String,
}

/// What is released.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Released {
    /// The nonce, base64.
    pub nonce: String,
    /// To which workload.
    pub measurement: Sha384,
    /// The secrets, each sealed to the workload's key.
    pub secrets: Vec<ReleasedSecret>,
    /// Where the ledger has the receipt.
    pub receipts: Vec<LogEntry>,
}

/// A sealed secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasedSecret {
    /// Its name.
    pub name: String,
    /// Its value.
    pub envelope: Envelope,
}

impl Broker {
    /// Gives out a nonce.
    ///
    /// # Errors
    /// [`BrokerError::Crowded`] if too many are outstanding.
    pub fn challenge(&self) -> Result<Challenge, BrokerError> {
        let nonce = lock(&self.nonces).issue(self.clock.now())?;
        Ok(Challenge { nonce: BASE64_STANDARD.encode(nonce) })
    }

    /// Releases secrets to a workload, if its evidence answers a nonce of this broker and every
    /// secret is granted to it. The receipt is in the ledger before this returns.
    ///
    /// # Errors
    /// [`BrokerError`] with the first thing that is wrong; then nothing is released.
    pub fn release(&self, request: &ReleaseRequest) -> Result<ReleaseResponse, BrokerError> {
        check_names(&request.names)?;
        let now = self.clock.now();
        let nonce = lock(&self.nonces).take(&request.nonce, now)?;
        let key = crate::decode("envelope_key", &request.envelope_key)?;
        self.finish_pending()?;
        let current = self.current();
        let claims = self.appraise(request, &nonce, &key, &current, now)?;
        let sealed = grant_and_seal(&current, &claims, request, &nonce, &key)?;
        let entry = self.receipt(&current, &claims, request, &nonce, &key)?;
        let released = Released {
            nonce: request.nonce.clone(),
            measurement: claims.measurement,
            secrets: sealed,
            receipts: vec![entry],
        };
        let Answer { response, signature } =
            Answer::sign(RELEASE_DOMAIN, &self.signing, &released)?;
        Ok(ReleaseResponse { response, signature, broker_key: self.signing.public().spki_base64() })
    }

    fn appraise(
        &self,
        request: &ReleaseRequest,
        nonce: &[u8; NONCE_SIZE],
        key: &[u8],
        current: &Current,
        now: i64,
    ) -> Result<Claims, BrokerError> {
        let record = Record::parse(request.evidence.as_bytes()).map_err(BrokerError::other)?;
        let expect = Expect { purpose: Purpose::SecretRelease, nonce: Some(nonce), spki: key };
        let tees = &current.state.trust.signed.tees;
        let appraisal = self.verifier.appraise(&record, &expect, tees, now);
        appraisal.result().cloned().map_err(BrokerError::other)
    }

    fn receipt(
        &self,
        current: &Current,
        claims: &Claims,
        request: &ReleaseRequest,
        nonce: &[u8; NONCE_SIZE],
        key: &[u8],
    ) -> Result<LogEntry, BrokerError> {
        let receipt = Receipt {
            trust: current.trust,
            nonce: Sha256::of(nonce),
            evidence: Sha256::of(request.evidence.as_bytes()),
            envelope_key: Sha256::of(key),
            secrets: request.names.clone(),
            time: timestamp(self.clock.now())?,
        };
        let envelope = receipt
            .statement(&claims.measurement)
            .sign(&self.signing)
            .map_err(BrokerError::other)?;
        self.record(current.epoch, &envelope)
    }
}

fn check_names(names: &[String]) -> Result<(), BrokerError> {
    if names.is_empty() || names.len() > MAX_NAMES {
        let found = names.len();
        return Err(BrokerError::Request(format!(
            "expected 1 to {MAX_NAMES} names, found {found}"
        )));
    }
    let check = |name: &String| casemate_spec::spec::check_secret_name(name);
    names.iter().try_for_each(check).map_err(BrokerError::Request)
}

/// Seals every secret that was asked for, if every one is granted.
fn grant_and_seal(
    current: &Current,
    claims: &Claims,
    request: &ReleaseRequest,
    nonce: &[u8; NONCE_SIZE],
    key: &[u8],
) -> Result<Vec<ReleasedSecret>, BrokerError> {
    let framed = match &request.workload {
        None => None,
        Some(detail) => {
            detail.check(&claims.workload)?;
            Some(detail.frame(claims.workload.agent))
        }
    };
    let seal = |name: &String| {
        let secret = current.state.secret(name)?;
        check_grants(name, secret.grants(), claims, framed.as_ref())?;
        let context = [nonce.as_slice(), name.as_bytes()].concat();
        let envelope = casemate_envelope::seal(key, SECRET_INFO, &context, secret.value())
            .map_err(BrokerError::other)?;
        Ok(ReleasedSecret { name: name.clone(), envelope })
    };
    request.names.iter().map(seal).collect()
}

/// Default deny: one grant must fit.
fn check_grants(
    name: &str,
    grants: &[Grantee],
    claims: &Claims,
    framed: Option<&Result<(Sha256, Frame), BrokerError>>,
) -> Result<(), BrokerError> {
    let mut reason = String::new();
    for grant in grants {
        let misfit = match grant {
            Grantee::Measurement(measurement) if *measurement == claims.measurement => None,
            Grantee::Measurement(_) => continue,
            Grantee::Release { artifacts, frame, .. } => match framed {
                Some(Ok((program, found))) => mismatch(artifacts, frame, program, found),
                Some(Err(e)) => Some(e.to_string()),
                None => Some("the workload did not send its spec and root".into()),
            },
            _ => continue,
        };
        match misfit {
            None => return Ok(()),
            Some(why) => {
                reason = format!("; nor is it the release that the secret is granted to: {why}")
            }
        }
    }
    Err(BrokerError::NotGranted { name: name.into(), measurement: claims.measurement, reason })
}
