//! DSSE v1 envelopes (<https://github.com/secure-systems-lab/dsse>): a payload, its type, a
//! signature over both.

use casemate_spec::Sha256;
use serde::{Deserialize, Serialize};

use crate::StatementError;
use crate::json::{self, Base64};
use crate::key::{PublicKey, SigningKey};

/// The payload type of in-toto statements.
pub const INTOTO: &str = "application/vnd.in-toto+json";

/// The largest envelope that is read, in bytes.
pub const MAX_SIZE: usize = 64 << 20;

/// A signed payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The payload, base64 in JSON.
    pub payload: Base64,
    /// What the payload is.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// Signatures over [`pae`]; exactly one in everything made here.
    pub signatures: Vec<Signature>,
}

/// One signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Which key, as a hint: [`PublicKey::keyid`] in everything made here.
    #[serde(default)]
    pub keyid: String,
    /// The signature, base64 in JSON; ECDSA in DER.
    pub sig: Base64,
}

/// The bytes that are signed: the pre-authentication encoding of DSSE v1.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

impl Envelope {
    /// Signs `payload` as an in-toto statement.
    ///
    /// # Errors
    /// [`StatementError::Crypto`] without randomness.
    pub fn sign(key: &SigningKey, payload: Vec<u8>) -> Result<Self, StatementError> {
        let sig = key.sign(&pae(INTOTO, &payload))?;
        Ok(Self {
            payload: payload.into(),
            payload_type: INTOTO.into(),
            signatures: vec![Signature { keyid: key.public().keyid(), sig: sig.into() }],
        })
    }

    /// Parses an envelope of its own.
    ///
    /// # Errors
    /// [`StatementError::Syntax`] or [`StatementError::Size`].
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        json::from_slice(bytes, "dsse envelope", MAX_SIZE)
    }

    /// The bytes its signatures are over.
    pub fn pae(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }

    /// SHA-256 of [`Self::pae`]: how a signed statement is named in the log and in other statements.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&self.pae())
    }

    /// The one signature.
    ///
    /// # Errors
    /// [`StatementError::Count`] if there are none or several.
    pub fn signature(&self) -> Result<&Signature, StatementError> {
        match self.signatures.as_slice() {
            [one] => Ok(one),
            several => Err(StatementError::Count {
                what: "signatures of a dsse envelope",
                expected: 1,
                found: several.len(),
            }),
        }
    }

    /// The payload, once it is an in-toto payload signed by exactly `key`.
    ///
    /// # Errors
    /// The first thing that is wrong: payload type, number of signatures, key id, signature.
    pub fn verify(&self, key: &PublicKey) -> Result<&[u8], StatementError> {
        if self.payload_type != INTOTO {
            return Err(StatementError::Type {
                what: "dsse payload type",
                expected: INTOTO.into(),
                found: self.payload_type.clone(),
            });
        }
        let signature = self.signature()?;
        if signature.keyid != key.keyid() {
            return Err(StatementError::KeyId {
                what: "dsse envelope",
                expected: key.keyid(),
                found: signature.keyid.clone(),
            });
        }
        if key.verifies(key.scheme(), &self.pae(), &signature.sig) {
            Ok(&self.payload)
        } else {
            Err(StatementError::Signature { what: "dsse envelope", key: key.keyid() })
        }
    }
}
