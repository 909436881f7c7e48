//! JSON as it is accepted here: bounded, no unknown fields, no field twice.
//!
//! Two readers of a document in which a name occurs twice may each see another value. Such a
//! document is refused at any depth before it is read into a type.

use std::collections::BTreeSet;
use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::StatementError;

/// Reads `bytes` as a `T`. `what` names the document in errors, `limit` is its largest size.
///
/// # Errors
/// [`StatementError::Size`] or [`StatementError::Syntax`].
pub fn from_slice<T: DeserializeOwned>(
    bytes: &[u8],
    what: &'static str,
    limit: usize,
) -> Result<T, StatementError> {
    if bytes.len() > limit {
        return Err(StatementError::Size { what, limit, found: bytes.len() });
    }
    let Unique = read(bytes, what)?;
    read(bytes, what)
}

/// Reads once more, as another type, what [`from_slice`] has read.
pub(crate) fn again<T: DeserializeOwned>(
    bytes: &[u8],
    what: &'static str,
) -> Result<T, StatementError> {
    read(bytes, what)
}

fn read<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, StatementError> {
    serde_json::from_slice(bytes)
        .map_err(|e| StatementError::Syntax { what, problem: e.to_string() })
}

/// The canonical JSON (RFC 8785) of a value of ours.
///
/// # Errors
/// Never in practice: our types hold text, booleans and integers below 2^53.
pub fn canonical<T: Serialize>(value: &T) -> Result<Vec<u8>, StatementError> {
    casemate_spec::canonical::to_vec(value)
        .map_err(|_| StatementError::Crypto("value has no canonical json form"))
}

/// Bytes that are base64 text (RFC 4648, section 4, padded, canonical) in JSON.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Base64(pub Vec<u8>);

impl Base64 {
    /// The text form.
    pub fn encode(&self) -> String {
        BASE64_STANDARD.encode(&self.0)
    }
}

impl From<Vec<u8>> for Base64 {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl std::ops::Deref for Base64 {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({})", self.encode())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.encode())
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD
            .decode(&text)
            .map(Self)
            .map_err(|e| de::Error::custom(format!("not canonical base64: {e}")))
    }
}

/// A whole number that is decimal text in JSON, as protobuf JSON writes 64-bit numbers.
pub(crate) mod number {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value: u64 = text.parse().map_err(de::Error::custom)?;
        if value.to_string() == text {
            Ok(value)
        } else {
            Err(de::Error::custom(format!("{text:?} is no canonical decimal number")))
        }
    }
}

/// A JSON document in which no object has a name twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("json")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
        while items.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Unique, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            fields.next_value::<Unique>()?;
            if let Some(name) = seen.replace(name) {
                return Err(de::Error::custom(format!("field {name:?} occurs twice")));
            }
        }
        Ok(Unique)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(text: &str) -> Result<serde_json::Value, StatementError> {
        from_slice(text.as_bytes(), "test", 1000)
    }

    #[test]
    fn refuses_a_field_that_occurs_twice_at_any_depth() {
        assert!(read(r#"{"a":[{"b":1,"c":2}],"b":1}"#).is_ok());
        for twice in [r#"{"a":1,"a":1}"#, r#"{"a":[{"b":1,"b":2}]}"#, r#"{"a":1,"\u0061":2}"#] {
            assert!(matches!(read(twice), Err(StatementError::Syntax { .. })), "{twice}");
        }
    }

    #[test]
    fn refuses_what_is_too_large_too_deep_or_followed_by_more() {
        assert!(matches!(read(&" ".repeat(1001)), Err(StatementError::Size { .. })));
        assert!(read(&"[".repeat(500)).is_err());
        assert!(read("{} {}").is_err());
    }

    #[test]
    fn refuses_base64_with_loose_ends() {
        let parse = |t: &str| serde_json::from_str::<Base64>(t).ok();
        assert_eq!(parse("\"AQ==\""), Some(Base64(vec![1])));
        for loose in ["\"AR==\"", "\"AQ\"", "\"AQ=\"", "\"A Q==\"", "\"AQ==\\n\"", "\"_w==\""] {
            assert_eq!(parse(loose), None, "{loose}");
        }
    }

    #[test]
    fn refuses_numbers_with_loose_ends() {
        #[derive(Deserialize)]
        struct N(#[serde(with = "number")] u64);
        let parse = |t: &str| serde_json::from_str::<N>(t).ok().map(|n| n.0);
        assert_eq!(parse("\"7\""), Some(7));
        for loose in ["7", "\"07\"", "\"+7\"", "\" 7\"", "\"-7\"", "\"18446744073709551616\""] {
            assert_eq!(parse(loose), None, "{loose}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = from_slice::<BTreeMap<String, Base64>>(&bytes, "test", 1 << 20);
        }
    }
}
