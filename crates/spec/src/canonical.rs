//! Canonical JSON (RFC 8785, JSON Canonicalization Scheme): one byte string per value.

use serde::Serialize;

use crate::digest::Sha256;
use crate::error::{Coded, Kind};

/// A value that has no canonical JSON form, such as one with a non-finite number.
#[derive(Debug, thiserror::Error)]
#[error("value has no canonical JSON form: {0}")]
pub struct CanonicalError(#[from] serde_json::Error);

impl Coded for CanonicalError {
    fn code(&self) -> &'static str {
        "CM-SPEC-0001"
    }
    fn kind(&self) -> Kind {
        Kind::Usage
    }
}

/// The canonical JSON bytes of `value`.
///
/// # Errors
/// If the value cannot be expressed in JSON (non-finite numbers, maps with non-string keys).
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    Ok(serde_json_canonicalizer::to_vec(value)?)
}

/// SHA-256 of the canonical JSON bytes of `value`.
///
/// # Errors
/// As [`to_vec`].
pub fn sha256<T: Serialize>(value: &T) -> Result<Sha256, CanonicalError> {
    Ok(Sha256::of(&to_vec(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_keys_and_drops_white_space() {
        let value = serde_json::json!({"b": 1, "a": [true, null, "\u{e9}"]});
        assert_eq!(
            to_vec(&value).expect("canonical"),
            "{\"a\":[true,null,\"\u{e9}\"],\"b\":1}".as_bytes()
        );
    }
}
