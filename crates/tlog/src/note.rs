//! C2SP signed-note: text that several keys sign, each signature on a line of its own.
//!
//! Two kinds of keys: a log's Ed25519 key signs the text as it is, a witness's cosignature/v1 key
//! (C2SP tlog-cosignature) signs it together with the time at which it saw the text.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_spec::Sha256;

use crate::error::TlogError;

/// What a signature line begins with: an em dash and a space.
const LINE_PREFIX: &str = "\u{2014} ";
/// The largest note that is read.
pub const MAX_NOTE: usize = 64 * 1024;
/// The most signatures that are read.
const MAX_SIGNATURES: usize = 100;
const TYPE_ED25519: u8 = 1;
const TYPE_COSIGNATURE: u8 = 4;

/// What a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyType {
    /// The text itself, Ed25519: a log's key.
    Ed25519,
    /// The text and a time, Ed25519: a witness's key.
    CosignatureV1,
}

/// A public key with its name: `name+hash+base64` in text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VerifierKey {
    name: String,
    key_type: KeyType,
    public: [u8; 32],
}

impl VerifierKey {
    /// A log's key from its name and its 32 raw bytes.
    ///
    /// # Errors
    /// [`TlogError::Key`] for a name that a note can not carry.
    pub fn ed25519(name: &str, public: [u8; 32]) -> Result<Self, TlogError> {
        check_name(name)?;
        Ok(Self { name: name.into(), key_type: KeyType::Ed25519, public })
    }

    /// The name of the key: for a log's key, the log's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the key signs.
    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The 32 bytes of the Ed25519 public key.
    pub const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// SHA-256 over name and key, the log identifier of Rekor v2.
    pub fn full_id(&self) -> Sha256 {
        Sha256::of(&[self.name.as_bytes(), b"\n", &self.typed()].concat())
    }

    /// The first four bytes of [`Self::full_id`], which stand before each signature.
    pub fn id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.full_id().0;
        [a, b, c, d]
    }

    fn typed(&self) -> Vec<u8> {
        let kind = match self.key_type {
            KeyType::Ed25519 => TYPE_ED25519,
            KeyType::CosignatureV1 => TYPE_COSIGNATURE,
        };
        [&[kind][..], &self.public].concat()
    }

    /// Name and identifier, for messages.
    fn label(&self) -> String {
        format!("{}+{}", self.name, hex::encode(self.id()))
    }

    /// Checks one signature over `text`; the time, if the key signs one.
    fn verify(&self, text: &str, signature: &[u8]) -> Result<Option<u64>, TlogError> {
        let key = UnparsedPublicKey::new(&ED25519, &self.public);
        let refused = |_| TlogError::Signature(self.label());
        match self.key_type {
            KeyType::Ed25519 => {
                key.verify(text.as_bytes(), signature).map_err(refused)?;
                Ok(None)
            }
            KeyType::CosignatureV1 => {
                let Some((time, signature)) = signature.split_first_chunk() else {
                    return Err(TlogError::Signature(self.label()));
                };
                let time = u64::from_be_bytes(*time);
                let message = format!("cosignature/v1\ntime {time}\n{text}");
                key.verify(message.as_bytes(), signature).map_err(refused)?;
                Ok(Some(time))
            }
        }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.label(), BASE64_STANDARD.encode(self.typed()))
    }
}

impl FromStr for VerifierKey {
    type Err = TlogError;

    fn from_str(text: &str) -> Result<Self, TlogError> {
        let wrong = |reason: &str| {
            let text: String = text.chars().take(160).collect();
            TlogError::Key(format!("{text:?} {reason}"))
        };
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("is not of the form name+hash+base64"));
        };
        check_name(name)?;
        let key =
            BASE64_STANDARD.decode(key).map_err(|_| wrong("has no base64 in its third part"))?;
        let (key_type, public) = match key.split_first() {
            Some((&TYPE_ED25519, public)) => (KeyType::Ed25519, public),
            Some((&TYPE_COSIGNATURE, public)) => (KeyType::CosignatureV1, public),
            _ => return Err(wrong("is neither an Ed25519 (1) nor a cosignature/v1 (4) key")),
        };
        let public = public.try_into().map_err(|_| wrong("does not hold a key of 32 bytes"))?;
        let key = Self { name: name.into(), key_type, public };
        if hex::encode(key.id()) != id {
            return Err(wrong("has a hash that is not that of its name and key"));
        }
        Ok(key)
    }
}

/// A log's private key. It never leaves this type.
pub struct Signer {
    pair: Ed25519KeyPair,
    key: VerifierKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("key", &self.key.to_string()).finish_non_exhaustive()
    }
}

