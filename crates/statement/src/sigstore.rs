//! Sigstore bundles v0.3 with a managed key: one signature, its key's hint, its log entry.

use casemate_spec::Sha256;
use casemate_tlog::note::VerifierKey;
use serde::{Deserialize, Serialize};

use crate::StatementError;
use crate::dsse::Envelope;
use crate::intoto::check_type;
use crate::json::{self, Base64};
use crate::key::PublicKey;
use crate::rekor::{HashedRekord, LogEntry, Logged};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The largest bundle that is read, in bytes.
pub const MAX_SIZE: usize = 96 << 20;

/// A signature with all that is needed to verify it, except the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct Bundle {
    /// The hint of the key ([`PublicKey::hint`]).
    pub hint: String,
    /// The log entry of the signature.
    pub entry: LogEntry,
    /// What is signed.
    pub content: Content,
}

/// What a bundle's signature is over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// An envelope.
    Dsse(Envelope),
    /// A file, by its digest.
    Message {
        /// SHA-256 of the file.
        digest: Sha256,
        /// The signature; ECDSA in DER.
        signature: Vec<u8>,
    },
}

impl Bundle {
    /// The bundle of an envelope signed by `key`.
    pub fn dsse(key: &PublicKey, envelope: Envelope, entry: LogEntry) -> Self {
        Self { hint: key.hint(), entry, content: Content::Dsse(envelope) }
    }

    /// The bundle of a file signed by `key`.
    pub fn message(key: &PublicKey, digest: Sha256, signature: Vec<u8>, entry: LogEntry) -> Self {
        Self { hint: key.hint(), entry, content: Content::Message { digest, signature } }
    }

    /// Parses a bundle of its own.
    ///
    /// # Errors
    /// [`StatementError::Syntax`] or [`StatementError::Size`].
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        json::from_slice(bytes, "sigstore bundle", MAX_SIZE)
    }

    /// The JSON of the bundle, for a file of its own.
    ///
    /// # Errors
    /// Never in practice: a bundle holds text only.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StatementError> {
        json::canonical(self)
    }

    /// The envelope, unverified.
    ///
    /// # Errors
    /// [`StatementError::Type`] if the bundle is for a file.
    pub fn envelope(&self) -> Result<&Envelope, StatementError> {
        match &self.content {
            Content::Dsse(envelope) => Ok(envelope),
            Content::Message { .. } => Err(wrong_content("dsseEnvelope", "messageSignature")),
        }
    }

    /// The payload of the envelope, once signed by `key`. The log entry is left to
    /// [`Self::verify_logged`].
    ///
    /// # Errors
    /// As [`Self::envelope`] and [`Envelope::verify`], and [`StatementError::KeyId`] for another
    /// hint.
    pub fn verify_dsse(&self, key: &PublicKey) -> Result<&[u8], StatementError> {
        self.check_hint(key)?;
        self.envelope()?.verify(key)
    }

    /// Checks that `key` signed the file with this digest. The log entry is left to
    /// [`Self::verify_logged`].
    ///
    /// # Errors
    /// [`StatementError::Type`], [`StatementError::KeyId`], [`StatementError::Entry`] for another
    /// digest, or [`StatementError::Signature`].
    pub fn verify_message(&self, key: &PublicKey, expected: &Sha256) -> Result<(), StatementError> {
        self.check_hint(key)?;
        let Content::Message { digest, signature } = &self.content else {
            return Err(wrong_content("messageSignature", "dsseEnvelope"));
        };
        if digest != expected {
            return Err(StatementError::Entry {
                field: "messageDigest",
                expected: expected.to_string(),
                found: digest.to_string(),
            });
        }
        if key.verifies_digest(key.scheme(), digest.as_bytes(), signature) {
            Ok(())
        } else {
            Err(StatementError::Signature { what: "artifact", key: key.keyid() })
        }
    }

    /// The verified position of the signature in the log.
    ///
    /// # Errors
    /// As [`LogEntry::verify_record`].
    pub fn verify_logged(
        &self,
        key: &PublicKey,
        log: &VerifierKey,
    ) -> Result<Logged, StatementError> {
        self.entry.verify_record(log, &self.record(key)?)
    }

    /// What the log must hold about this signature by `key`.
    ///
    /// # Errors
    /// As [`HashedRekord::of_dsse`].
    pub fn record(&self, key: &PublicKey) -> Result<HashedRekord, StatementError> {
        match &self.content {
            Content::Dsse(envelope) => HashedRekord::of_dsse(envelope, key),
            Content::Message { digest, signature } => {
                Ok(HashedRekord::of_digest(*digest, signature.clone(), key.clone()))
            }
        }
    }

    fn check_hint(&self, key: &PublicKey) -> Result<(), StatementError> {
        let (expected, found) = (key.hint(), self.hint.clone());
        if expected == found {
            return Ok(());
        }
        Err(StatementError::KeyId { what: "sigstore bundle", expected, found })
    }
}

fn wrong_content(expected: &str, found: &str) -> StatementError {
    StatementError::Type {
        what: "content of a sigstore bundle",
        expected: expected.into(),
        found: found.into(),
    }
}

/// The JSON of a bundle.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    media_type: String,
    verification_material: Material,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dsse_envelope: Option<Envelope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_signature: Option<RawMessage>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Material {
    public_key: Hint,
    tlog_entries: Vec<LogEntry>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hint {
    hint: String,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawMessage {
    message_digest: RawDigest,
    signature: Base64,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDigest {
    algorithm: String,
    digest: Base64,
}

impl TryFrom<Raw> for Bundle {
    type Error = StatementError;

    fn try_from(raw: Raw) -> Result<Self, StatementError> {
        check_type("sigstore bundle media type", MEDIA_TYPE, &raw.media_type)?;
        let Material { public_key, tlog_entries } = raw.verification_material;
        let found = tlog_entries.len();
        let Ok([entry]) = <[LogEntry; 1]>::try_from(tlog_entries) else {
            return Err(StatementError::Count { what: "log entries", expected: 1, found });
        };
        let content = match (raw.dsse_envelope, raw.message_signature) {
            (Some(envelope), None) => Content::Dsse(envelope),
            (None, Some(message)) => {
                let RawDigest { algorithm, digest } = message.message_digest;
                check_type("message digest algorithm", "SHA2_256", &algorithm)?;
                let Ok(digest) = <[u8; 32]>::try_from(digest.0) else {
                    return Err(wrong_content("digest of 32 bytes", "another size"));
                };
                Content::Message { digest: Sha256(digest), signature: message.signature.0 }
            }
            (Some(_), Some(_)) => return Err(wrong_content("one content", "two")),
            (None, None) => return Err(wrong_content("one content", "none")),
        };
        Ok(Self { hint: public_key.hint, entry, content })
    }
}

impl From<Bundle> for Raw {
    fn from(bundle: Bundle) -> Self {
        let (dsse_envelope, message_signature) = match bundle.content {
            Content::Dsse(envelope) => (Some(envelope), None),
            Content::Message { digest, signature } => {
                let message_digest = RawDigest {
                    algorithm: "SHA2_256".into(),
                    digest: digest.as_bytes().to_vec().into(),
                };
                (None, Some(RawMessage { message_digest, signature: signature.into() }))
            }
        };
        Self {
            media_type: MEDIA_TYPE.into(),
            verification_material: Material {
                public_key: Hint { hint: bundle.hint },
                tlog_entries: vec![bundle.entry],
            },
            dsse_envelope,
            message_signature,
        }
    }
}
