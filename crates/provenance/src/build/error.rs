//! Why a build was refused: one variant for each reason, each with its code.

use std::fmt;

use casemate_spec::{Coded, Kind};
use serde::{Deserialize, Serialize};

/// The process that opened or executed a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number as the observer sees it.
    pub pid: i32,
    /// Its name (`/proc/PID/comm`).
    pub name: String,
    /// Its program file, if it can still be told.
    pub program: Option<String>,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.program {
            Some(program) => write!(f, "{} ({program}, pid {})", self.name, self.pid),
            None => write!(f, "{} (pid {})", self.name, self.pid),
        }
    }
}

/// A build that did not happen, or whose result is not given out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BuildError {
    /// The builder may not observe the kernel's file events.
    #[error(
        "observing a build needs root with CAP_SYS_ADMIN in the initial user namespace; {found}"
    )]
    Privilege {
        /// What this process is instead.
        found: String,
    },
    /// The kernel lacks something the observation rests on.
    #[error("this kernel does not offer {what}: {reason}")]
    Kernel {
        /// The feature.
        what: String,
        /// What the kernel answered.
        reason: String,
    },
    /// A part of the build's world could not be set up.
    #[error("{doing}: {reason}")]
    Setup {
        /// What was being done.
        doing: String,
        /// What the system answered.
        reason: String,
    },
    /// The observer ended without a verdict, so there is none.
    #[error("the build observer ended without a result ({how}); nothing it saw counts")]
    ObserverLost {
        /// How it ended.
        how: String,
    },
    /// The kernel dropped events.
    #[error("the kernel dropped file events during the build, so not every read was seen")]
    EventsLost,
    /// The tree handed over is not the verified tree.
    #[error("source file {path}: {problem}")]
    SourceDiffers {
        /// Path inside the source tree.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// A file of the build's root was changed by something that is no build process.
    #[error("{path} was changed from outside the build while it ran ({how})")]
    ChangedFromOutside {
        /// The file as the build sees it.
        path: String,
        /// What was seen.
        how: String,
    },
    /// A file of the build's root was opened by something that is no build process.
    #[error("{path} was opened from outside the build while it ran")]
    OpenedFromOutside {
        /// The file as the build sees it.
        path: String,
    },
    /// A declared package is not installed.
    #[error("toolchain package {package} is not installed")]
    PackageMissing {
        /// As declared.
        package: String,
    },
    /// A declared package has another version than it is pinned to.
    #[error("toolchain package {package} is pinned to {wanted}, installed is {found}")]
    PackageVersion {
        /// Its name.
        package: String,
        /// The declared version.
        wanted: String,
        /// The installed version.
        found: String,
    },
    /// The package database can not be read.
    #[error("package database {path}: {problem}")]
    PackageDatabase {
        /// File at fault.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tool, header or library does not have its package's bytes.
    #[error(
        "{path} is not what package {package} installed: expected MD5 {expected}, found {found}; \
         opened by {process}"
    )]
    ToolReplaced {
        /// The file.
        path: String,
        /// Package that owns the path.
        package: String,
        /// The package's digest.
        expected: String,
        /// Digest of what is there.
        found: String,
        /// Who opened it.
        process: Box<Process>,
    },
    /// A file of a package that the toolchain neither names nor depends on.
    #[error(
        "{path} belongs to package {package}, which [build].toolchain does not include; opened by {process}"
    )]
    PackageUndeclared {
        /// The file.
        path: String,
        /// Package to add.
        package: String,
        /// Who opened it.
        process: Box<Process>,
    },
    /// A package's file without a digest to check it against.
    #[error(
        "{path} belongs to package {package}, which offers no digest for it; opened by {process}"
    )]
    NoDigest {
        /// The file.
        path: String,
        /// Its package.
        package: String,
        /// Who opened it.
        process: Box<Process>,
    },
    /// A toolchain file was written to while the build ran.
    #[error("toolchain file {path} was changed while the build ran ({how})")]
    ToolChanged {
        /// The file.
        path: String,
        /// What was seen.
        how: String,
    },
    /// A file of no declared origin.
    #[error(
        "{path} is neither source, generated, fetched nor of a toolchain package ({reason}); opened by {process}"
    )]
    UnknownFile {
        /// The file.
        path: String,
        /// Why it is nothing of these.
        reason: String,
        /// Who opened it.
        process: Box<Process>,
    },
    /// A step did not succeed.
    #[error("build step `{command}` {status}{}", tail_text(tail))]
    StepFailed {
        /// The command.
        command: String,
        /// How it ended.
        status: String,
        /// Its last lines.
        tail: String,
    },
    /// A step without network tried to use it, and did not succeed.
    #[error(
        "build step `{command}` {status} after {attempts} attempt(s) to reach the network, which build steps do not have{}",
        tail_text(tail)
    )]
    StepNetwork {
        /// The command.
        command: String,
        /// How it ended.
        status: String,
        /// Route look-ups the kernel refused in the step's network namespace.
        attempts: u64,
        /// Its last lines.
        tail: String,
    },
    /// A declared artifact was not made.
    #[error("artifact {path} was not built")]
    ArtifactMissing {
        /// Path inside the source tree.
        path: String,
    },
    /// A declared artifact is no regular file inside the tree.
    #[error("artifact {path} is {found}, expected a regular file reached without links")]
    ArtifactKind {
        /// Path inside the source tree.
        path: String,
        /// What it is.
        found: String,
    },
}

