//! OpenSSH private key files (OpenSSH `PROTOCOL.key`), read strictly and wiped when done with.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ssh_key::{Cipher, Kdf};
use zeroize::Zeroizing;

use super::SshPublicKey;
use super::wire::Reader;
use crate::StatementError;

/// The largest private key file that is read, in bytes.
const MAX_SIZE: usize = 64 * 1024;
const MAGIC: &[u8] = b"openssh-key-v1\0";
const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
/// `ssh-keygen` uses 24 rounds; more than this would seem to hang.
const MAX_ROUNDS: u32 = 100_000;
/// Size of the tag of authenticated ciphers, which stands behind the private part.
const TAG: usize = 16;
const WHAT: &str = "private key";

/// A private key file, not yet decrypted.
pub(super) struct PrivateFile {
    pub(super) public: SshPublicKey,
    cipher: Cipher,
    kdf: Kdf,
    /// The private part, encrypted or not, and the tag if the cipher has one.
    body: Zeroizing<Vec<u8>>,
}

/// What signs, by kind of key.
pub(super) enum Secret {
    /// Seed of an Ed25519 key.
    Ed25519(Zeroizing<Vec<u8>>),
    /// Private number of an ECDSA key.
    Ecdsa(Zeroizing<Vec<u8>>),
    /// An RSA key.
    Rsa(Box<RsaNumbers>),
    /// The private half is in an authenticator.
    Hardware,
}

/// The numbers of an RSA key, big-endian without leading zeros.
pub(super) struct RsaNumbers {
    pub(super) n: Vec<u8>,
    pub(super) e: Vec<u8>,
    pub(super) d: Zeroizing<Vec<u8>>,
    pub(super) q_inverse: Zeroizing<Vec<u8>>,
    pub(super) p: Zeroizing<Vec<u8>>,
    pub(super) q: Zeroizing<Vec<u8>>,
}

impl PrivateFile {
    pub(super) fn parse(pem: &[u8]) -> Result<Self, StatementError> {
        let bytes = unarmor(pem).ok_or_else(|| {
            bad("not an OpenSSH private key; `ssh-keygen -p -f FILE` converts older formats")
        })?;
        let body = bytes.strip_prefix(MAGIC).ok_or_else(|| bad("not of version 1"))?;
        Self::read(&mut Reader::new(body, WHAT)).map_err(as_private)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, StatementError> {
        let name = reader.text()?;
        let cipher = Cipher::new(name)
            .ok()
            .filter(|c| c.is_none() || c.key_and_iv_size().is_some())
            .ok_or_else(|| bad(&format!("cipher {name:?} is not known")))?;
        let kdf = match (reader.text()?, reader.string()?) {
            ("none", []) => Kdf::None,
            ("bcrypt", options) => {
                let mut options = Reader::new(options, WHAT);
                let (salt, rounds) = (options.string()?.to_vec(), options.u32()?);
                options.end()?;
                if rounds > MAX_ROUNDS {
                    return Err(bad(&format!("{rounds} rounds, expected at most {MAX_ROUNDS}")));
                }
                Kdf::Bcrypt { salt, rounds }
            }
            (name, _) => return Err(bad(&format!("key derivation {name:?} is not known"))),
        };
        if cipher.is_none() != kdf.is_none() || reader.u32()? != 1 {
            return Err(bad("expected one key, encrypted or not"));
        }
        let public = SshPublicKey::from_blob(reader.string()?)?;
        let mut body = Zeroizing::new(reader.string()?.to_vec());
        if cipher.has_tag() {
            body.extend_from_slice(reader.take(TAG)?);
        }
        reader.end()?;
        Ok(Self { public, cipher, kdf, body })
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.cipher.is_some()
    }

    /// Decrypts and reads the private part.
    pub(super) fn open(mut self, passphrase: Option<&str>) -> Result<Secret, StatementError> {
        if self.is_encrypted() {
            let missing = "is encrypted, and no passphrase was given";
            self.decrypt(passphrase.ok_or(StatementError::Passphrase(missing))?)?;
        }
        let encrypted = self.is_encrypted();
        let mut reader = Reader::new(&self.body, WHAT);
        let check = (reader.u32().map_err(as_private)?, reader.u32().map_err(as_private)?);
        match (check.0 == check.1, encrypted) {
            (true, _) => {}
            (false, true) => return Err(wrong_passphrase()),
            (false, false) => return Err(bad("is damaged")),
        }
        self.read_secret(&mut reader).map_err(as_private)
    }

    fn decrypt(&mut self, passphrase: &str) -> Result<(), StatementError> {
        let (key, iv) =
            self.kdf.derive_key_and_iv(self.cipher, passphrase).map_err(|_| wrong_passphrase())?;
        let tag = match self.cipher.has_tag() {
            true => {
                let at = self.body.len().saturating_sub(TAG);
                let tag: Result<[u8; TAG], _> = self.body.split_off(at).try_into();
                Some(tag.map_err(|_| bad("is cut off"))?)
            }
            false => None,
        };
        if self.body.is_empty() || !self.body.len().is_multiple_of(self.cipher.block_size()) {
            return Err(bad("is cut off"));
        }
        self.cipher.decrypt(&key, &iv, &mut self.body, tag).map_err(|_| wrong_passphrase())
    }

    /// Reads the private part behind the two check numbers.
    fn read_secret(&self, reader: &mut Reader<'_>) -> Result<Secret, StatementError> {
        let algorithm = self.public.algorithm();
        if reader.text()? != algorithm {
            return Err(bad("public and private part are of different types"));
        }
        let secret = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
        let read = match algorithm {
            "ssh-ed25519" => {
                let public = reader.string()?;
                match reader.string()?.split_at_checked(32) {
                    Some((seed, rest)) if rest == public => Secret::Ed25519(secret(seed)),
                    _ => return Err(bad("expected an ed25519 seed and its public key")),
                }
            }
            "ssh-rsa" => {
                let (n, e) = (reader.mpint()?.to_vec(), reader.mpint()?.to_vec());
                let (d, q_inverse) = (secret(reader.mpint()?), secret(reader.mpint()?));
                let (p, q) = (secret(reader.mpint()?), secret(reader.mpint()?));
                Secret::Rsa(Box::new(RsaNumbers { n, e, d, q_inverse, p, q }))
            }
            name if name.starts_with("ecdsa-") => {
                reader.string()?;
                reader.string()?;
                Secret::Ecdsa(secret(reader.mpint()?))
            }
            _ => return Ok(Secret::Hardware),
        };
        reader.string()?; // the comment
        let padding = reader.rest();
        let counts = padding.iter().zip(1u8..).all(|(byte, count)| *byte == count);
        if counts && padding.len() < 256 { Ok(read) } else { Err(bad("is damaged at its end")) }
    }
}

fn unarmor(pem: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if pem.len() > MAX_SIZE {
        return None;
    }
    let mut lines = std::str::from_utf8(pem).ok()?.trim().lines().map(str::trim_end);
    if lines.next() != Some(BEGIN) || lines.next_back() != Some(END) {
        return None;
    }
    let body = Zeroizing::new(lines.collect::<String>());
    BASE64_STANDARD.decode(body.as_bytes()).ok().map(Zeroizing::new)
}

fn bad(problem: &str) -> StatementError {
    StatementError::PrivateKey(problem.into())
}

fn wrong_passphrase() -> StatementError {
    StatementError::Passphrase("does not open with this passphrase")
}

/// Problems of reading fields, said of the private key.
fn as_private(error: StatementError) -> StatementError {
    match error {
        StatementError::Ssh { problem, .. } => StatementError::PrivateKey(problem),
        other => other,
    }
}
