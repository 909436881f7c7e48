//! Release bundles on disk, and the ledger they are logged in.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use casemate_ledger::client::Client;
use casemate_spec::Sha256;
use casemate_spec::trust::TrustFile;
use casemate_statement::bundle::ReleaseBundle;
use casemate_tlog::note::VerifierKey;
use casemate_verify::ArtifactDigest;

use crate::args::Service;
use crate::failure::{self, Failure};
use crate::installation::{Installation, read, replace};

/// Reads a release bundle.
///
/// # Errors
/// If it is unreadable or no bundle.
pub fn read_bundle(path: &Path) -> Result<ReleaseBundle, Failure> {
    let bytes = read(path)?;
    ReleaseBundle::parse(&bytes).map_err(|e| Failure::from(e).during(&path.display().to_string()))
}

/// A release bundle that no other command completes at the same time.
pub struct LockedBundle {
    /// What it holds.
    pub bundle: ReleaseBundle,
    path: PathBuf,
    _lock: File,
}

impl LockedBundle {
    /// Waits until no other command holds the bundle, then reads it.
    ///
    /// # Errors
    /// If it is unreadable or no bundle.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let shown = path.display().to_string();
        let io = |e: std::io::Error| failure::io(&shown, &e);
        loop {
            if !std::fs::metadata(path).map_err(io)?.is_file() {
                return Err(failure::usage(format!("{shown}: not a regular file")));
            }
            let lock = File::open(path).map_err(io)?;
            lock.lock().map_err(io)?;
            // Whoever held it may have put another file in its place meanwhile.
            let (held, there) =
                (lock.metadata().map_err(io)?, std::fs::metadata(path).map_err(io)?);
            if (held.dev(), held.ino()) == (there.dev(), there.ino()) {
                let bundle = read_bundle(path)?;
                return Ok(Self { bundle, path: path.to_owned(), _lock: lock });
            }
        }
    }

    /// Replaces the file with the bundle as it is now.
    ///
    /// # Errors
    /// If its directory is not writable.
    pub fn save(&self) -> Result<(), Failure> {
        replace(&self.path, &self.bundle.to_bytes()?)
    }
}

/// Hashes the file that is asked about.
///
/// # Errors
/// If it is unreadable.
pub fn artifact(path: &Path) -> Result<ArtifactDigest, Failure> {
    let shown = path.display().to_string();
    let metadata = std::fs::metadata(path).map_err(|e| failure::io(&shown, &e))?;
    if !metadata.is_file() {
        return Err(failure::usage(format!("{shown}: not a regular file")));
    }
    let file = File::open(path).map_err(|e| failure::io(&shown, &e))?;
    let (sha256, size) = Sha256::of_reader(file).map_err(|e| failure::io(&shown, &e))?;
    let name = path.file_name().map_or(shown, |n| n.to_string_lossy().into_owned());
    Ok(ArtifactDigest { name, sha256, size })
}

/// The ledger of a running installation, held against the key its trust file names.
///
/// # Errors
/// If the services do not run or the key is malformed.
pub fn ledger(installation: &Installation, trust: &TrustFile) -> Result<Client, Failure> {
    let url = installation.addresses()?.url(Service::Ledger);
    Ok(Client::new(&url, ledger_key(trust)?))
}

/// The ledger's key.
///
/// # Errors
/// If it is malformed.
pub fn ledger_key(trust: &TrustFile) -> Result<VerifierKey, Failure> {
    Ok(trust.signed.ledger.vkey.parse()?)
}

/// Unix seconds now.
pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| i64::try_from(d.as_secs()).ok())
        .unwrap_or(0)
}
