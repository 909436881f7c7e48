//! Why a build gave no bundle.

use std::io;
use std::path::Path;

use casemate_ledger::LedgerError;
use casemate_provenance::build::BuildError;
use casemate_provenance::source::{OidError, SourceError};
use casemate_service::ServiceError;
use casemate_spec::canonical::CanonicalError;
use casemate_spec::spec::SpecError;
use casemate_spec::{Coded, Kind};
use casemate_statement::StatementError;

/// Why a build gave no bundle. What another room refused keeps that room's code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuilderError {
    /// The history is not good.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The build was refused or failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The repository's `casemate.toml` is refused.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A statement could not be made.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The agent refused.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The ledger did not take a statement.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// `[source].since` is no commit of this repository's kind.
    #[error("casemate.toml: source.since: {0}")]
    Since(#[from] OidError),
    /// A digest could not be made.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// The revision has no `casemate.toml`.
    #[error("revision {revision}: no casemate.toml at the root of the tree")]
    NoConfig {
        /// The revision.
        revision: String,
    },
    /// `casemate.toml` is not text.
    #[error("casemate.toml: not UTF-8 text")]
    ConfigText,
    /// The file that was read is not the one in the verified tree.
    #[error("casemate.toml: what was read is not what the verified tree holds")]
    ConfigChanged,
    /// `casemate.toml` does not say how to build.
    #[error("casemate.toml: no [build] section")]
    NoBuild,
    /// The agent's evidence is not JSON.
    #[error("evidence record from the agent: {0}")]
    Evidence(String),
    /// The file system failed.
    #[error("{path}: {error}")]
    Io {
        /// Where.
        path: String,
        /// What the operating system says.
        error: io::Error,
    },
}

impl BuilderError {
    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.display().to_string(), error }
    }
}

impl Coded for BuilderError {
    fn code(&self) -> &'static str {
        match self {
            Self::Source(e) => e.code(),
            Self::Build(e) => e.code(),
            Self::Spec(e) => e.code(),
            Self::Statement(e) => e.code(),
            Self::Service(e) => e.code(),
            Self::Ledger(e) => e.code(),
            Self::Canonical(e) => e.code(),
            Self::Since(_) => "CM-BLDR-0007",
            Self::NoConfig { .. } => "CM-BLDR-0001",
            Self::ConfigText => "CM-BLDR-0002",
            Self::ConfigChanged => "CM-BLDR-0003",
            Self::NoBuild => "CM-BLDR-0004",
            Self::Evidence(_) => "CM-BLDR-0005",
            Self::Io { .. } => "CM-BLDR-0006",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Source(e) => e.kind(),
            Self::Build(e) => e.kind(),
            Self::Spec(e) => e.kind(),
            Self::Statement(e) => e.kind(),
            Self::Service(e) => e.kind(),
            Self::Ledger(e) => e.kind(),
            Self::Canonical(e) => e.kind(),
            Self::ConfigChanged => Kind::Refused,
            Self::Since(_) | Self::NoConfig { .. } | Self::ConfigText | Self::NoBuild => {
                Kind::Usage
            }
            Self::Evidence(_) | Self::Io { .. } => Kind::Environment,
        }
    }

    fn fix(&self) -> Option<String> {
        match self {
            Self::Source(e) => e.fix(),
            Self::Build(e) => e.fix(),
            Self::Spec(e) => e.fix(),
            Self::Statement(e) => e.fix(),
            Self::Service(e) => e.fix(),
            Self::Ledger(e) => e.fix(),
            Self::Canonical(e) => e.fix(),
            Self::NoConfig { .. } | Self::NoBuild => Some(
                "commit a casemate.toml with [build] steps, artifacts and toolchain; see \
                 docs/casemate-toml.md"
                    .into(),
            ),
            Self::ConfigText => Some("save casemate.toml as UTF-8 and commit it".into()),
            Self::ConfigChanged => Some("the repository changed underneath; build again".into()),
            Self::Since(_) | Self::Evidence(_) | Self::Io { .. } => None,
        }
    }
}