impl Coded for BuildError {
    fn code(&self) -> &'static str {
        match self {
            Self::Privilege { .. } => "CM-BUILD-0001",
            Self::Kernel { .. } => "CM-BUILD-0002",
            Self::Setup { .. } => "CM-BUILD-0003",
            Self::ObserverLost { .. } => "CM-BUILD-0004",
            Self::EventsLost => "CM-BUILD-0005",
            Self::SourceDiffers { .. } => "CM-BUILD-0010",
            Self::ChangedFromOutside { .. } => "CM-BUILD-0011",
            Self::OpenedFromOutside { .. } => "CM-BUILD-0012",
            Self::PackageMissing { .. } => "CM-BUILD-0020",
            Self::PackageVersion { .. } => "CM-BUILD-0021",
            Self::PackageDatabase { .. } => "CM-BUILD-0022",
            Self::ToolReplaced { .. } => "CM-BUILD-0023",
            Self::PackageUndeclared { .. } => "CM-BUILD-0024",
            Self::NoDigest { .. } => "CM-BUILD-0025",
            Self::ToolChanged { .. } => "CM-BUILD-0026",
            Self::UnknownFile { .. } => "CM-BUILD-0030",
            Self::StepFailed { .. } => "CM-BUILD-0040",
            Self::StepNetwork { .. } => "CM-BUILD-0041",
            Self::ArtifactMissing { .. } => "CM-BUILD-0050",
            Self::ArtifactKind { .. } => "CM-BUILD-0051",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Privilege { .. }
            | Self::Kernel { .. }
            | Self::Setup { .. }
            | Self::ObserverLost { .. }
            | Self::PackageMissing { .. }
            | Self::PackageDatabase { .. } => Kind::Environment,
            _ => Kind::Refused,
        }
    }

    fn fix(&self) -> Option<String> {
        let fix = match self {
            Self::Privilege { .. } => {
                "run the build as root outside user namespaces; there is no weaker way to see every read".into()
            }
            Self::Kernel { .. } => {
                "use a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS (Debian's has it), 5.13 or later".into()
            }
            Self::PackageMissing { package } => {
                format!("apt-get install {}, or correct [build].toolchain", bare_name(package))
            }
            Self::PackageVersion { package, .. } => {
                format!("install the pinned version of {package}, or change the pin in [build].toolchain")
            }
            Self::ToolReplaced { package, .. } => format!(
                "find out who changed it; `apt-get install --reinstall {package}` restores the package's own file"
            ),
            Self::PackageUndeclared { package, .. } => {
                format!("add \"{package}\" to [build].toolchain if the build may use it")
            }
            Self::UnknownFile { .. } => {
                "commit the file, fetch it in a [build].fetch step, or use a packaged one".into()
            }
            Self::StepNetwork { .. } => {
                "download in a [build].fetch step; what it leaves behind becomes a material".into()
            }
            Self::ArtifactMissing { .. } | Self::ArtifactKind { .. } => {
                "correct [build].artifacts: paths relative to the source directory".into()
            }
            Self::ChangedFromOutside { .. } | Self::OpenedFromOutside { .. } | Self::ToolChanged { .. } => {
                "find out what else runs on this machine, and build again".into()
            }
            _ => return None,
        };
        Some(fix)
    }
}

impl BuildError {
    /// An operating-system error while `doing` something.
    pub(super) fn setup(doing: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self::Setup { doing: doing.to_string(), reason: reason.to_string() }
    }
}

fn bare_name(declared: &str) -> &str {
    declared.split('=').next().unwrap_or(declared)
}

fn tail_text(tail: &str) -> String {
    if tail.is_empty() { String::new() } else { format!("; last lines:\n{tail}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_its_way_out_of_the_observer() {
        let error = BuildError::PackageUndeclared {
            path: "/usr/bin/bison".into(),
            package: "bison".into(),
            process: Box::new(Process { pid: 7, name: "make".into(), program: None }),
        };
        let text = serde_json::to_string(&error).expect("plain data");
        assert_eq!(serde_json::from_str::<BuildError>(&text).expect("own text"), error);
        assert!(error.fix().expect("has a fix").contains("\"bison\""));
    }
}
