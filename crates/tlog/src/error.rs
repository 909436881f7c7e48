//! What can be wrong with a proof, a tile, a note or a checkpoint.

use casemate_spec::{Coded, Kind, Sha256};

/// A proof, tile, note or checkpoint that is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlogError {
    /// An index or a size that can not occur in the tree.
    #[error("expected {what} below {limit}, found {found}")]
    Range {
        /// What was counted.
        what: &'static str,
        /// The first value that is too large.
        limit: u64,
        /// What was given.
        found: u64,
    },
    /// A proof with too few or too many hashes.
    #[error("expected {expected} hashes in the {proof} proof, found {found}")]
    ProofLength {
        /// Which proof.
        proof: &'static str,
        /// How many hashes this proof must have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// The leaf is not in the tree.
    #[error(
        "leaf {index} is not in the log of {size} leaves: its proof leads to root {found}, \
         the log's root is {expected}"
    )]
    NotIncluded {
        /// The leaf's position.
        index: u64,
        /// The size of the tree.
        size: u64,
        /// The root of the tree.
        expected: Sha256,
        /// Where the proof leads.
        found: Sha256,
    },
    /// The later tree does not begin with the earlier one.
    #[error("log of {to} leaves does not continue the log of {from} leaves known before: {reason}")]
    NotConsistent {
        /// The earlier size.
        from: u64,
        /// The later size.
        to: u64,
        /// Which root was missed.
        reason: &'static str,
    },
    /// Two different trees of one size: the log was forked.
    #[error("log is forked: at {size} leaves one root is {known}, another is {found}")]
    Forked {
        /// The size of both trees.
        size: u64,
        /// The root known before.
        known: Sha256,
        /// The other root.
        found: Sha256,
    },
    /// The later tree is smaller than the earlier one: the log was rolled back.
    #[error("log was rolled back: {known} leaves were known, {found} are shown")]
    RolledBack {
        /// The size known before.
        known: u64,
        /// The smaller size.
        found: u64,
    },
    /// A path that names no tile.
    #[error("expected the path of a tile (C2SP tlog-tiles), found {0:?}")]
    TilePath(String),
    /// A tile whose bytes do not fit its name.
    #[error("tile {path}: {reason}")]
    Tile {
        /// Its path.
        path: String,
        /// What does not fit.
        reason: String,
    },
    /// A leaf too large for a log.
    #[error("expected a leaf of at most {limit} bytes, found {found}")]
    LeafSize {
        /// The largest size allowed.
        limit: usize,
        /// The size found.
        found: usize,
    },
    /// Text that is no key of a log or of a witness.
    #[error("verifier key {0}")]
    Key(String),
    /// Text that is no signed note.
    #[error("signed note {0}")]
    Note(String),
    /// A note without a signature by the key that was asked for.
    #[error("expected a signature by {expected}, found {found}")]
    Unsigned {
        /// The key, by name and identifier.
        expected: String,
        /// Who signed.
        found: String,
    },
    /// A signature that does not verify.
    #[error("signature by {0} does not verify: the note or the signature was altered")]
    Signature(String),
    /// A note that is no checkpoint.
    #[error("checkpoint {0}")]
    Checkpoint(String),
    /// A checkpoint of another log.
    #[error("expected a checkpoint of the log {expected:?}, found one of {found:?}")]
    Origin {
        /// The log asked for.
        expected: String,
        /// The log that signed.
        found: String,
    },
    /// The signing key could not be used.
    #[error("the log's key could not sign")]
    Signing,
}

impl Coded for TlogError {
    fn code(&self) -> &'static str {
        match self {
            Self::Range { .. } => "CM-TLOG-0001",
            Self::ProofLength { .. } => "CM-TLOG-0002",
            Self::NotIncluded { .. } => "CM-TLOG-0003",
            Self::NotConsistent { .. } => "CM-TLOG-0004",
            Self::Forked { .. } => "CM-TLOG-0005",
            Self::RolledBack { .. } => "CM-TLOG-0006",
            Self::TilePath(_) => "CM-TLOG-0007",
            Self::Tile { .. } => "CM-TLOG-0008",
            Self::LeafSize { .. } => "CM-TLOG-0009",
            Self::Key(_) => "CM-TLOG-0010",
            Self::Note(_) => "CM-TLOG-0011",
            Self::Unsigned { .. } => "CM-TLOG-0012",
            Self::Signature(_) => "CM-TLOG-0013",
            Self::Checkpoint(_) => "CM-TLOG-0014",
            Self::Origin { .. } => "CM-TLOG-0015",
            Self::Signing => "CM-TLOG-0016",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::TilePath(_) | Self::LeafSize { .. } => Kind::Usage,
            Self::Signing => Kind::Environment,
            _ => Kind::Refused,
        }
    }
}
