//! People's signatures: SSHSIG, as `ssh-keygen -Y sign` makes them
//! (OpenSSH `PROTOCOL.sshsig`, FIDO keys by `PROTOCOL.u2f`).
//!
//! The parser is strict: one encoding for one signature. Accepted are Ed25519, ECDSA on P-256,
//! P-384 and P-521, RSA of 2048 bits and more with SHA-2, and FIDO `sk-` keys.
//! Certificates, DSA and SHA-1 are not.

use aws_lc_rs::digest;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, Engine as _};
use casemate_spec::Sha256;

use crate::StatementError;
use crate::key::{KeyKind, PublicKey, Scheme, ecdsa_signature};
use crate::rekor::HashedRekord;

mod private;
mod sign;
mod wire;

pub use sign::{is_encrypted, public_key_of, sign};
use wire::{Reader, put};

/// The largest armored signature that is read, in bytes.
pub const MAX_SIZE: usize = 32 * 1024;

const MAGIC: &[u8] = b"SSHSIG";
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
/// `ssh-keygen` breaks the armor after this many characters.
const ARMOR_WIDTH: usize = 70;
const USER_PRESENT: u8 = 1;
const VERSION: u32 = 1;

/// An OpenSSH public key.
#[derive(Clone, PartialEq, Eq)]
pub struct SshPublicKey {
    blob: Vec<u8>,
    algorithm: &'static str,
    key: PublicKey,
    /// The FIDO application of an `sk-` key.
    application: Option<String>,
}

impl SshPublicKey {
    /// Parses a line of a `.pub` file: type, base64, and a comment that is ignored.
    ///
    /// # Errors
    /// [`StatementError::Ssh`] or [`StatementError::PublicKey`].
    pub fn parse(line: &str) -> Result<Self, StatementError> {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(body)) = (words.next(), words.next()) else {
            return Err(bad_key("expected a type and base64".into()));
        };
        if body.len() > MAX_SIZE {
            return Err(bad_key(format!("longer than {MAX_SIZE} characters")));
        }
        let blob = BASE64_STANDARD.decode(body).map_err(|e| bad_key(format!("not base64: {e}")))?;
        let key = Self::from_blob(&blob)?;
        if key.algorithm != name {
            return Err(bad_key(format!("says {name:?}, is {:?}", key.algorithm)));
        }
        Ok(key)
    }

    /// Parses the binary form of a key.
    ///
    /// # Errors
    /// [`StatementError::Ssh`] or [`StatementError::PublicKey`].
    pub fn from_blob(blob: &[u8]) -> Result<Self, StatementError> {
        let mut reader = Reader::new(blob, "ssh key");
        let name = reader.text()?;
        let (algorithm, key, application) = match name {
            "ssh-ed25519" => {
                ("ssh-ed25519", PublicKey::ec(KeyKind::Ed25519, reader.string()?)?, None)
            }
            "ecdsa-sha2-nistp256" => ("ecdsa-sha2-nistp256", reader.ecdsa(KeyKind::P256)?, None),
            "ecdsa-sha2-nistp384" => ("ecdsa-sha2-nistp384", reader.ecdsa(KeyKind::P384)?, None),
            "ecdsa-sha2-nistp521" => ("ecdsa-sha2-nistp521", reader.ecdsa(KeyKind::P521)?, None),
            "ssh-rsa" => {
                let exponent = reader.mpint()?;
                ("ssh-rsa", PublicKey::rsa(reader.mpint()?, exponent)?, None)
            }
            "sk-ssh-ed25519@openssh.com" => {
                let key = PublicKey::ec(KeyKind::Ed25519, reader.string()?)?;
                ("sk-ssh-ed25519@openssh.com", key, Some(reader.text()?.to_owned()))
            }
            "sk-ecdsa-sha2-nistp256@openssh.com" => {
                let key = reader.ecdsa(KeyKind::P256)?;
                ("sk-ecdsa-sha2-nistp256@openssh.com", key, Some(reader.text()?.to_owned()))
            }
            other => return Err(bad_key(format!("type {other:?} is not accepted"))),
        };
        reader.end()?;
        Ok(Self { blob: blob.to_vec(), algorithm, key, application })
    }

    /// Type and base64, without comment, as the trust file holds keys.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.algorithm, BASE64_STANDARD.encode(&self.blob))
    }

    /// `SHA256:` and the digest of the key, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", BASE64_STANDARD_NO_PAD.encode(Sha256::of(&self.blob).as_bytes()))
    }

    /// The type, such as `ssh-ed25519`.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// The binary form.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The key inside.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether the private half is in a FIDO authenticator.
    pub fn is_hardware(&self) -> bool {
        self.application.is_some()
    }
}

