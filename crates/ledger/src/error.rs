//! What can be wrong with a log on disk, with an entry, or with a service's answer.

use std::io;
use std::path::PathBuf;

use casemate_spec::{Coded, Kind, Sha256};
use casemate_statement::StatementError;
use casemate_tlog::TlogError;

/// A log that is not what it signed, or a request that the log does not accept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// A leaf on disk is not the one that is in the signed tree.
    #[error("leaf {index} in {path} was edited: the signed tree has {expected}, found {found}")]
    LeafEdited {
        /// The position of the leaf.
        index: u64,
        /// Its entry bundle.
        path: String,
        /// The hash in the signed tree.
        expected: Sha256,
        /// The hash of what is on disk.
        found: Sha256,
    },
    /// A tile is missing while others that follow are there.
    #[error("{path} was removed: a log of {size} leaves has this tile")]
    TileRemoved {
        /// The tile.
        path: String,
        /// The size of the log by its checkpoint.
        size: u64,
    },
    /// The last leaves are missing.
    #[error("log was truncated: its checkpoint says {size} leaves, its entries end after {found}")]
    Truncated {
        /// The size of the log by its checkpoint.
        size: u64,
        /// How many leaves there are at most.
        found: u64,
    },
    /// The log is smaller than it once was.
    #[error("log was rolled back: it had {known} leaves or more, its checkpoint says {found}")]
    RolledBack {
        /// The size known before.
        known: u64,
        /// The size by its checkpoint.
        found: u64,
    },
    /// The log has another tree than the one known before.
    #[error("log was forked: at {size} leaves its root was {known}, it now is {found}")]
    Forked {
        /// The size known before.
        size: u64,
        /// The root known before.
        known: Sha256,
        /// The root of as many leaves now.
        found: Sha256,
    },
    /// A tile that can not be read as one, or whose hashes are not those of the tree.
    #[error("{path} was altered: {reason}")]
    TileAltered {
        /// The tile.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither the leaves nor the hashes lead to the signed root.
    #[error(
        "the tiles are of another tree: at {size} leaves the checkpoint has root {expected}, the tiles {found}"
    )]
    AnotherTree {
        /// The size of the log by its checkpoint.
        size: u64,
        /// The signed root.
        expected: Sha256,
        /// The root over the leaves on disk.
        found: Sha256,
    },
    /// The checkpoint on disk is not one that this log signed.
    #[error("checkpoint in {path} is not this log's: {source}")]
    Checkpoint {
        /// Where it was read.
        path: PathBuf,
        /// What is wrong with it.
        source: TlogError,
    },
    /// There is no log in a directory.
    #[error("no log in {0}: it has no checkpoint")]
    Missing(PathBuf),
    /// There is a log already where a new one was to be made.
    #[error("a log exists already in {0}")]
    Exists(PathBuf),
    /// Another process has the log.
    #[error("log in {0} is in use by another process")]
    Locked(PathBuf),
    /// A file could not be read or written.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// An earlier write did not become durable; nothing is appended after that.
    #[error("log takes no more entries since a write failed: {0}")]
    Stopped(String),
    /// More entries wait than the log can hold.
    #[error("log is busy: {0} wait already")]
    Busy(&'static str),
    /// Something is larger than allowed.
    #[error("expected {what} of at most {limit} bytes, found {found}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The largest size allowed.
        limit: usize,
        /// The size found.
        found: usize,
    },
    /// A request that makes no sense.
    #[error("request {0}")]
    Request(String),
    /// Something that the log does not have.
    #[error("the log has no {0}")]
    NotFound(String),
    /// An entry whose signature or artifact is not right.
    #[error("entry refused: {0}")]
    Entry(#[from] StatementError),
    /// A blob whose bytes are not those that were asked for.
    #[error("blob was altered: expected digest {expected}, found {found}")]
    BlobAltered {
        /// The digest asked for.
        expected: Sha256,
        /// The digest of what is there.
        found: Sha256,
    },
    /// The log's service does not answer.
    #[error("log at {url} does not answer: {reason}")]
    Unreachable {
        /// Its address.
        url: String,
        /// Why.
        reason: String,
    },
    /// The log's service answers something that is no answer.
    #[error("log at {url} gives a wrong answer: {reason}")]
    Answer {
        /// Its address.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The log's service refuses, in its own words.
    #[error("log refuses: {message} ({code})")]
    Refused {
        /// Its code.
        code: String,
        /// Its message.
        message: String,
        /// What it says can be done.
        fix: Option<String>,
    },
    /// A proof, note or key that is not right.
    #[error(transparent)]
    Tlog(#[from] TlogError),
}

impl LedgerError {
    /// A failed system call on a file.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

impl Coded for LedgerError {
    fn code(&self) -> &'static str {
        match self {
            Self::LeafEdited { .. } => "CM-LEDG-0001",
            Self::TileRemoved { .. } => "CM-LEDG-0002",
            Self::Truncated { .. } => "CM-LEDG-0003",
            Self::RolledBack { .. } => "CM-LEDG-0004",
            Self::Forked { .. } => "CM-LEDG-0005",
            Self::TileAltered { .. } => "CM-LEDG-0006",
            Self::AnotherTree { .. } => "CM-LEDG-0007",
            Self::Checkpoint { .. } => "CM-LEDG-0008",
            Self::Missing(_) => "CM-LEDG-0009",
            Self::Exists(_) => "CM-LEDG-0010",
            Self::Locked(_) => "CM-LEDG-0011",
            Self::Io { .. } => "CM-LEDG-0012",
            Self::Stopped(_) => "CM-LEDG-0013",
            Self::Busy(_) => "CM-LEDG-0014",
            Self::TooLarge { .. } => "CM-LEDG-0015",
            Self::Request(_) => "CM-LEDG-0016",
            Self::NotFound(_) => "CM-LEDG-0017",
            Self::BlobAltered { .. } => "CM-LEDG-0018",
            Self::Unreachable { .. } => "CM-LEDG-0019",
            Self::Answer { .. } => "CM-LEDG-0020",
            Self::Refused { .. } => "CM-LEDG-0021",
            Self::Entry(inner) => inner.code(),
            Self::Tlog(inner) => inner.code(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Missing(_)
            | Self::Locked(_)
            | Self::Io { .. }
            | Self::Stopped(_)
            | Self::Busy(_)
            | Self::Unreachable { .. } => Kind::Environment,
            Self::Exists(_) | Self::TooLarge { .. } | Self::Request(_) | Self::NotFound(_) => {
                Kind::Usage
            }
            Self::Entry(inner) => inner.kind(),
            Self::Tlog(inner) => inner.kind(),
            _ => Kind::Refused,
        }
    }

    fn fix(&self) -> Option<String> {
        let fix = match self {
            Self::LeafEdited { .. }
            | Self::TileRemoved { .. }
            | Self::Truncated { .. }
            | Self::TileAltered { .. }
            | Self::AnotherTree { .. } => {
                "restore the log's directory from a backup and find out who could write to it"
            }
            Self::RolledBack { .. } | Self::Forked { .. } => {
                "restore the latest state of the log's directory; keep both states as evidence"
            }
            Self::Missing(_) => "restore the log's directory; `casemate init` makes a new log",
            Self::Locked(_) => "stop the other ledger first: `casemate stop`",
            Self::Stopped(_) => "make room on the disk or repair it, then restart the ledger",
            Self::Busy(_) => "try again in a moment",
            Self::Unreachable { .. } => "start the services: `casemate serve`",
            Self::Refused { fix, .. } => return fix.clone(),
            Self::Entry(inner) => return inner.fix(),
            Self::Tlog(inner) => return inner.fix(),
            _ => return None,
        };
        Some(fix.into())
    }
}
