//! Secrets, fetched through the untrusted relay.
//!
//! The agent makes an X25519 key, has the TEE attest it together with the broker's nonce and this
//! workload, and sends both. What comes back is signed by the one broker key that is part of this
//! workload's measurement, is bound to that nonce and measurement, and opens with that key only.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_enclave_protocol::Code;
use casemate_enclave_protocol::message::Refusal;
use casemate_envelope::{Envelope, EnvelopeKey};
use casemate_spec::spec::{EffectiveSpec, Secret};
use casemate_spec::workload::RootManifest;
use casemate_spec::{Sha256, Sha384};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::AgentError;
use crate::evidence::Prover;
use crate::relay::Outside;

const BROKER: &str = "broker";
const CHALLENGE: &str = "/v1/challenge";
const RELEASE: &str = "/v1/release";
const SIGNED: &[u8] = b"casemate-release-v1\0";
const INFO: &[u8] = b"casemate-secret-v1";

/// DER prefix of an uncompressed P-256 SubjectPublicKeyInfo (RFC 5480); the 65-byte point follows.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Secrets with where the program finds them. Wiped on drop.
pub(crate) struct Secrets(Vec<(Secret, Value)>);

type Value = Zeroizing<Vec<u8>>;

impl Secrets {
    /// Path and content of those delivered as files.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().filter_map(|(s, v)| Some((s.file.as_deref()?, v.as_slice())))
    }

    /// Name and value of those delivered as variables.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().filter_map(|(s, v)| Some((s.env.as_deref()?, v.as_slice())))
    }
}

/// Fetches the secrets that `spec` names; none without asking anybody if it names none.
pub(crate) fn fetch(
    spec: &EffectiveSpec,
    root: &RootManifest,
    prover: &Prover,
    outside: &Outside,
) -> Result<Secrets, AgentError> {
    let Some(broker) = spec.broker.filter(|_| !spec.secrets.is_empty()) else {
        return Ok(Secrets(Vec::new()));
    };
    let challenge: Challenge = parse(CHALLENGE, &outside.call(BROKER, CHALLENGE, "{}".into())?)?;
    let nonce: [u8; 32] = decode(CHALLENGE, "nonce", &challenge.nonce)?
        .try_into()
        .map_err(|_| answer(CHALLENGE, "the nonce has not 32 bytes".into()))?;
    let mut seed = Zeroizing::new([0; 32]);
    rustix::rand::getrandom(seed.as_mut_slice(), rustix::rand::GetRandomFlags::empty())
        .map_err(AgentError::system("drawing random bytes"))?;
    let key = EnvelopeKey::from_seed(&seed);
    let request = ReleaseRequest {
        evidence: &prover.for_release(&nonce, key.spki())?,
        envelope_key: BASE64_STANDARD.encode(key.spki()),
        nonce: BASE64_STANDARD.encode(nonce),
        names: spec.secrets.iter().map(|s| s.name.as_str()).collect(),
        workload: Detail { spec, root },
    };
    let body = serde_json::to_string(&request).map_err(|e| answer(RELEASE, e.to_string()))?;
    let signed: SignedResponse = parse(RELEASE, &outside.call(BROKER, RELEASE, body)?)?;
    let response = check(&signed, &broker, &nonce, &prover.measurement())?;
    open(spec, &response, &key, &nonce).map(Secrets)
}

/// The response, if it is the broker's own answer to this very request.
fn check(
    signed: &SignedResponse,
    broker: &Sha256,
    nonce: &[u8; 32],
    measurement: &Sha384,
) -> Result<Response, AgentError> {
    let key = decode(RELEASE, "broker_key", &signed.broker_key)?;
    let found = Sha256::of(&key);
    if found != *broker {
        let (expected, found) = (broker.to_string(), found.to_string());
        return Err(AgentError::BrokerKey { expected, found });
    }
    let bytes = decode(RELEASE, "response", &signed.response)?;
    let signature = decode(RELEASE, "signature", &signed.signature)?;
    let point = key.strip_prefix(&P256_PREFIX).ok_or(AgentError::BrokerSignature)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(&[SIGNED, &bytes].concat(), &signature)
        .map_err(|_| AgentError::BrokerSignature)?;
    let response: Response =
        serde_json::from_slice(&bytes).map_err(|e| answer(RELEASE, e.to_string()))?;
    if decode(RELEASE, "nonce", &response.nonce)? != nonce || response.measurement != *measurement {
        return Err(AgentError::BrokerReplay);
    }
    Ok(response)
}

fn open(
    spec: &EffectiveSpec,
    response: &Response,
    key: &EnvelopeKey,
    nonce: &[u8; 32],
) -> Result<Vec<(Secret, Value)>, AgentError> {
    let mut out = Vec::with_capacity(spec.secrets.len());
    for secret in &spec.secrets {
        let name = &secret.name;
        let sealed = response
            .secrets
            .iter()
            .find(|s| s.name == *name)
            .ok_or_else(|| AgentError::SecretMissing(name.clone()))?;
        let aad = [nonce.as_slice(), name.as_bytes()].concat();
        let value = key
            .open(&sealed.envelope, INFO, &aad)
            .map_err(|source| AgentError::Envelope { name: name.clone(), source })?;
        if secret.env.is_some() && value.contains(&0) {
            return Err(AgentError::SecretNul(name.clone()));
        }
        out.push((secret.clone(), value));
    }
    Ok(out)
}

