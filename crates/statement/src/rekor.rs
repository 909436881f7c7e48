//! What is in the log: Rekor v2 `hashedrekord` 0.0.2 entries and their inclusion proofs.
//!
//! One kind of leaf serves all. For a DSSE envelope the hashed bytes are its pre-authentication
//! encoding; for an SSH signature they are the bytes that the raw signature covers
//! ([`crate::sshsig::SshSignature::covered`]). Either way a leaf alone tells which key signed which
//! digest, and whoever has the bytes can verify it.

use casemate_spec::Sha256;
use casemate_tlog::note::VerifierKey;
use casemate_tlog::{Checkpoint, merkle};
use serde::{Deserialize, Serialize};

use crate::StatementError;
use crate::dsse::Envelope;
use crate::intoto::check_type;
use crate::json::{self, Base64, number};
use crate::key::{KeyKind, PublicKey, Scheme};

/// The largest leaf (C2SP tlog-tiles), in bytes.
pub const MAX_LEAF: usize = 65_535;

const KIND: &str = "hashedrekord";
const VERSION: &str = "0.0.2";

/// One entry of the log: a key signed a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashedRekord {
    /// The digest of the signed bytes.
    pub digest: DataDigest,
    /// The signature; ECDSA in DER.
    pub signature: Vec<u8>,
    /// Who signed.
    pub verifier: Verifier,
}

/// A digest with its algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataDigest {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-384.
    Sha384(casemate_spec::Sha384),
    /// SHA-512.
    Sha512([u8; 64]),
}

/// Who signed an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verifier {
    /// A bare key.
    Key {
        /// The key.
        key: PublicKey,
        /// How it signed.
        scheme: Scheme,
    },
    /// A certificate, as other Sigstore clients log them. Read, never trusted here.
    Certificate {
        /// The certificate (DER).
        der: Vec<u8>,
        /// The key details as the entry has them.
        details: String,
    },
}

impl HashedRekord {
    /// The entry for `signature` by `key` over `message`.
    pub fn new(message: &[u8], signature: Vec<u8>, key: PublicKey, scheme: Scheme) -> Self {
        let digest = DataDigest::of(scheme, message);
        Self { digest, signature, verifier: Verifier::Key { key, scheme } }
    }

    /// The entry for a P-256 signature over bytes of which only the digest is at hand.
    pub fn of_digest(digest: Sha256, signature: Vec<u8>, key: PublicKey) -> Self {
        let verifier = Verifier::Key { scheme: key.scheme(), key };
        Self { digest: DataDigest::Sha256(digest), signature, verifier }
    }

    /// The entry for an envelope signed by `key`.
    ///
    /// # Errors
    /// [`StatementError::Count`] unless the envelope has exactly one signature.
    pub fn of_dsse(envelope: &Envelope, key: &PublicKey) -> Result<Self, StatementError> {
        let signature = envelope.signature()?.sig.0.clone();
        Ok(Self::new(&envelope.pae(), signature, key.clone(), key.scheme()))
    }

    /// The leaf: canonical JSON (RFC 8785).
    ///
    /// # Errors
    /// Never in practice: an entry holds text only.
    pub fn to_leaf(&self) -> Result<Vec<u8>, StatementError> {
        json::canonical(&Raw::from(self))
    }

    /// Reads a leaf; only the canonical encoding is accepted.
    ///
    /// # Errors
    /// [`StatementError::Syntax`], [`StatementError::Leaf`] and what the key parser says.
    pub fn parse(leaf: &[u8]) -> Result<Self, StatementError> {
        let raw: Raw = json::from_slice(leaf, "log leaf", MAX_LEAF)?;
        let entry = Self::try_from(raw)?;
        if entry.to_leaf()? != leaf {
            return Err(StatementError::Leaf("not in canonical form (rfc 8785)".into()));
        }
        Ok(entry)
    }

    /// Checks the signature over the bytes themselves.
    ///
    /// # Errors
    /// [`StatementError::Entry`] if they have another digest, [`StatementError::Signature`] if the
    /// signature does not verify, [`StatementError::Leaf`] for an entry with a certificate.
    pub fn verify(&self, message: &[u8]) -> Result<(), StatementError> {
        let (key, scheme) = self.key()?;
        let found = DataDigest::of(scheme, message);
        if found != self.digest {
            return Err(entry("digest", &self.digest, &found));
        }
        if key.verifies(scheme, message, &self.signature) {
            Ok(())
        } else {
            Err(StatementError::Signature { what: "log entry", key: key.keyid() })
        }
    }

