//! The installation directory (`.casemate/`): where things are, and how files in it are replaced.
//!
//! | path | what |
//! | --- | --- |
//! | `trust.json` | the trust file in force |
//! | `sim/` | the simulated platform, where there is no TEE |
//! | `ledger/`, `broker/`, `signer/` | each service's data, sealed by the service where secret |
//! | `run/` | the running services: lock, addresses, log |

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use casemate_spec::Kind;
use casemate_spec::trust::TrustFile;
use serde::{Deserialize, Serialize};

use crate::args::Service;
use crate::failure::{self, Failure};

/// Largest file that a command reads whole, in bytes: a release bundle's limit.
const MAX_FILE: u64 = 256 << 20;

/// Name of the directory when none is given.
pub const DEFAULT_NAME: &str = ".casemate";

/// An installation that exists.
#[derive(Debug, Clone)]
pub struct Installation {
    dir: PathBuf,
}

/// Where the running services answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// Process that holds them.
    pub pid: u32,
    /// The log.
    pub ledger: SocketAddr,
    /// The broker.
    pub broker: SocketAddr,
    /// The signer.
    pub signer: SocketAddr,
}

impl Addresses {
    /// Base URL of a service.
    pub fn url(&self, service: Service) -> String {
        let address = match service {
            Service::Broker => self.broker,
            Service::Signer => self.signer,
            Service::Ledger | Service::Builder => self.ledger,
        };
        format!("http://{address}")
    }
}

impl Installation {
    /// The directory that `--dir` or `CASEMATE_DIR` names, else the nearest `.casemate` at or
    /// above the current directory.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(explicit: Option<&Path>) -> Result<Self, Failure> {
        if let Some(dir) = explicit {
            return Self::open(dir);
        }
        let here = std::env::current_dir().map_err(|e| failure::io("current directory", &e))?;
        here.ancestors()
            .map(|d| d.join(DEFAULT_NAME))
            .find(|d| d.join("trust.json").exists())
            .map_or_else(|| Err(missing(&here.join(DEFAULT_NAME))), |d| Self::open(&d))
    }

    /// The installation in `dir`.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        if !dir.join("trust.json").is_file() {
            return Err(missing(dir));
        }
        let dir = dir.canonicalize().map_err(|e| failure::io(&dir.display().to_string(), &e))?;
        Ok(Self { dir })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The trust file's path.
    pub fn trust_path(&self) -> PathBuf {
        self.dir.join("trust.json")
    }

    /// The simulated platform's directory.
    pub fn sim_dir(&self) -> PathBuf {
        self.dir.join("sim")
    }

    /// A service's data directory.
    pub fn data_dir(&self, service: Service) -> PathBuf {
        self.dir.join(service_name(service))
    }

    /// Directory of what concerns the running services.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The trust file in force, its own signatures checked.
    ///
    /// # Errors
    /// If it is unreadable or refused.
    pub fn trust(&self) -> Result<TrustFile, Failure> {
        read_trust(&self.trust_path())
    }

    /// Where the services answer.
    ///
    /// # Errors
    /// If they do not run.
    pub fn addresses(&self) -> Result<Addresses, Failure> {
        let stopped = || {
            Failure::new("CM-CLI-0010", Kind::Environment, "the services do not run")
                .fix("start them: casemate serve --detach")
        };
        if !self.is_serving() {
            return Err(stopped());
        }
        let bytes = fs::read(self.run_dir().join("serve.json")).map_err(|_| stopped())?;
        serde_json::from_slice(&bytes).map_err(|_| stopped())
    }

    /// Whether a process holds the services' lock.
    pub fn is_serving(&self) -> bool {
        File::open(self.run_dir().join("lock")).is_ok_and(|f| f.try_lock_shared().is_err())
    }
}

/// Name of a service, of its directory and of its sub-command.
pub const fn service_name(service: Service) -> &'static str {
    match service {
        Service::Ledger => "ledger",
        Service::Broker => "broker",
        Service::Signer => "signer",
        Service::Builder => "builder",
    }
}

/// Reads a trust file and checks the signatures it needs by itself.
///
/// # Errors
/// If it is unreadable or refused.
pub fn read_trust(path: &Path) -> Result<TrustFile, Failure> {
    let bytes = read(path)?;
    let file = TrustFile::parse(&bytes)?;
    casemate_verify::trust::check_signatures(&file)?;
    Ok(file)
}

/// Reads a file the user named.
///
/// # Errors
/// If it can not be read.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display().to_string();
    let io = |e: std::io::Error| failure::io(&shown, &e);
    // Before it is opened: a named pipe without a writer would keep this waiting.
    let metadata = fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        return Err(failure::usage(format!("{shown}: not a regular file")));
    }
    if metadata.len() > MAX_FILE {
        return Err(failure::usage(format!(
            "{shown}: {} bytes, expected at most {MAX_FILE}",
            metadata.len()
        )));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|f| f.take(MAX_FILE).read_to_end(&mut bytes)).map_err(io)?;
    Ok(bytes)
}

/// Replaces `path` in one step: a reader sees the old bytes or the new, also after a crash.
///
/// # Errors
/// If the directory is not writable.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    // A link keeps its place; what it leads to is replaced.
    let real = path.canonicalize();
    let path = real.as_deref().unwrap_or(path);
    let context = |e: std::io::Error| failure::io(&path.display().to_string(), &e);
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(dir).map_err(context)?;
    temporary.write_all(bytes).map_err(context)?;
    temporary.as_file().sync_all().map_err(context)?;
    let mode = fs::metadata(path)
        .map_or(0o644, |m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()));
    fs::set_permissions(temporary.path(), std::os::unix::fs::PermissionsExt::from_mode(mode))
        .map_err(context)?;
    temporary.persist(path).map_err(|e| context(e.error))?;
    sync_dir(dir).map_err(context)
}

/// Makes a directory's entries durable.
///
/// # Errors
/// What the operating system says.
pub fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

fn missing(dir: &Path) -> Failure {
    Failure::new("CM-CLI-0011", Kind::Environment, format!("no installation at {}", dir.display()))
        .fix("make one: casemate init --approver NAME=KEY.pub --threshold 1, or name it with --dir")
}
