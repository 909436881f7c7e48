//! Public keys as SubjectPublicKeyInfo (RFC 5280), and the P-256 key that services sign with.
//!
//! A key that parsed is in the one canonical DER encoding, so a digest of its SPKI names it.

use std::sync::Arc;

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, EcdsaKeyPair, KeyPair as _, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_spec::Sha256;

use crate::StatementError;

const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P384_PREFIX: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];
const P521_PREFIX: &[u8] = &[
    0x30, 0x81, 0x9b, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05,
    0x2b, 0x81, 0x04, 0x00, 0x23, 0x03, 0x81, 0x86, 0x00,
];
const ED25519_PREFIX: &[u8] =
    &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const RSA_ALGORITHM: &[u8] =
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// The largest SPKI that is read: an RSA key of 8192 bits and a long exponent.
const MAX_SPKI: usize = 2048;

/// The kind of a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyKind {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// RSA with a modulus of so many bits, 2048 to 8192.
    Rsa(usize),
}

impl KeyKind {
    fn scheme(self) -> Scheme {
        match self {
            Self::P256 => Scheme::EcdsaP256Sha256,
            Self::P384 => Scheme::EcdsaP384Sha384,
            Self::P521 => Scheme::EcdsaP521Sha512,
            Self::Ed25519 => Scheme::Ed25519,
            Self::Rsa(_) => Scheme::RsaSha512,
        }
    }
}

/// How a key signs: the algorithm together with its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// ECDSA on P-256 with SHA-256, signature in DER.
    EcdsaP256Sha256,
    /// ECDSA on P-384 with SHA-384, signature in DER.
    EcdsaP384Sha384,
    /// ECDSA on P-521 with SHA-512, signature in DER.
    EcdsaP521Sha512,
    /// Pure Ed25519.
    Ed25519,
    /// RSA PKCS#1 v1.5 with SHA-256.
    RsaSha256,
    /// RSA PKCS#1 v1.5 with SHA-512.
    RsaSha512,
}

impl Scheme {
    fn algorithm(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::EcdsaP256Sha256 => &ECDSA_P256_SHA256_ASN1,
            Self::EcdsaP384Sha384 => &ECDSA_P384_SHA384_ASN1,
            Self::EcdsaP521Sha512 => &ECDSA_P521_SHA512_ASN1,
            Self::Ed25519 => &ED25519,
            Self::RsaSha256 => &RSA_PKCS1_2048_8192_SHA256,
            Self::RsaSha512 => &RSA_PKCS1_2048_8192_SHA512,
        }
    }

    fn fits(self, kind: KeyKind) -> bool {
        matches!(
            (self, kind),
            (Self::EcdsaP256Sha256, KeyKind::P256)
                | (Self::EcdsaP384Sha384, KeyKind::P384)
                | (Self::EcdsaP521Sha512, KeyKind::P521)
                | (Self::Ed25519, KeyKind::Ed25519)
                | (Self::RsaSha256 | Self::RsaSha512, KeyKind::Rsa(_))
        )
    }
}

/// A public key.
#[derive(Clone)]
pub struct PublicKey {
    spki: Vec<u8>,
    /// What the verification algorithm takes: point, 32 bytes, or PKCS#1 `RSAPublicKey`.
    raw: Vec<u8>,
    kind: KeyKind,
    /// Ready for [`Self::scheme`].
    parsed: Arc<ParsedPublicKey>,
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        // the one encoding of the one key
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

impl PublicKey {
    /// Parses a DER SubjectPublicKeyInfo; only the canonical encoding is accepted.
    ///
    /// # Errors
    /// [`StatementError::PublicKey`] for other algorithms, curves, sizes or encodings.
    pub fn from_spki(spki: &[u8]) -> Result<Self, StatementError> {
        let known = [
            (P256_PREFIX, 65, KeyKind::P256),
            (P384_PREFIX, 97, KeyKind::P384),
            (P521_PREFIX, 133, KeyKind::P521),
            (ED25519_PREFIX, 32, KeyKind::Ed25519),
        ];
        for (prefix, size, kind) in known {
            let Some(raw) = spki.strip_prefix(prefix) else { continue };
            let point = kind == KeyKind::Ed25519 || raw.first() == Some(&4);
            if raw.len() != size || !point {
                return Err(bad_key(format!("{kind:?} key of an unexpected form")));
            }
            return Self::checked(spki.to_vec(), raw.to_vec(), kind);
        }
        let (modulus, exponent) = parse_rsa(spki)
            .ok_or_else(|| bad_key("expected ecdsa p-256, p-384, p-521, ed25519 or rsa".into()))?;
        let key = Self::rsa(modulus, exponent)?;
        if key.spki == spki { Ok(key) } else { Err(bad_key("not in canonical der".into())) }
    }