    /// Checks the signature by the digest in the entry. Not possible for Ed25519, which signs the
    /// bytes themselves: such entries are refused here.
    ///
    /// # Errors
    /// [`StatementError::Signature`] or [`StatementError::Leaf`].
    pub fn verify_digest(&self) -> Result<(), StatementError> {
        let (key, scheme) = self.key()?;
        if scheme == Scheme::Ed25519 {
            return Err(StatementError::Leaf(
                "ed25519 needs the signed bytes, not a digest".into(),
            ));
        }
        if key.verifies_digest(scheme, self.digest.bytes(), &self.signature) {
            Ok(())
        } else {
            Err(StatementError::Signature { what: "log entry", key: key.keyid() })
        }
    }

    fn key(&self) -> Result<(&PublicKey, Scheme), StatementError> {
        match &self.verifier {
            Verifier::Key { key, scheme } => Ok((key, *scheme)),
            Verifier::Certificate { .. } => {
                Err(StatementError::Leaf("holds a certificate, expected a key".into()))
            }
        }
    }
}

impl DataDigest {
    /// The digest of `message` by the hash of `scheme`, SHA-256 for Ed25519.
    pub fn of(scheme: Scheme, message: &[u8]) -> Self {
        match scheme {
            Scheme::EcdsaP256Sha256 | Scheme::RsaSha256 | Scheme::Ed25519 => {
                Self::Sha256(Sha256::of(message))
            }
            Scheme::EcdsaP384Sha384 => Self::Sha384(casemate_spec::Sha384::of(message)),
            Scheme::EcdsaP521Sha512 | Scheme::RsaSha512 => {
                let mut out = [0; 64];
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, message);
                out.copy_from_slice(digest.as_ref());
                Self::Sha512(out)
            }
        }
    }

    /// The digest.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(d) => d.as_bytes(),
            Self::Sha384(d) => d.as_bytes(),
            Self::Sha512(d) => d,
        }
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA2_256",
            Self::Sha384(_) => "SHA2_384",
            Self::Sha512(_) => "SHA2_512",
        }
    }

    fn parse(algorithm: &str, bytes: Vec<u8>) -> Result<Self, StatementError> {
        let size = bytes.len();
        let parsed = match algorithm {
            "SHA2_256" => bytes.try_into().ok().map(|b| Self::Sha256(Sha256(b))),
            "SHA2_384" => bytes.try_into().ok().map(|b| Self::Sha384(casemate_spec::Sha384(b))),
            "SHA2_512" => bytes.try_into().ok().map(Self::Sha512),
            _ => None,
        };
        let wrong = || StatementError::Leaf(format!("digest of {size} bytes is no {algorithm:?}"));
        parsed.ok_or_else(wrong)
    }
}

impl std::fmt::Display for DataDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.algorithm(), hex::encode(self.bytes()))
    }
}

/// The name of key and scheme, from Sigstore's `PublicKeyDetails`. RSA with SHA-512 and unusual RSA
/// sizes have no name there; theirs is formed in the same way.
fn key_details(kind: KeyKind, scheme: Scheme) -> String {
    let bits = if let KeyKind::Rsa(bits) = kind { bits } else { 0 };
    match scheme {
        Scheme::EcdsaP256Sha256 => "PKIX_ECDSA_P256_SHA_256".into(),
        Scheme::EcdsaP384Sha384 => "PKIX_ECDSA_P384_SHA_384".into(),
        Scheme::EcdsaP521Sha512 => "PKIX_ECDSA_P521_SHA_512".into(),
        Scheme::Ed25519 => "PKIX_ED25519".into(),
        Scheme::RsaSha256 => format!("PKIX_RSA_PKCS1V15_{bits}_SHA256"),
        Scheme::RsaSha512 => format!("PKIX_RSA_PKCS1V15_{bits}_SHA512"),
    }
}

