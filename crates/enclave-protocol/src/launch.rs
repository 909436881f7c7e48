//! The one message that starts an enclave.

use std::collections::BTreeMap;

use casemate_spec::Sha384;
use casemate_spec::binding::{NONCE_SIZE, Purpose};
use casemate_spec::spec::EffectiveSpec;
use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// Everything the agent is told. Beside it travel file descriptors, in this order: the standard
/// streams that are [`Stream::Fd`], then one listening socket per `[[listen]]` of the spec.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchConfig {
    /// The spec that is measured.
    pub spec: EffectiveSpec,
    /// SHA-384 of the agent's binary. It enters the measurement and need not be believed: whoever
    /// verifies evidence compares it with what the TEE measured at launch.
    pub agent: Sha384,
    /// What the root is made of.
    pub plan: Plan,
    /// Values of the variables that the spec's `pass_env` names. Not measured.
    pub pass_env: BTreeMap<String, String>,
    /// Host directory of each volume of the spec, in its order; none for memory. Not measured.
    pub volumes: Vec<Option<String>>,
    /// Where evidence comes from.
    pub tee: TeeSource,
    /// Standard input, output and error.
    pub streams: [Stream; 3],
    /// Prove this and end, instead of running the program.
    pub evidence_only: Option<EvidenceRequest>,
}

/// Where evidence comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TeeSource {
    /// The starting half serves the report protocol on a directory the agent makes.
    Simulated,
    /// The kernel's own configfs-tsm.
    Device,
}

/// What one standard stream of the program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Stream {
    /// A descriptor passed beside the launch message.
    Fd,
    /// The enclave's own pseudo-terminal.
    Terminal,
    /// `/dev/null`.
    Null,
}

/// A key and a nonce to be bound into evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceRequest {
    /// What the key is for. [`Purpose::SecretRelease`] is refused: it is the agent's own.
    pub purpose: Purpose,
    /// The verifier's nonce.
    #[serde(default, with = "nonce_hex")]
    pub nonce: Option<[u8; NONCE_SIZE]>,
    /// DER SubjectPublicKeyInfo of the key; empty if none.
    #[serde(with = "hex::serde")]
    pub spki: Vec<u8>,
}

mod nonce_hex {
    use super::NONCE_SIZE;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(super) fn serialize<S: Serializer>(
        nonce: &Option<[u8; NONCE_SIZE]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        nonce.map(hex::encode).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[u8; NONCE_SIZE]>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let mut nonce = [0; NONCE_SIZE];
        hex::decode_to_slice(&text, &mut nonce)
            .map_err(|_| de::Error::custom("expected a nonce of 64 hexadecimal digits"))?;
        Ok(Some(nonce))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evidence_request_survives_the_wire() {
        for nonce in [None, Some([7; NONCE_SIZE])] {
            let request =
                EvidenceRequest { purpose: Purpose::Attest, nonce, spki: vec![1, 2, 255] };
            let json = serde_json::to_vec(&request).expect("json");
            assert_eq!(serde_json::from_slice::<EvidenceRequest>(&json).expect("parse"), request);
        }
    }

    #[test]
    fn refuses_a_nonce_of_another_size() {
        let text = r#"{"purpose":"attest","nonce":"0011","spki":""}"#;
        assert!(serde_json::from_str::<EvidenceRequest>(text).is_err());
    }
}