    /// Parses base64 of a DER SubjectPublicKeyInfo, as the trust file holds keys.
    ///
    /// # Errors
    /// As [`Self::from_spki`].
    pub fn from_spki_base64(text: &str) -> Result<Self, StatementError> {
        let spki = BASE64_STANDARD
            .decode(text)
            .map_err(|e| bad_key(format!("not base64 of a SubjectPublicKeyInfo: {e}")))?;
        Self::from_spki(&spki)
    }

    /// An elliptic-curve key from its uncompressed point.
    pub(crate) fn ec(kind: KeyKind, point: &[u8]) -> Result<Self, StatementError> {
        let prefix = match kind {
            KeyKind::P256 => P256_PREFIX,
            KeyKind::P384 => P384_PREFIX,
            KeyKind::P521 => P521_PREFIX,
            KeyKind::Ed25519 => ED25519_PREFIX,
            KeyKind::Rsa(_) => return Err(bad_key("rsa has no point".into())),
        };
        Self::from_spki(&[prefix, point].concat())
    }

    /// An RSA key from modulus and exponent, big-endian without leading zeros.
    pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, StatementError> {
        let top = modulus.first().copied().unwrap_or(0);
        let bits = modulus.len().saturating_mul(8).saturating_sub(top.leading_zeros() as usize);
        if !(2048..=8192).contains(&bits) {
            return Err(bad_key(format!("rsa of {bits} bits, expected 2048 to 8192")));
        }
        if exponent.len() > 8 || exponent.last().is_none_or(|last| last % 2 == 0) {
            return Err(bad_key("rsa exponent is even or too large".into()));
        }
        let raw = tlv(0x30, &[uint(modulus), uint(exponent)].concat());
        let bits_string = tlv(0x03, &[&[0], raw.as_slice()].concat());
        let spki = tlv(0x30, &[RSA_ALGORITHM, bits_string.as_slice()].concat());
        Self::checked(spki, raw, KeyKind::Rsa(bits))
    }

    /// The DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Point, 32 bytes, or PKCS#1 `RSAPublicKey`.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The DER SubjectPublicKeyInfo as base64.
    pub fn spki_base64(&self) -> String {
        BASE64_STANDARD.encode(&self.spki)
    }

    /// The kind of key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// SHA-256 of the SPKI in hexadecimal: the key id in DSSE signatures.
    pub fn keyid(&self) -> String {
        Sha256::of(&self.spki).to_string()
    }

    /// SHA-256 of the SPKI in base64: the key hint in Sigstore bundles.
    pub fn hint(&self) -> String {
        BASE64_STANDARD.encode(Sha256::of(&self.spki).as_bytes())
    }

    /// The scheme this kind of key signs with, SHA-512 for RSA.
    pub fn scheme(&self) -> Scheme {
        self.kind.scheme()
    }