/// An entry with the proof that it is in the log (Sigstore `TransparencyLogEntry`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LogEntry {
    /// Position in the log.
    #[serde(with = "number")]
    pub log_index: u64,
    /// Which log.
    pub log_id: LogId,
    /// Always `hashedrekord` `0.0.2`.
    pub kind_version: KindVersion,
    /// Always 0: a Rekor v2 log vouches for no time.
    #[serde(default, with = "number")]
    pub integrated_time: u64,
    /// The proof.
    pub inclusion_proof: InclusionProof,
    /// The leaf.
    pub canonicalized_body: Base64,
}

/// Names a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LogId {
    /// SHA-256 over the log's name and key ([`VerifierKey::full_id`]).
    pub key_id: Base64,
}

/// Kind and version of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindVersion {
    /// The kind.
    pub kind: String,
    /// The version.
    pub version: String,
}

/// A Merkle inclusion proof (RFC 9162) and the checkpoint that signs its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct InclusionProof {
    /// Position in the tree.
    #[serde(with = "number")]
    pub log_index: u64,
    /// Root of the tree.
    pub root_hash: Base64,
    /// Size of the tree.
    #[serde(with = "number")]
    pub tree_size: u64,
    /// Hashes from the leaf to the root. Always present, empty in a tree of one leaf.
    pub hashes: Vec<Base64>,
    /// The signed root.
    pub checkpoint: SignedCheckpoint,
}

/// A signed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedCheckpoint {
    /// The signed note.
    pub envelope: String,
}

/// A verified position in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Position.
    pub index: u64,
    /// Size of the log when the proof was made.
    pub size: u64,
    /// The entry.
    pub record: HashedRekord,
}

impl LogEntry {
    /// The entry for `leaf` at `index` in the log of `size` leaves under `root`. `checkpoint` is the
    /// signed note. Nothing is verified.
    pub fn new(
        log: &VerifierKey,
        index: u64,
        leaf: Vec<u8>,
        (size, root): (u64, &Sha256),
        hashes: &[Sha256],
        checkpoint: String,
    ) -> Self {
        Self {
            log_index: index,
            log_id: LogId { key_id: log.full_id().as_bytes().to_vec().into() },
            kind_version: KindVersion { kind: KIND.into(), version: VERSION.into() },
            integrated_time: 0,
            inclusion_proof: InclusionProof {
                log_index: index,
                root_hash: root.as_bytes().to_vec().into(),
                tree_size: size,
                hashes: hashes.iter().map(|h| h.as_bytes().to_vec().into()).collect(),
                checkpoint: SignedCheckpoint { envelope: checkpoint },
            },
            canonicalized_body: leaf.into(),
        }
    }

    /// The entry, once its inclusion in the log with this key is proved.
    ///
    /// # Errors
    /// The first thing that is wrong: log, kind, leaf, position, checkpoint, proof.
    pub fn verify(&self, log: &VerifierKey) -> Result<Logged, StatementError> {
        let proof = &self.inclusion_proof;
        if *self.log_id.key_id != log.full_id().0 {
            let found = hex::encode(&*self.log_id.key_id);
            return Err(entry("logId", &log.full_id(), &found));
        }
        check_type("log entry kind", KIND, &self.kind_version.kind)?;
        check_type("log entry version", VERSION, &self.kind_version.version)?;
        if self.integrated_time != 0 {
            return Err(entry("integratedTime", &0, &self.integrated_time));
        }
        let record = HashedRekord::parse(&self.canonicalized_body)?;
        if proof.log_index != self.log_index {
            return Err(entry("inclusionProof.logIndex", &self.log_index, &proof.log_index));
        }
        let refused = |e: casemate_tlog::TlogError| StatementError::Inclusion(e.to_string());
        let checkpoint = Checkpoint::open(&proof.checkpoint.envelope, log).map_err(refused)?;
        if checkpoint.size != proof.tree_size {
            return Err(entry("inclusionProof.treeSize", &checkpoint.size, &proof.tree_size));
        }
        if *proof.root_hash != checkpoint.root.0 {
            let found = hex::encode(&*proof.root_hash);
            return Err(entry("inclusionProof.rootHash", &checkpoint.root, &found));
        }
        let hashes = proof.hashes.iter().map(|h| <[u8; 32]>::try_from(&**h).ok().map(Sha256));
        let hashes: Option<Vec<Sha256>> = hashes.collect();
        let hashes = hashes.ok_or(StatementError::Inclusion("a hash is not 32 bytes".into()))?;
        let leaf = merkle::leaf_hash(&self.canonicalized_body);
        let (index, size) = (self.log_index, checkpoint.size);
        merkle::verify_inclusion(index, size, &leaf, &hashes, &checkpoint.root).map_err(refused)?;
        Ok(Logged { index, size, record })
    }

