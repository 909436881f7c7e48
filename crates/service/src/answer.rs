//! Answers that a client can hold against the trust file: signed by the service's key, over bytes
//! that hold the client's own nonce.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_spec::canonical;
use casemate_statement::{PublicKey, SigningKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::ServiceError;

/// A signed answer: canonical JSON bytes and a signature over a domain and those bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The canonical JSON bytes, base64.
    pub response: String,
    /// ECDSA P-256 signature (DER) over SHA-256 of domain and response, base64.
    pub signature: String,
}

impl Answer {
    /// Signs `value` for the protocol step that `domain` (ending in a zero byte) names.
    ///
    /// # Errors
    /// If there is no randomness to sign with.
    pub fn sign<T: Serialize>(
        domain: &[u8],
        key: &SigningKey,
        value: &T,
    ) -> Result<Self, ServiceError> {
        let bytes = canonical::to_vec(value).map_err(ServiceError::other)?;
        let signature = key.sign(&[domain, &bytes].concat()).map_err(ServiceError::other)?;
        Ok(Self {
            response: BASE64_STANDARD.encode(bytes),
            signature: BASE64_STANDARD.encode(signature),
        })
    }

    /// The value, if the holder of `spki` (base64 DER, as in the trust file) signed it for this
    /// domain; `url` names the service in errors.
    ///
    /// # Errors
    /// [`ServiceError::Answer`] if it did not, or the value is of another shape.
    pub fn open<T: DeserializeOwned>(
        &self,
        domain: &[u8],
        spki: &str,
        url: &str,
    ) -> Result<T, ServiceError> {
        let wrong =
            |problem: &str| ServiceError::Answer { url: url.into(), problem: problem.into() };
        let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| wrong("not base64"));
        let (bytes, signature) = (decode(&self.response)?, decode(&self.signature)?);
        let key = PublicKey::from_spki_base64(spki).map_err(ServiceError::other)?;
        if !key.verifies(key.scheme(), &[domain, &bytes].concat(), &signature) {
            return Err(wrong("the answer is not signed by the key that the trust file names"));
        }
        serde_json::from_slice(&bytes).map_err(|e| wrong(&format!("answer: {e}")))
    }
}

/// The nonce that a client sends with a question, as 64 hexadecimal digits.
///
/// # Errors
/// If the system has no randomness.
pub fn question_nonce() -> Result<String, ServiceError> {
    Ok(hex::encode(crate::random::<32>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_under_the_key_and_domain_it_was_signed_with() {
        let key = || SigningKey::generate().expect("key").0;
        let (key, other) = (key(), key());
        let spki = |k: &SigningKey| k.public().spki_base64();
        let answer = Answer::sign(b"a\0", &key, &serde_json::json!({"x": 1})).expect("sign");
        let value: serde_json::Value = answer.open(b"a\0", &spki(&key), "test").expect("open");
        assert_eq!(value["x"], 1);
        let bad = |r: Result<serde_json::Value, ServiceError>| {
            matches!(r, Err(ServiceError::Answer { .. }))
        };
        assert!(bad(answer.open(b"b\0", &spki(&key), "test")));
        assert!(bad(answer.open(b"a\0", &spki(&other), "test")));
        let altered = Answer { response: BASE64_STANDARD.encode(b"{\"x\":2}"), ..answer };
        assert!(bad(altered.open(b"a\0", &spki(&key), "test")));
    }
}