#[derive(Deserialize)]
struct Challenge {
    nonce: String,
}

#[derive(Serialize)]
struct ReleaseRequest<'a> {
    evidence: &'a str,
    envelope_key: String,
    nonce: String,
    names: Vec<&'a str>,
    workload: Detail<'a>,
}

/// What was measured, for grants to a release; the broker holds it against the evidence.
#[derive(Serialize)]
struct Detail<'a> {
    spec: &'a EffectiveSpec,
    root: &'a RootManifest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedResponse {
    response: String,
    signature: String,
    broker_key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Response {
    nonce: String,
    measurement: Sha384,
    secrets: Vec<SealedSecret>,
    /// Where the ledger has the receipts. The agent does not judge them.
    #[serde(rename = "receipts")]
    _receipts: serde::de::IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedSecret {
    name: String,
    envelope: Envelope,
}

/// A service's refusal, as every service words it.
#[derive(Deserialize)]
struct ServiceRefusal {
    code: String,
    message: String,
    #[serde(default)]
    fix: Option<String>,
}

/// Parses an answer, or passes on the refusal it is.
fn parse<T: DeserializeOwned>(path: &'static str, body: &str) -> Result<T, AgentError> {
    if let Ok(refusal) = serde_json::from_str::<ServiceRefusal>(body)
        && let Some(code) = Code::parse(&refusal.code)
    {
        let ServiceRefusal { message, fix, .. } = refusal;
        return Err(Refusal { code, message, kind: 1, fix }.into());
    }
    serde_json::from_str(body).map_err(|e| answer(path, e.to_string()))
}

fn decode(path: &'static str, what: &str, text: &str) -> Result<Vec<u8>, AgentError> {
    BASE64_STANDARD.decode(text).map_err(|e| answer(path, format!("{what}: base64: {e}")))
}

const fn answer(path: &'static str, problem: String) -> AgentError {
    AgentError::Answer { path, problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
    use casemate_spec::Coded as _;

    fn signed(key: &EcdsaKeyPair, nonce: [u8; 32], measurement: Sha384) -> SignedResponse {
        let response = serde_json::json!({
            "nonce": BASE64_STANDARD.encode(nonce),
            "measurement": measurement,
            "secrets": [],
            "receipts": [],
        })
        .to_string();
        let bytes = [SIGNED, response.as_bytes()].concat();
        let signature = key.sign(&SystemRandom::new(), &bytes).expect("signing");
        SignedResponse {
            response: BASE64_STANDARD.encode(response),
            signature: BASE64_STANDARD.encode(signature.as_ref()),
            broker_key: BASE64_STANDARD.encode(spki(key)),
        }
    }

    fn spki(key: &EcdsaKeyPair) -> Vec<u8> {
        [&P256_PREFIX[..], key.public_key().as_ref()].concat()
    }

    fn key() -> EcdsaKeyPair {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("key")
    }

    #[test]
    fn takes_only_the_measured_broker_s_answer_to_this_request() {
        let (broker, other) = (key(), key());
        let (pinned, nonce, me) = (Sha256::of(&spki(&broker)), [7; 32], Sha384([1; 48]));
        let code = |s: SignedResponse| {
            check(&s, &pinned, &nonce, &me).map(|_| ()).map_err(|e| e.code()).err()
        };
        assert_eq!(code(signed(&broker, nonce, me)), None);
        assert_eq!(code(signed(&other, nonce, me)), Some("CM-ENCL-0052"));
        assert_eq!(code(signed(&broker, [8; 32], me)), Some("CM-ENCL-0054"));
        assert_eq!(code(signed(&broker, nonce, Sha384([2; 48]))), Some("CM-ENCL-0054"));
        let mut altered = signed(&broker, nonce, me);
        altered.response = signed(&broker, [9; 32], me).response;
        assert_eq!(code(altered), Some("CM-ENCL-0053"));
        let mut forged = signed(&other, nonce, me);
        forged.broker_key = BASE64_STANDARD.encode(spki(&broker));
        assert_eq!(code(forged), Some("CM-ENCL-0053"));
    }

    #[test]
    fn passes_a_service_s_refusal_on_as_it_is() {
        let body = r#"{"code":"CM-BROK-0007","message":"no grant","fix":"casemate grant"}"#;
        let error = parse::<Challenge>(CHALLENGE, body).err().expect("a refusal");
        assert_eq!((error.code(), error.to_string().as_str()), ("CM-BROK-0007", "no grant"));
        assert_eq!(error.fix().as_deref(), Some("casemate grant"));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_the_parsers_panic(text in ".{0,200}") {
            let _ = parse::<Challenge>(CHALLENGE, &text);
            let _ = parse::<SignedResponse>(RELEASE, &text);
            let _ = serde_json::from_str::<Response>(&text);
        }
    }
}