    /// As [`Self::verify`], and the entry must be `expected`.
    ///
    /// # Errors
    /// As [`Self::verify`]; [`StatementError::Entry`] if the entry is another one.
    pub fn verify_record(
        &self,
        log: &VerifierKey,
        expected: &HashedRekord,
    ) -> Result<Logged, StatementError> {
        let logged = self.verify(log)?;
        let found = &logged.record;
        if found.digest != expected.digest {
            return Err(entry("digest", &expected.digest, &found.digest));
        }
        if found.signature != expected.signature {
            let (a, b) = (hex::encode(&expected.signature), hex::encode(&found.signature));
            return Err(entry("signature", &a, &b));
        }
        if found.verifier != expected.verifier {
            return Err(entry("verifier", &expected.verifier.label(), &found.verifier.label()));
        }
        Ok(logged)
    }
}

impl Verifier {
    fn label(&self) -> String {
        match self {
            Self::Key { key, scheme } => {
                format!("{} {}", key_details(key.kind(), *scheme), key.keyid())
            }
            Self::Certificate { der, .. } => format!("certificate {}", Sha256::of(der)),
        }
    }
}

fn entry(field: &'static str, expected: &dyn ToString, found: &dyn ToString) -> StatementError {
    StatementError::Entry { field, expected: expected.to_string(), found: found.to_string() }
}

/// The JSON of a leaf.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    api_version: String,
    kind: String,
    spec: RawSpec,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpec {
    #[serde(rename = "hashedRekordV002")]
    v002: RawV002,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawV002 {
    data: RawData,
    signature: RawSignature,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawData {
    algorithm: String,
    digest: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSignature {
    content: Base64,
    verifier: RawVerifier,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawVerifier {
    key_details: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<RawBytes>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "x509Certificate")]
    certificate: Option<RawBytes>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawBytes {
    raw_bytes: Base64,
}

impl From<&HashedRekord> for Raw {
    fn from(record: &HashedRekord) -> Self {
        let verifier = match &record.verifier {
            Verifier::Key { key, scheme } => RawVerifier {
                key_details: key_details(key.kind(), *scheme),
                public_key: Some(RawBytes { raw_bytes: key.spki().to_vec().into() }),
                certificate: None,
            },
            Verifier::Certificate { der, details } => RawVerifier {
                key_details: details.clone(),
                public_key: None,
                certificate: Some(RawBytes { raw_bytes: der.clone().into() }),
            },
        };
        let data = RawData {
            algorithm: record.digest.algorithm().into(),
            digest: record.digest.bytes().to_vec().into(),
        };
        let signature = RawSignature { content: record.signature.clone().into(), verifier };
        Self {
            api_version: VERSION.into(),
            kind: KIND.into(),
            spec: RawSpec { v002: RawV002 { data, signature } },
        }
    }
}

impl TryFrom<Raw> for HashedRekord {
    type Error = StatementError;

    fn try_from(raw: Raw) -> Result<Self, StatementError> {
        check_type("log leaf kind", KIND, &raw.kind)?;
        check_type("log leaf version", VERSION, &raw.api_version)?;
        let RawV002 { data, signature } = raw.spec.v002;
        let RawVerifier { key_details: details, public_key, certificate } = signature.verifier;
        let verifier = match (public_key, certificate) {
            (Some(spki), None) => {
                let key = PublicKey::from_spki(&spki.raw_bytes)?;
                let schemes = [key.scheme(), Scheme::RsaSha256];
                let scheme = schemes.into_iter().find(|s| key_details(key.kind(), *s) == details);
                let wrong =
                    || StatementError::Leaf(format!("{:?} key is no {details}", key.kind()));
                Verifier::Key { scheme: scheme.ok_or_else(wrong)?, key }
            }
            (None, Some(certificate)) => {
                Verifier::Certificate { der: certificate.raw_bytes.0, details }
            }
            _ => return Err(StatementError::Leaf("expected one verifier".into())),
        };
        let digest = DataDigest::parse(&data.algorithm, data.digest.0)?;
        Ok(Self { digest, signature: signature.content.0, verifier })
    }
}
