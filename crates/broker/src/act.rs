//! Acts: what approvers have the broker do, by their signatures and nothing else.

use casemate_envelope::Envelope as Sealed;
use casemate_spec::Sha256;
use casemate_spec::trust::Trust;
use casemate_statement::act::{self, Act, Action, Grantee, SealedValue};
use casemate_statement::bundle::ReleaseBundle;
use casemate_statement::dsse::Envelope;
use casemate_statement::json::Base64;
use casemate_statement::quorum::{self, Person};
use casemate_statement::rekor::LogEntry;
use casemate_statement::sshsig::SshSignature;
use casemate_verify::verify_bundle;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::broker::Broker;
use crate::change::Reason;
use crate::error::BrokerError;
use crate::state::{MAX_VALUE, State};

/// HPKE `info` of a value on its way to the broker.
const PUT_INFO: &[u8] = b"casemate-put-v1";

/// The most signatures that are read with an act.
const MAX_SIGNATURES: usize = 64;

/// `POST /v1/act`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActRequest {
    /// The act's canonical JSON.
    pub act: Base64,
    /// Armored SSH signatures over it, namespace `casemate-act`.
    pub signatures: Vec<String>,
    /// The release bundle (JSON), if the act grants a secret to a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Base64>,
}

/// An act was applied, now or before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActAnswer {
    /// The broker's statement about it ([`crate::Change`]).
    pub statement: Envelope,
    /// Its place in the ledger.
    pub receipt: LogEntry,
}

impl Broker {
    /// Applies an act, or finds that it was applied before.
    ///
    /// # Errors
    /// [`BrokerError`] with the first thing that is wrong with it; then nothing has changed.
    pub fn act(&self, request: &ActRequest) -> Result<ActAnswer, BrokerError> {
        let act = Act::parse(&request.act).map_err(BrokerError::other)?;
        let digest = Sha256::of(&request.act);
        self.finish_pending()?;
        let mut current = self.current_mut();
        if current.state.applied(&act, &digest)? {
            let (statement, receipt) = self.receipt_of(&current, &act.id)?;
            return Ok(ActAnswer { statement, receipt });
        }
        let now = current.state.now(self.clock.now());
        if act.trust != current.trust {
            let (expected, found) = (current.trust, act.trust);
            return Err(BrokerError::OtherTrust { id: act.id, expected, found });
        }
        State::check_time(&act, now)?;
        let trust = &current.state.trust;
        let people = people(&trust.signed, request)?;
        let value = match &act.action {
            Action::Put { name, value } => Some(self.open_value(&current.trust, name, value)?),
            Action::Grant { to: Grantee::Release { bundle, artifacts, .. }, .. } => {
                check_release(request.bundle.as_ref(), bundle, artifacts, trust, now)?;
                None
            }
            _ => None,
        };
        let next = current.state.after(&act, digest, value, current.epoch + 1)?;
        let reason = Reason::act(&act, &digest, &people, &request.signatures);
        let receipt = self.commit(&mut current, next, reason, Some(&act.id))?;
        match self.latest_receipt(&current, &act.id) {
            Some(statement) => Ok(ActAnswer { statement, receipt }),
            None => Err(BrokerError::Reused { id: act.id }),
        }
    }

    fn open_value(
        &self,
        trust: &Sha256,
        name: &str,
        value: &SealedValue,
    ) -> Result<Zeroizing<Vec<u8>>, BrokerError> {
        let sealed = Sealed { enc: value.enc.encode(), ciphertext: value.ciphertext.encode() };
        let wrong = |problem: String| BrokerError::Value { name: name.into(), problem };
        let value = self
            .envelope
            .open(&sealed, PUT_INFO, &put_context(trust, name))
            .map_err(|e| wrong(e.to_string()))?;
        if value.len() > MAX_VALUE {
            return Err(wrong(format!("{} bytes, expected at most {MAX_VALUE}", value.len())));
        }
        Ok(value)
    }
}

/// Seals the value of a secret to the broker that `trust` names, for an act that puts it.
///
/// # Errors
/// If the value is too large, or the trust file names no key to seal to.
pub fn seal_value(trust: &Trust, name: &str, value: &[u8]) -> Result<SealedValue, BrokerError> {
    let wrong = |problem: String| BrokerError::Value { name: name.into(), problem };
    if value.len() > MAX_VALUE {
        return Err(wrong(format!("{} bytes, expected at most {MAX_VALUE}", value.len())));
    }
    let key = crate::decode("trust file: broker.envelope_key", &trust.broker.envelope_key)?;
    let context = put_context(&trust.digest().map_err(BrokerError::other)?, name);
    let sealed =
        casemate_envelope::seal(&key, PUT_INFO, &context, value).map_err(BrokerError::other)?;
    Ok(SealedValue {
        enc: Base64(crate::decode("envelope", &sealed.enc)?),
        ciphertext: Base64(crate::decode("envelope", &sealed.ciphertext)?),
    })
}

/// What a sealed value is bound to: an act under another trust file, or for another secret, can
/// not carry it.
fn put_context(trust: &Sha256, name: &str) -> Vec<u8> {
    [trust.as_bytes(), name.as_bytes()].concat()
}

/// The people who signed, each once, as many as an act needs.
fn people(trust: &Trust, request: &ActRequest) -> Result<Vec<Person>, BrokerError> {
    if request.signatures.len() > MAX_SIGNATURES {
        return Err(BrokerError::Limit { what: "signatures of an act", limit: MAX_SIGNATURES });
    }
    let signatures = request
        .signatures
        .iter()
        .map(|s| SshSignature::parse(s))
        .collect::<Result<Vec<_>, _>>()
        .map_err(BrokerError::other)?;
    quorum::people(trust, act::NAMESPACE, &request.act, &signatures, trust.thresholds.admin)
        .map_err(BrokerError::other)
}

/// Checks that a bundle is the one the act names, and a release by all the rules.
fn check_release(
    bundle: Option<&Base64>,
    digest: &Sha256,
    artifacts: &[Sha256],
    trust: &casemate_spec::trust::TrustFile,
    now: i64,
) -> Result<(), BrokerError> {
    let wrong = |problem: String| BrokerError::Bundle(problem);
    let bytes = bundle.ok_or_else(|| wrong("expected its bundle, found none".into()))?;
    let bundle = ReleaseBundle::parse(bytes).map_err(BrokerError::other)?;
    let found = bundle.digest().map_err(BrokerError::other)?;
    if found != *digest {
        return Err(wrong(format!("expected bundle {digest}, found {found}")));
    }
    let released: Vec<Sha256> = bundle.artifacts.iter().map(|a| a.sha256).collect();
    if let Some(other) = artifacts.iter().find(|a| !released.contains(a)) {
        return Err(wrong(format!("artifact {other} is not in the bundle")));
    }
    verify_bundle(&bundle, trust, now).result().map_err(BrokerError::other)?;
    Ok(())
}
