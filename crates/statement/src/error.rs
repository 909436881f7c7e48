//! Why a statement, a signature, a log entry or a bundle is refused.

use casemate_spec::{Coded, Kind};

/// A statement, signature, log entry or bundle that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// Not the JSON that is expected: syntax, unknown or repeated fields, missing fields.
    #[error("{what}: {problem}")]
    Syntax {
        /// What was being read.
        what: &'static str,
        /// What the parser says.
        problem: String,
    },
    /// More bytes than are ever read of this kind.
    #[error("{what}: {found} bytes, expected at most {limit}")]
    Size {
        /// What was being read.
        what: &'static str,
        /// The limit in bytes.
        limit: usize,
        /// The size found.
        found: usize,
    },
    /// A type, media type or version that is not the expected one.
    #[error("{what}: expected {expected:?}, found {found:?}")]
    Type {
        /// Which field.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// More or fewer of something than there must be.
    #[error("{what}: expected {expected}, found {found}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there must be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A public key that cannot be used.
    #[error("public key: {0}")]
    PublicKey(String),
    /// A signature that does not verify.
    #[error("{what}: signature does not verify under key {key}")]
    Signature {
        /// Over what.
        what: &'static str,
        /// The key's id or fingerprint.
        key: String,
    },
    /// A signature names another key than the one it is checked with.
    #[error("{what}: signed by key {found:?}, expected {expected:?}")]
    KeyId {
        /// Over what.
        what: &'static str,
        /// The expected key id.
        expected: String,
        /// The id found.
        found: String,
    },
    /// Not an SSH signature or an SSH key in a form that is accepted.
    #[error("{what}: {problem}")]
    Ssh {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An SSH signature for another purpose.
    #[error("ssh signature: namespace {found:?}, expected {expected:?}")]
    Namespace {
        /// The namespace it must have.
        expected: String,
        /// The namespace it has.
        found: String,
    },
    /// A FIDO signature that was made without anybody touching the key.
    #[error("ssh signature: made without user presence (flags {flags:#04x})")]
    UserPresence {
        /// The authenticator's flags.
        flags: u8,
    },
    /// A private key file that can not be used for signing here.
    #[error("private key: {0}")]
    PrivateKey(String),
    /// The private key is encrypted and the passphrase is missing or wrong.
    #[error("private key: {0}")]
    Passphrase(&'static str),
    /// A log leaf that is not a canonical `hashedrekord` 0.0.2.
    #[error("log leaf: {0}")]
    Leaf(String),
    /// A log entry about something else than what it stands beside.
    #[error("log entry: {field}: expected {expected}, found {found}")]
    Entry {
        /// Which field.
        field: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A log entry whose inclusion in the log is not proved.
    #[error("log entry: {0}")]
    Inclusion(String),
    /// A bundle whose parts do not fit together.
    #[error("bundle: {field}: {problem}")]
    Bundle {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An administrative act that makes no sense.
    #[error("act: {field}: {problem}")]
    Act {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A signature by a key that no approver of the trust file holds.
    #[error("key {fingerprint} belongs to no approver in the trust file")]
    NotAnApprover {
        /// The key's fingerprint.
        fingerprint: String,
    },
    /// One person signed more than once.
    #[error("{name} signed more than once ({first} and {second}); people are counted, not keys")]
    SamePerson {
        /// The person.
        name: String,
        /// Fingerprint of the first key.
        first: String,
        /// Fingerprint of the second key.
        second: String,
    },
    /// Fewer people signed than must.
    #[error("signed by {found} people, expected at least {needed}")]
    Quorum {
        /// How many must.
        needed: usize,
        /// How many did.
        found: usize,
    },
    /// The system gave no randomness, or a value has no canonical form.
    #[error("{0}")]
    Crypto(&'static str),
}

impl Coded for StatementError {
    fn code(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "CM-STMT-0001",
            Self::Size { .. } => "CM-STMT-0002",
            Self::Type { .. } => "CM-STMT-0003",
            Self::Count { .. } => "CM-STMT-0004",
            Self::PublicKey(_) => "CM-STMT-0005",
            Self::Signature { .. } => "CM-STMT-0006",
            Self::KeyId { .. } => "CM-STMT-0007",
            Self::Ssh { .. } => "CM-STMT-0010",
            Self::Namespace { .. } => "CM-STMT-0011",
            Self::UserPresence { .. } => "CM-STMT-0012",
            Self::PrivateKey(_) => "CM-STMT-0013",
            Self::Passphrase(_) => "CM-STMT-0014",
            Self::Leaf(_) => "CM-STMT-0020",
            Self::Entry { .. } => "CM-STMT-0021",
            Self::Inclusion(_) => "CM-STMT-0022",
            Self::Bundle { .. } => "CM-STMT-0030",
            Self::Act { .. } => "CM-STMT-0040",
            Self::NotAnApprover { .. } => "CM-STMT-0050",
            Self::SamePerson { .. } => "CM-STMT-0051",
            Self::Quorum { .. } => "CM-STMT-0052",
            Self::Crypto(_) => "CM-STMT-0060",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::PrivateKey(_) | Self::Passphrase(_) => Kind::Usage,
            Self::Crypto(_) => Kind::Environment,
            _ => Kind::Refused,
        }
    }

    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::Namespace { expected, .. } => {
                return Some(format!("sign with `ssh-keygen -Y sign -n {expected} -f KEY`"));
            }
            Self::PrivateKey(_) => {
                "use an OpenSSH ed25519, ecdsa or rsa key, or sign with `ssh-keygen -Y sign`"
            }
            Self::Passphrase(_) => "give the key's passphrase, or sign with `ssh-keygen -Y sign`",
            Self::UserPresence { .. } => "touch the security key when it signs",
            Self::NotAnApprover { .. } => "sign with a key that the trust file lists",
            Self::SamePerson { .. } => "have another approver sign",
            Self::Quorum { .. } => "collect the missing signatures",
            _ => return None,
        };
        Some(text.into())
    }
}
