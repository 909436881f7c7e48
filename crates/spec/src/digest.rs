//! SHA-256 and SHA-384 values: fixed size, lower-case hexadecimal in text.

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256, SHA384, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Coded, Kind};

/// Text that is not a digest of the expected length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits of a {algorithm} digest, found {found:?}")]
pub struct DigestError {
    algorithm: &'static str,
    expected: usize,
    found: String,
}

impl Coded for DigestError {
    fn code(&self) -> &'static str {
        "CM-SPEC-0002"
    }
    fn kind(&self) -> Kind {
        Kind::Usage
    }
}

macro_rules! digest_type {
    ($name:ident, $size:literal, $algorithm:expr, $label:literal) => {
        #[doc = concat!("A ", $label, " digest (FIPS 180-4), ", stringify!($size), " bytes.")]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $size]);

        impl $name {
            /// The digest of `bytes`.
            pub fn of(bytes: &[u8]) -> Self {
                let mut out = [0; $size];
                out.copy_from_slice(digest(&$algorithm, bytes).as_ref());
                Self(out)
            }

            /// The digest of everything `reader` yields, and how many bytes that was.
            ///
            /// # Errors
            /// Whatever the reader fails with.
            pub fn of_reader(mut reader: impl Read) -> std::io::Result<(Self, u64)> {
                let mut context = Context::new(&$algorithm);
                let mut buffer = vec![0; 128 * 1024];
                let mut total = 0u64;
                loop {
                    let read = match reader.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(read) => read,
                        Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                        Err(e) => return Err(e),
                    };
                    context.update(&buffer[..read]);
                    total += read as u64;
                }
                let mut out = [0; $size];
                out.copy_from_slice(context.finish().as_ref());
                Ok((Self(out), total))
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;
            fn from_str(text: &str) -> Result<Self, DigestError> {
                let mut out = [0; $size];
                let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
                match hex::decode_to_slice(text, &mut out) {
                    Ok(()) if lower => Ok(Self(out)),
                    _ => Err(DigestError {
                        algorithm: $label,
                        expected: $size * 2,
                        found: text.chars().take(160).collect(),
                    }),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

digest_type!(Sha256, 32, SHA256, "SHA-256");
digest_type!(Sha384, 48, SHA384, "SHA-384");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_the_fips_180_example() {
        assert_eq!(
            Sha256::of(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let (streamed, size) = Sha384::of_reader(&b"abc"[..]).expect("reading memory");
        assert_eq!((streamed, size), (Sha384::of(b"abc"), 3));
    }

    #[test]
    fn refuses_text_that_is_no_lower_case_digest() {
        let honest = Sha256::of(b"x").to_string();
        assert_eq!(honest.parse::<Sha256>(), Ok(Sha256::of(b"x")));
        for bad in ["", "00", &honest.to_uppercase(), &honest[1..], &format!("{honest}0")] {
            assert!(bad.parse::<Sha256>().is_err(), "{bad:?} was accepted");
        }
    }
}