    /// Whether `signature` over `message` verifies.
    pub fn verifies(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> bool {
        if scheme == self.scheme() {
            return self.parsed.verify_sig(message, signature).is_ok();
        }
        scheme.fits(self.kind)
            && UnparsedPublicKey::new(scheme.algorithm(), &self.raw)
                .verify(message, signature)
                .is_ok()
    }

    /// Whether `signature` over a message with this digest verifies. False for Ed25519, which
    /// needs the message itself, and for a digest of another size than the scheme's hash.
    pub fn verifies_digest(&self, scheme: Scheme, digest: &[u8], signature: &[u8]) -> bool {
        let hash = match scheme {
            Scheme::EcdsaP256Sha256 | Scheme::RsaSha256 => &digest::SHA256,
            Scheme::EcdsaP384Sha384 => &digest::SHA384,
            Scheme::EcdsaP521Sha512 | Scheme::RsaSha512 => &digest::SHA512,
            Scheme::Ed25519 => return false,
        };
        let Ok(digest) = Digest::import_less_safe(digest, hash) else { return false };
        scheme.fits(self.kind)
            && UnparsedPublicKey::new(scheme.algorithm(), &self.raw)
                .verify_digest(&digest, signature)
                .is_ok()
    }

    /// Refuses points off the curve and the like before the key is used.
    fn checked(spki: Vec<u8>, raw: Vec<u8>, kind: KeyKind) -> Result<Self, StatementError> {
        match ParsedPublicKey::new(kind.scheme().algorithm(), &raw) {
            Ok(parsed) => Ok(Self { spki, raw, kind, parsed: Arc::new(parsed) }),
            Err(e) => Err(bad_key(format!("{kind:?} key is not valid: {e}"))),
        }
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({:?}, {})", self.kind, self.keyid())
    }
}

/// A P-256 key that signs statements. The private half is wiped on drop.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public.keyid())
    }
}

impl SigningKey {
    /// A new key, and its PKCS#8 form to be sealed.
    ///
    /// # Errors
    /// [`StatementError::Crypto`] without randomness.
    pub fn generate() -> Result<(Self, zeroize::Zeroizing<Vec<u8>>), StatementError> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .map_err(|_| StatementError::Crypto("no key could be generated"))?;
        let pkcs8 = zeroize::Zeroizing::new(document.as_ref().to_vec());
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// A key from its PKCS#8 form.
    ///
    /// # Errors
    /// [`StatementError::PrivateKey`] if it is no P-256 key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, StatementError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
            .map_err(|e| StatementError::PrivateKey(format!("not a P-256 PKCS#8 key: {e}")))?;
        let public = PublicKey::ec(KeyKind::P256, pair.public_key().as_ref())?;
        Ok(Self { pair, public })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// An ECDSA signature in DER over `message`.
    ///
    /// # Errors
    /// [`StatementError::Crypto`] without randomness.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, StatementError> {
        self.pair
            .sign(&SystemRandom::new(), message)
            .map(|s| s.as_ref().to_vec())
            .map_err(|_| StatementError::Crypto("signing failed"))
    }

    /// An ECDSA signature in DER over the message with this digest.
    ///
    /// # Errors
    /// [`StatementError::Crypto`] without randomness.
    pub fn sign_digest(&self, digest: &Sha256) -> Result<Vec<u8>, StatementError> {
        let failed = |_| StatementError::Crypto("signing failed");
        let digest =
            Digest::import_less_safe(digest.as_bytes(), &digest::SHA256).map_err(failed)?;
        self.pair.sign_digest(&digest).map(|s| s.as_ref().to_vec()).map_err(failed)
    }
}

/// ECDSA-Sig-Value (RFC 3279) of two big-endian numbers.
pub(crate) fn ecdsa_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    tlv(0x30, &[uint(r), uint(s)].concat())
}

fn bad_key(problem: String) -> StatementError {
    StatementError::PublicKey(problem)
}

/// Modulus and exponent of an RSA SPKI. Leading zeros are dropped; the caller compares encodings.
fn parse_rsa(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    if spki.len() > MAX_SPKI {
        return None;
    }
    let (body, rest) = read_tlv(0x30, spki)?;
    let bits = body.strip_prefix(RSA_ALGORITHM)?;
    let (bits, after) = read_tlv(0x03, bits)?;
    let (key, after_key) = read_tlv(0x30, bits.strip_prefix(&[0])?)?;
    let (modulus, key) = read_tlv(0x02, key)?;
    let (exponent, end) = read_tlv(0x02, key)?;
    let all_read = rest.is_empty() && after.is_empty() && after_key.is_empty() && end.is_empty();
    all_read.then(|| (trim(modulus), trim(exponent)))
}

