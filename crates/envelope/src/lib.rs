//! HPKE envelopes (RFC 9180): bytes that only the holder of one attested key can open.
//!
//! The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, base mode. The key travels
//! as a SubjectPublicKeyInfo (RFC 8410), the same bytes that enter a TEE's report data, so that
//! "sealed to this key" and "this key was attested" speak of one thing.

#![forbid(unsafe_code)]

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_spec::{Coded, Kind};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// DER prefix of an X25519 SubjectPublicKeyInfo (RFC 8410, section 4); the 32 key bytes follow.
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00];

/// An envelope that can not be made or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The recipient's key is not an X25519 SubjectPublicKeyInfo.
    #[error("recipient key is not an X25519 SubjectPublicKeyInfo (RFC 8410)")]
    Key,
    /// The envelope is malformed, altered, for another key or for another context.
    #[error("envelope does not open: altered, or sealed to another key or context")]
    Open,
    /// The system gave no randomness, or the key is a low-order point.
    #[error("envelope could not be sealed")]
    Seal,
}

impl Coded for EnvelopeError {
    fn code(&self) -> &'static str {
        match self {
            Self::Key => "CM-SEAL-0001",
            Self::Open => "CM-SEAL-0002",
            Self::Seal => "CM-SEAL-0003",
        }
    }
    fn kind(&self) -> Kind {
        Kind::Refused
    }
}

/// Ciphertext with the encapsulated key, base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Encapsulated key, 32 bytes, base64.
    pub enc: String,
    /// Ciphertext and tag, base64.
    pub ciphertext: String,
}

/// An X25519 key pair that opens envelopes. The private half is wiped on drop.
pub struct EnvelopeKey {
    private: <X25519HkdfSha256 as Kem>::PrivateKey,
    spki: Vec<u8>,
}

impl std::fmt::Debug for EnvelopeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnvelopeKey").finish_non_exhaustive()
    }
}

impl EnvelopeKey {
    /// A key pair from 32 random bytes (RFC 9180 DeriveKeyPair).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let (private, public) = X25519HkdfSha256::derive_keypair(seed);
        let mut spki = SPKI_PREFIX.to_vec();
        spki.extend_from_slice(&public.to_bytes());
        Self { private, spki }
    }

    /// The public half as DER SubjectPublicKeyInfo, 44 bytes.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Opens an envelope sealed with the same `info` and `aad`.
    ///
    /// # Errors
    /// [`EnvelopeError::Open`], whatever the cause: an opener tells a forger nothing.
    pub fn open(
        &self,
        envelope: &Envelope,
        info: &[u8],
        aad: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
        let open = || -> Option<Vec<u8>> {
            let enc = BASE64_STANDARD.decode(&envelope.enc).ok()?;
            let enc = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&enc).ok()?;
            let ciphertext = BASE64_STANDARD.decode(&envelope.ciphertext).ok()?;
            hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                &OpModeR::Base,
                &self.private,
                &enc,
                info,
                &ciphertext,
                aad,
            )
            .ok()
        };
        open().map(Zeroizing::new).ok_or(EnvelopeError::Open)
    }
}

/// Seals `plaintext` to the X25519 key in `spki`; `info` names the protocol, `aad` the context.
///
/// # Errors
/// [`EnvelopeError::Key`] if `spki` is of another kind, [`EnvelopeError::Seal`] without randomness.
pub fn seal(
    spki: &[u8],
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Envelope, EnvelopeError> {
    let raw = spki.strip_prefix(SPKI_PREFIX.as_slice()).ok_or(EnvelopeError::Key)?;
    let public =
        <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(raw).map_err(|_| EnvelopeError::Key)?;
    let (enc, ciphertext) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        info,
        plaintext,
        aad,
    )
    .map_err(|_| EnvelopeError::Seal)?;
    Ok(Envelope {
        enc: BASE64_STANDARD.encode(enc.to_bytes()),
        ciphertext: BASE64_STANDARD.encode(ciphertext),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_the_same_key_info_and_context() {
        let (key, other) = (EnvelopeKey::from_seed(&[1; 32]), EnvelopeKey::from_seed(&[2; 32]));
        let sealed = seal(key.spki(), b"i", b"a", b"secret").expect("sealing");
        assert_eq!(key.open(&sealed, b"i", b"a").expect("opening").as_slice(), b"secret");
        assert_eq!(other.open(&sealed, b"i", b"a").err(), Some(EnvelopeError::Open));
        assert_eq!(key.open(&sealed, b"j", b"a").err(), Some(EnvelopeError::Open));
        assert_eq!(key.open(&sealed, b"i", b"b").err(), Some(EnvelopeError::Open));
    }

    #[test]
    fn refuses_every_flipped_byte() {
        let key = EnvelopeKey::from_seed(&[1; 32]);
        let sealed = seal(key.spki(), b"", b"", b"secret").expect("sealing");
        let bytes = BASE64_STANDARD.decode(&sealed.ciphertext).expect("base64");
        for i in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[i] ^= 1;
            let envelope =
                Envelope { ciphertext: BASE64_STANDARD.encode(altered), ..sealed.clone() };
            assert!(key.open(&envelope, b"", b"").is_err(), "byte {i}");
        }
    }

    #[test]
    fn refuses_a_key_of_another_kind() {
        assert_eq!(seal(&[0x30; 44], b"", b"", b"x").err(), Some(EnvelopeError::Key));
    }
}
