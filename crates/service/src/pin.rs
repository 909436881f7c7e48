//! Trust pinning: a service follows one installation's trust file, forward only.
//!
//! The trust file lies on the untrusted host. At its first start a service takes the file it is
//! given, provided the file names the service's own keys and measurement, and seals it; from then
//! on it accepts that version or the proper successor, never an older one, never another root.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use casemate_spec::trust::{MAX_SIZE, TrustFile};

use crate::error::ServiceError;

/// Reads the trust file at `path` and checks what it must obey by itself.
///
/// # Errors
/// If it can not be read, parsed, or its own signatures do not hold.
pub fn load(path: &Path) -> Result<TrustFile, ServiceError> {
    let shown = path.display().to_string();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|f| f.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes))
        .map_err(|e| ServiceError::io(shown, e))?;
    let file = TrustFile::parse(&bytes).map_err(ServiceError::other)?;
    casemate_verify::trust::check_signatures(&file).map_err(ServiceError::other)?;
    Ok(file)
}

/// What `given` means to a service that is pinned to `pinned`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The version the service knows.
    Same,
    /// A first version, or a proper successor: to be pinned.
    Forward,
}

/// Whether a service pinned to `pinned` may act under `given`.
///
/// # Errors
/// If `given` is of another installation, older, altered, or not a successor by the rules.
pub fn check(pinned: Option<&TrustFile>, given: &TrustFile) -> Result<Step, ServiceError> {
    let Some(pinned) = pinned else { return Ok(Step::Forward) };
    casemate_verify::trust::check_successor(pinned, given).map_err(ServiceError::other)?;
    let same = pinned.signed.version == given.signed.version;
    Ok(if same { Step::Same } else { Step::Forward })
}

/// Checks that a field of the trust file names what this service has.
///
/// # Errors
/// [`ServiceError::NotNamed`] if it names something else.
pub fn named(field: &'static str, named: &str, own: &str) -> Result<(), ServiceError> {
    if named == own {
        return Ok(());
    }
    Err(ServiceError::NotNamed { field, named: named.into(), own: own.into() })
}