impl std::fmt::Debug for SshPublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SshPublicKey({} {})", self.algorithm, self.fingerprint())
    }
}

/// A parsed SSH signature. Nothing is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSignature {
    blob: Vec<u8>,
    key: SshPublicKey,
    namespace: String,
    hash: Hash,
    scheme: Scheme,
    /// ECDSA in DER, RSA padded to the modulus.
    signature: Vec<u8>,
    /// Flags and counter of a FIDO authenticator.
    authenticator: Option<(u8, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha512,
}

impl SshSignature {
    /// Parses an armored signature.
    ///
    /// # Errors
    /// [`StatementError::Ssh`] or [`StatementError::PublicKey`].
    pub fn parse(armored: &str) -> Result<Self, StatementError> {
        if armored.len() > MAX_SIZE {
            return Err(bad_signature(format!("longer than {MAX_SIZE} characters")));
        }
        let mut lines = armored.trim().lines().map(str::trim_end);
        if lines.next() != Some(BEGIN) || lines.next_back() != Some(END) {
            return Err(bad_signature(format!("expected {BEGIN} … {END}")));
        }
        let body: String = lines.collect();
        let blob = BASE64_STANDARD
            .decode(body)
            .map_err(|e| bad_signature(format!("armor is not base64: {e}")))?;
        Self::from_blob(&blob)
    }

    /// Parses the binary form of a signature.
    ///
    /// # Errors
    /// [`StatementError::Ssh`] or [`StatementError::PublicKey`].
    pub fn from_blob(blob: &[u8]) -> Result<Self, StatementError> {
        let Some(body) = blob.strip_prefix(MAGIC) else {
            return Err(bad_signature("does not begin with SSHSIG".into()));
        };
        let mut reader = Reader::new(body, "ssh signature");
        let version = reader.u32()?;
        if version != VERSION {
            return Err(bad_signature(format!("version {version}, expected {VERSION}")));
        }
        let key = SshPublicKey::from_blob(reader.string()?)?;
        let namespace = reader.text()?.to_owned();
        if namespace.is_empty() {
            return Err(bad_signature("namespace is empty".into()));
        }
        if !reader.string()?.is_empty() {
            return Err(bad_signature("reserved field is in use".into()));
        }
        let hash = match reader.text()? {
            "sha256" => Hash::Sha256,
            "sha512" => Hash::Sha512,
            other => return Err(bad_signature(format!("hash {other:?} is not accepted"))),
        };
        let raw = reader.string()?;
        reader.end()?;
        let (scheme, signature, authenticator) = parse_raw(raw, &key)?;
        Ok(Self { blob: blob.to_vec(), key, namespace, hash, scheme, signature, authenticator })
    }

    /// The armored form, as `ssh-keygen` prints it.
    pub fn to_armored(&self) -> String {
        let body = BASE64_STANDARD.encode(&self.blob);
        let mut out = format!("{BEGIN}\n");
        for line in body.as_bytes().chunks(ARMOR_WIDTH) {
            // base64 is ASCII, so a cut is never inside a character
            out.push_str(&String::from_utf8_lossy(line));
            out.push('\n');
        }
        out + END + "\n"
    }

