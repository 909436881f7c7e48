//! Approvers and developers as the command line names them, turned into trust file entries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use casemate_provenance::source;
use casemate_spec::trust::{Approver, Developer};

use crate::failure::{self, Failure};
use crate::installation::read;

/// Reads `NAME=KEY.pub` arguments; several keys of one name are one person's.
///
/// # Errors
/// If an argument has no name or no key file, or the file holds no OpenSSH public key.
pub fn approvers(arguments: &[String]) -> Result<Vec<Approver>, Failure> {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for argument in arguments {
        let (name, path) = argument
            .split_once('=')
            .filter(|(name, path)| !name.trim().is_empty() && !path.is_empty())
            .ok_or_else(|| failure::usage(format!("{argument:?}: expected NAME=KEY.pub")))?;
        let key = public_key(Path::new(path))?;
        by_name.entry(name.trim().to_owned()).or_default().push(key);
    }
    Ok(by_name.into_iter().map(|(name, keys)| Approver { name, keys }).collect())
}

/// Reads the people whose commits are source.
///
/// # Errors
/// If a file is unreadable or names no usable key.
pub fn developers(
    allowed_signers: Option<&PathBuf>,
    openpgp: &[PathBuf],
) -> Result<Vec<Developer>, Failure> {
    let mut developers = Vec::new();
    if let Some(path) = allowed_signers {
        let text = text(path)?;
        let parsed = source::parse_allowed_signers(&text, &jiff::tz::TimeZone::system())
            .map_err(|e| Failure::from(e).during(&path.display().to_string()))?;
        developers.extend(parsed);
    }
    for path in openpgp {
        let parsed = source::developer_from_openpgp(&text(path)?)
            .map_err(|e| Failure::from(e).during(&path.display().to_string()))?;
        developers.extend(parsed);
    }
    Ok(developers)
}

/// An OpenSSH public key file without its comment: `TYPE BASE64`.
fn public_key(path: &Path) -> Result<String, Failure> {
    let text = text(path)?;
    let mut key = ssh_key::PublicKey::from_openssh(text.trim()).map_err(|e| {
        failure::usage(format!("{}: not an OpenSSH public key: {e}", path.display()))
            .fix("name the .pub file, one line as ssh-keygen writes it")
    })?;
    key.set_comment("");
    key.to_openssh()
        .map(|line| line.trim().to_owned())
        .map_err(|e| failure::usage(format!("{}: {e}", path.display())))
}

fn text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?)
        .map_err(|_| failure::usage(format!("{}: not UTF-8 text", path.display())))
}
