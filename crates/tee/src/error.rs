//! Why a TEE device did not answer, or a simulated one does not start.

use std::io;
use std::path::{Path, PathBuf};

use casemate_spec::{Coded, Kind};

/// A TEE that can not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TeeError {
    /// There is no report interface.
    #[error("no TEE report interface at {path}: {source}")]
    NoDevice {
        /// Where it was looked for.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The report interface failed.
    #[error("{doing} {path}: {source}")]
    Device {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// Somebody else used the same report entry at the same time.
    #[error("report entry {path}: expected generation {expected}, found {found}")]
    Conflict {
        /// The entry.
        path: PathBuf,
        /// One write after the start.
        expected: u64,
        /// What it says.
        found: u64,
    },
    /// The device gave nothing, or more than a report can be.
    #[error("{path}: expected 1 to {limit} bytes, found {found}")]
    Answer {
        /// The attribute that was read.
        path: PathBuf,
        /// Most bytes that are read.
        limit: usize,
        /// How many bytes came.
        found: usize,
    },
    /// The device did not answer in time.
    #[error("{path}: no answer within {seconds} s")]
    Timeout {
        /// The attribute.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// Sealed bytes that are altered, or were sealed by another workload or platform.
    #[error("sealed bytes do not open: altered, or sealed by another workload or platform")]
    Open,
    /// The system gave no randomness or refused a key.
    #[error("cryptography failed while {0}")]
    Crypto(&'static str),
    /// A simulated platform is there already.
    #[error("a simulated platform is already at {0}")]
    PlatformExists(PathBuf),
    /// The files of a simulated platform can not be read or written.
    #[error("{doing} the simulated platform at {path}: {source}")]
    PlatformFile {
        /// What was being done.
        doing: &'static str,
        /// Its file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The files of a simulated platform do not fit together.
    #[error("simulated platform at {path}: {problem}")]
    Platform {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A real TEE is here; nothing is simulated beside it.
    #[error("{path} shows a real TEE ({kind}); a simulated one does not start beside it")]
    RealTee {
        /// What shows it.
        path: PathBuf,
        /// Which TEE.
        kind: &'static str,
    },
    /// The simulated device can not be set up.
    #[error("{doing} for the simulated TEE: {source}")]
    Simulator {
        /// What was being done.
        doing: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

impl TeeError {
    pub(crate) fn device(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Device { doing, path, source }
    }

    pub(crate) fn platform_file(
        doing: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::PlatformFile { doing, path, source }
    }

    pub(crate) fn simulator<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Simulator { doing, source: source.into() }
    }
}

impl Coded for TeeError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoDevice { .. } => "CM-TEE-0001",
            Self::Device { .. } => "CM-TEE-0002",
            Self::Conflict { .. } => "CM-TEE-0003",
            Self::Answer { .. } => "CM-TEE-0004",
            Self::Timeout { .. } => "CM-TEE-0005",
            Self::Open => "CM-TEE-0010",
            Self::Crypto(_) => "CM-TEE-0011",
            Self::PlatformExists(_) => "CM-TEE-0020",
            Self::PlatformFile { .. } => "CM-TEE-0021",
            Self::Platform { .. } => "CM-TEE-0022",
            Self::RealTee { .. } => "CM-TEE-0023",
            Self::Simulator { .. } => "CM-TEE-0024",
        }
    }
    fn kind(&self) -> Kind {
        match self {
            Self::Open | Self::RealTee { .. } => Kind::Refused,
            _ => Kind::Environment,
        }
    }
    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::NoDevice { .. } => "run `casemate doctor` to see which TEE this machine offers",
            Self::Timeout { .. } | Self::Answer { .. } => "start the enclave again",
            Self::Platform { .. } => {
                "restore the file from a backup, or make a new installation with `casemate init`"
            }
            Self::RealTee { .. } => "use the real TEE: name it in the trust file",
            _ => return None,
        };
        Some(text.into())
    }
}