fn read_tlv(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk::<2>()?;
    let (size, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(&a, rest)| (usize::from(a), rest))?,
        0x82 => {
            let (size, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*size)), rest)
        }
        _ => return None,
    };
    (found == tag).then_some(())?;
    rest.split_at_checked(size)
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let size = content.len();
    let mut out = vec![tag];
    match size {
        0..=0x7f => out.push(size as u8),
        0x80..=0xff => out.extend([0x81, size as u8]),
        _ => out.extend([0x82, (size >> 8) as u8, size as u8]),
    }
    out.extend_from_slice(content);
    out
}

fn uint(number: &[u8]) -> Vec<u8> {
    let number = trim(number);
    match number.first() {
        None => tlv(0x02, &[0]),
        Some(first) if first & 0x80 != 0 => tlv(0x02, &[&[0], number].concat()),
        Some(_) => tlv(0x02, number),
    }
}

fn trim(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_and_verifies_message_and_digest() {
        let (key, pkcs8) = SigningKey::generate().expect("key");
        let again = SigningKey::from_pkcs8(&pkcs8).expect("key from PKCS#8");
        assert_eq!(key.public(), again.public());
        let public = PublicKey::from_spki_base64(&key.public().spki_base64()).expect("spki");
        let signature = key.sign(b"message").expect("signature");
        assert!(public.verifies(Scheme::EcdsaP256Sha256, b"message", &signature));
        assert!(!public.verifies(Scheme::EcdsaP256Sha256, b"massage", &signature));
        let digest = Sha256::of(b"message");
        let signature = key.sign_digest(&digest).expect("signature");
        assert!(public.verifies(Scheme::EcdsaP256Sha256, b"message", &signature));
        assert!(public.verifies_digest(Scheme::EcdsaP256Sha256, digest.as_bytes(), &signature));
        assert!(!public.verifies_digest(Scheme::EcdsaP256Sha256, &[0; 32], &signature));
        assert!(!public.verifies_digest(Scheme::EcdsaP256Sha256, &[0; 31], &signature));
        assert!(!public.verifies(Scheme::Ed25519, b"message", &signature));
    }

    #[test]
    fn refuses_every_key_that_is_not_canonical() {
        let (key, _) = SigningKey::generate().expect("key");
        let spki = key.public().spki().to_vec();
        assert!(PublicKey::from_spki(&spki).is_ok());
        for at in 0..27 {
            let mut altered = spki.clone();
            altered[at] ^= 1;
            assert!(PublicKey::from_spki(&altered).is_err(), "byte {at}");
        }
        let mut off_curve = spki.clone();
        off_curve[60] ^= 1;
        assert!(PublicKey::from_spki(&off_curve).is_err(), "a point off the curve");
        assert!(PublicKey::from_spki(&[spki.as_slice(), &[0]].concat()).is_err());
        assert!(PublicKey::from_spki(&[]).is_err());
    }

    #[test]
    fn refuses_short_rsa_keys() {
        let mut modulus = vec![0xc1; 256];
        modulus[255] = 1;
        let key = PublicKey::rsa(&modulus, &[1, 0, 1]).expect("2048 bits");
        assert_eq!(key.kind(), KeyKind::Rsa(2048));
        assert_eq!(PublicKey::from_spki(key.spki()).expect("parsed"), key);
        assert!(PublicKey::rsa(&modulus[1..], &[1, 0, 1]).is_err());
        assert!(PublicKey::rsa(&modulus, &[2]).is_err());
        assert!(PublicKey::rsa(&modulus, &[]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = PublicKey::from_spki(&bytes);
            let _ = PublicKey::from_spki(&[&[0x30, 0x82, 0x01, 0x22], RSA_ALGORITHM, &bytes].concat());
        }
    }
}