    /// SHA-256 of the binary form.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&self.blob)
    }

    /// The key that claims to have signed.
    pub fn key(&self) -> &SshPublicKey {
        &self.key
    }

    /// What the signature is for.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Checks that [`Self::key`] signed `message` for `namespace`, and that a security key was
    /// touched for it: what is asked of approvers.
    ///
    /// # Errors
    /// [`StatementError::UserPresence`], or as [`Self::verify`].
    pub fn verify_deliberate(&self, namespace: &str, message: &[u8]) -> Result<(), StatementError> {
        self.verify(namespace, message)?;
        match self.authenticator {
            Some((flags, _)) if flags & USER_PRESENT == 0 => {
                Err(StatementError::UserPresence { flags })
            }
            _ => Ok(()),
        }
    }

    /// Checks that [`Self::key`] signed `message` for `namespace`. As for `ssh-keygen`, a security
    /// key may be one that signs without a touch; commits are often signed so.
    ///
    /// # Errors
    /// [`StatementError::Namespace`] or [`StatementError::Signature`].
    pub fn verify(&self, namespace: &str, message: &[u8]) -> Result<(), StatementError> {
        if self.namespace != namespace {
            return Err(StatementError::Namespace {
                expected: namespace.into(),
                found: self.namespace.chars().take(100).collect(),
            });
        }
        if self.key.key.verifies(self.scheme, &self.covered(message), &self.signature) {
            return Ok(());
        }
        Err(StatementError::Signature { what: "ssh signature", key: self.key.fingerprint() })
    }

    /// The bytes that the raw signature over `message` covers: what the log entry is about.
    pub fn covered(&self, message: &[u8]) -> Vec<u8> {
        let signed = signed_data(&self.namespace, self.hash, message);
        let (Some(application), Some((flags, counter))) =
            (&self.key.application, self.authenticator)
        else {
            return signed;
        };
        let mut covered = Sha256::of(application.as_bytes()).as_bytes().to_vec();
        covered.push(flags);
        covered.extend_from_slice(&counter.to_be_bytes());
        covered.extend_from_slice(Sha256::of(&signed).as_bytes());
        covered
    }

    /// The log entry of this signature over `message`.
    pub fn record(&self, message: &[u8]) -> HashedRekord {
        let (signature, key) = (self.signature.clone(), self.key.key.clone());
        HashedRekord::new(&self.covered(message), signature, key, self.scheme)
    }
}

impl Hash {
    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// What a key signs, and what a FIDO authenticator is given to sign.
fn signed_data(namespace: &str, hash: Hash, message: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha512 => &digest::SHA512,
    };
    let mut signed = MAGIC.to_vec();
    put(&mut signed, namespace.as_bytes());
    put(&mut signed, &[]);
    put(&mut signed, hash.name().as_bytes());
    put(&mut signed, digest::digest(algorithm, message).as_ref());
    signed
}

type Raw = (Scheme, Vec<u8>, Option<(u8, u32)>);

/// Reads the innermost signature of a kind that `key` makes.
fn parse_raw(raw: &[u8], key: &SshPublicKey) -> Result<Raw, StatementError> {
    let mut reader = Reader::new(raw, "ssh signature");
    let algorithm = reader.text()?;
    let scheme = match (key.algorithm, algorithm) {
        ("ssh-rsa", "rsa-sha2-256") => Scheme::RsaSha256,
        ("ssh-rsa", "rsa-sha2-512") => Scheme::RsaSha512,
        (expected, found) if expected == found && found != "ssh-rsa" => key.key.scheme(),
        (expected, found) => {
            return Err(bad_signature(format!(
                "algorithm {found:?} for a key of type {expected:?}"
            )));
        }
    };
    let bytes = reader.string()?;
    let authenticator = match key.is_hardware() {
        true => Some((reader.u8()?, reader.u32()?)),
        false => None,
    };
    reader.end()?;
    let signature = match key.key.kind() {
        KeyKind::Ed25519 => bytes.to_vec(),
        KeyKind::Rsa(bits) => pad(bytes, bits.div_ceil(8))?,
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
            let mut numbers = Reader::new(bytes, "ssh signature");
            let (r, s) = (numbers.mpint()?, numbers.mpint()?);
            numbers.end()?;
            if r.len() > 66 || s.len() > 66 {
                return Err(bad_signature("ecdsa numbers are too large".into()));
            }
            ecdsa_signature(r, s)
        }
    };
    Ok((scheme, signature, authenticator))
}

/// An RSA signature at the size of the modulus; some signers drop leading zeros.
fn pad(bytes: &[u8], size: usize) -> Result<Vec<u8>, StatementError> {
    let Some(missing) = size.checked_sub(bytes.len()) else {
        return Err(bad_signature(format!("{} bytes from an rsa key of {size}", bytes.len())));
    };
    let mut out = vec![0; missing];
    out.extend_from_slice(bytes);
    Ok(out)
}

fn bad_key(problem: String) -> StatementError {
    StatementError::Ssh { what: "ssh key", problem }
}

fn bad_signature(problem: String) -> StatementError {
    StatementError::Ssh { what: "ssh signature", problem }
}

#[cfg(test)]
mod tests;
