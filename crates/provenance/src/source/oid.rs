//! The name of a git object.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A git object id (SHA-1), 40 lower-case hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid([u8; 20]);

/// Text that is not a git object id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a git object id of 40 hexadecimal digits, found {0:?}")]
pub struct OidError(String);

impl Oid {
    /// The id with these bytes.
    pub const fn new(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// From raw bytes, if there are 20.
    pub(super) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// From exactly 40 lower-case hexadecimal digits.
    pub(super) fn from_hex(text: &[u8]) -> Option<Self> {
        let lower = text.len() == 40 && !text.iter().any(u8::is_ascii_uppercase);
        let mut out = [0; 20];
        (lower && hex::decode_to_slice(text, &mut out).is_ok()).then_some(Self(out))
    }

    pub(super) fn to_gix(self) -> gix::ObjectId {
        gix::ObjectId::Sha1(self.0)
    }

    pub(super) fn from_gix(id: &gix::hash::oid) -> Option<Self> {
        Self::from_slice(id.as_bytes())
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Oid({self})")
    }
}

impl FromStr for Oid {
    type Err = OidError;
    fn from_str(text: &str) -> Result<Self, OidError> {
        Self::from_hex(text.as_bytes()).ok_or_else(|| OidError(text.chars().take(100).collect()))
    }
}

impl Serialize for Oid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Oid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
