//! Why an enclave was not planned, not started or ended.

use std::io;
use std::path::PathBuf;

use casemate_enclave_protocol::plan::PlanError;
use casemate_enclave_protocol::{ChannelError, Refusal};
use casemate_spec::canonical::CanonicalError;
use casemate_spec::{Coded, Kind};
use casemate_tee::TeeError;

/// Why an enclave was not planned, not started or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnclaveError {
    /// Neither the caller nor the spec names a program.
    #[error("no program given, neither after -- nor as enclave.command of the spec")]
    NoCommand,
    /// The program does not exist.
    #[error("program {program:?} not found in {searched}")]
    NotFound {
        /// As given.
        program: String,
        /// Where it was looked for.
        searched: String,
    },
    /// The program may not be executed.
    #[error("{path:?} is not executable: {problem}")]
    NotExecutable {
        /// Path of the file.
        path: PathBuf,
        /// Its kind or mode.
        problem: String,
    },
    /// The file is no program.
    #[error("{path:?} is neither an ELF program for this machine nor a #! script: {problem}")]
    NotAProgram {
        /// Path of the file.
        path: PathBuf,
        /// What it is.
        problem: String,
    },
    /// A library of the program does not exist.
    #[error("library {library:?}, needed by {needed_by:?}, not found in {searched}")]
    MissingLibrary {
        /// Its name.
        library: String,
        /// The file that needs it.
        needed_by: PathBuf,
        /// Where it was looked for.
        searched: String,
    },
    /// The interpreter of an ELF program or script does not exist.
    #[error("interpreter {interpreter:?} of {path:?} not found")]
    MissingInterpreter {
        /// Its path.
        interpreter: String,
        /// The program.
        path: PathBuf,
    },
    /// A path that an enclave's root can not hold.
    #[error("{path:?} can not be part of an enclave's root: {problem}")]
    Unsupported {
        /// The path.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A glob of `[files].trusted` that makes no sense or matches nothing.
    #[error("files.trusted {glob:?}: {problem}")]
    Glob {
        /// The glob.
        glob: String,
        /// What is wrong.
        problem: String,
    },
    /// A file that must be read.
    #[error("reading {path:?}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The collected nodes make no root.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// No canonical form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// Something the caller must give is missing or contradicts the spec.
    #[error("{0}")]
    Options(String),
    /// The agent could not be launched.
    #[error("launching the agent: {step}")]
    Launch {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The user and group id maps of the enclave were refused.
    #[error("writing the id maps of the enclave's user namespace: {source}")]
    IdMap {
        /// Why.
        source: io::Error,
    },
    /// A listening socket.
    #[error("listening on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The agent ended without a word.
    #[error("the agent ended unexpectedly ({0})")]
    AgentDied(String),
    /// The channel to the agent broke.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The TEE.
    #[error(transparent)]
    Tee(#[from] TeeError),
    /// The agent, or a service behind it, refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Coded for EnclaveError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoCommand => "CM-ENCL-0010",
            Self::NotFound { .. } => "CM-ENCL-0011",
            Self::NotExecutable { .. } => "CM-ENCL-0012",
            Self::NotAProgram { .. } => "CM-ENCL-0013",
            Self::MissingLibrary { .. } => "CM-ENCL-0014",
            Self::MissingInterpreter { .. } => "CM-ENCL-0015",
            Self::Unsupported { .. } => "CM-ENCL-0016",
            Self::Glob { .. } => "CM-ENCL-0017",
            Self::Read { .. } => "CM-ENCL-0018",
            Self::Plan(_) => "CM-ENCL-0019",
            Self::Options(_) => "CM-ENCL-0020",
            Self::Launch { .. } => "CM-ENCL-0030",
            Self::IdMap { .. } => "CM-ENCL-0031",
            Self::Listen { .. } => "CM-ENCL-0032",
            Self::AgentDied(_) => "CM-ENCL-0033",
            Self::Canonical(e) => e.code(),
            Self::Channel(e) => e.code(),
            Self::Tee(e) => e.code(),
            Self::Refused(e) => e.code(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Canonical(e) => e.kind(),
            Self::Channel(e) => e.kind(),
            Self::Tee(e) => e.kind(),
            Self::Refused(e) => e.kind(),
            Self::Read { .. }
            | Self::Launch { .. }
            | Self::IdMap { .. }
            | Self::Listen { .. }
            | Self::AgentDied(_) => Kind::Environment,
            _ => Kind::Usage,
        }
    }

    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::NoCommand => "give a program: casemate run -- PROGRAM ARGS",
            Self::NotFound { .. } => "give its path, or set PATH in [enclave] env",
            Self::NotExecutable { .. } => "chmod +x it, or name its interpreter as the program",
            Self::MissingLibrary { .. } => "install it, or set LD_LIBRARY_PATH in [enclave] env",
            Self::Launch { .. } | Self::IdMap { .. } => {
                "casemate doctor shows what this machine allows"
            }
            Self::Listen { .. } => "choose another address in [[listen]], or free the port",
            Self::Tee(e) => return e.fix(),
            Self::Refused(e) => return e.fix(),
            _ => return None,
        };
        Some(text.into())
    }
}