impl Signer {
    /// The key of the log `name` from a seed of 32 random bytes (RFC 8032).
    ///
    /// # Errors
    /// [`TlogError::Key`] for a name that a note can not carry.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, TlogError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|_| TlogError::Key(format!("of {name:?} can not be made from its seed")))?;
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Ok(Self { key: VerifierKey::ed25519(name, public)?, pair })
    }

    /// The public half.
    pub const fn verifier(&self) -> &VerifierKey {
        &self.key
    }

    /// The note: `text`, which ends in a newline, and this key's signature.
    ///
    /// # Errors
    /// [`TlogError::Note`] for text that a note can not carry, [`TlogError::Signing`].
    pub fn sign(&self, text: &str) -> Result<String, TlogError> {
        check_text(text)?;
        let signature = self.pair.try_sign(text.as_bytes()).map_err(|_| TlogError::Signing)?;
        let blob = [&self.key.id()[..], signature.as_ref()].concat();
        let blob = BASE64_STANDARD.encode(blob);
        Ok(format!("{text}\n{LINE_PREFIX}{} {blob}\n", self.key.name))
    }
}

/// A note, read but not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note<'a> {
    text: &'a str,
    signatures: Vec<Signature<'a>>,
}

/// One line below a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature<'a> {
    /// The name of the key, as the line claims.
    pub name: &'a str,
    /// The identifier of the key, as the line claims.
    pub id: [u8; 4],
    /// What the key made of the text.
    bytes: Vec<u8>,
}

impl<'a> Note<'a> {
    /// Reads a signed note. Nothing in it is to be believed yet.
    ///
    /// # Errors
    /// [`TlogError::Note`].
    pub fn parse(note: &'a str) -> Result<Self, TlogError> {
        let wrong = |reason: &str| Err(TlogError::Note(reason.into()));
        if note.len() > MAX_NOTE {
            return wrong("is longer than 64 KiB");
        }
        let Some(blank) = note.rfind("\n\n") else {
            return wrong("has no blank line between its text and its signatures");
        };
        let (text, lines) = (&note[..=blank], &note[blank + 2..]);
        check_text(text)?;
        let Some(lines) = lines.strip_suffix('\n') else {
            return wrong("does not end in a signature line with a newline");
        };
        let signatures = lines.split('\n').map(parse_line).collect::<Result<Vec<_>, _>>()?;
        if signatures.len() > MAX_SIGNATURES {
            return wrong("has more than 100 signatures");
        }
        Ok(Self { text, signatures })
    }

    /// The text, as the key verified it; the time, if the key signs one.
    ///
    /// # Errors
    /// [`TlogError::Unsigned`] if there is no signature by `key`, [`TlogError::Signature`] if there
    /// is one and it does not verify.
    pub fn verify(&self, key: &VerifierKey) -> Result<(&'a str, Option<u64>), TlogError> {
        let id = key.id();
        let by_key = |signature: &&Signature| signature.name == key.name && signature.id == id;
        let Some(signature) = self.signatures.iter().find(by_key) else {
            let found = self.signatures.iter().map(|s| format!("{}+{}", s.name, hex::encode(s.id)));
            let found = found.take(4).collect::<Vec<_>>().join(", ");
            return Err(TlogError::Unsigned { expected: key.label(), found });
        };
        let time = key.verify(self.text, &signature.bytes)?;
        Ok((self.text, time))
    }

    /// Who claims to have signed.
    pub fn signatures(&self) -> &[Signature<'a>] {
        &self.signatures
    }

    /// The text before anything was verified.
    pub const fn unverified_text(&self) -> &'a str {
        self.text
    }
}

fn parse_line(line: &str) -> Result<Signature<'_>, TlogError> {
    let parse = || {
        let (name, blob) = line.strip_prefix(LINE_PREFIX)?.split_once(' ')?;
        check_name(name).ok()?;
        let blob = BASE64_STANDARD.decode(blob).ok()?;
        let (id, bytes) = blob.split_first_chunk()?;
        (!bytes.is_empty()).then(|| Signature { name, id: *id, bytes: bytes.to_vec() })
    };
    parse().ok_or_else(|| {
        let line: String = line.chars().take(80).collect();
        TlogError::Note(format!("has a line {line:?} which is no signature"))
    })
}

/// A note's text: ends in a newline, has no other control characters.
fn check_text(text: &str) -> Result<(), TlogError> {
    if !text.ends_with('\n') {
        return Err(TlogError::Note("has a text that does not end in a newline".into()));
    }
    match text.chars().find(|c| c.is_ascii_control() && *c != '\n') {
        Some(c) => Err(TlogError::Note(format!("has the control character {c:?} in its text"))),
        None => Ok(()),
    }
}

/// A key's name: not empty, no white space, no plus sign.
fn check_name(name: &str) -> Result<(), TlogError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.len() > 255 || name.contains(bad) {
        let name: String = name.chars().take(80).collect();
        return Err(TlogError::Key(format!(
            "name {name:?} is empty, longer than 255 bytes, or has white space or a plus sign"
        )));
    }
    Ok(())
}
