//! Finding a program as a shell would, with the environment it will have.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path};

use super::nodes::utf8;
use super::view::View;
use crate::error::EnclaveError;

/// The absolute path inside of the program `name`: as given if it has a slash, else found in
/// `path` (the program's own `PATH`).
pub(super) fn program(
    view: &View,
    name: &str,
    path: &str,
    directory: &Path,
) -> Result<String, EnclaveError> {
    if name.is_empty() {
        return Err(EnclaveError::NotFound { program: name.into(), searched: path.into() });
    }
    if !name.contains('/') {
        return in_path(view, name, path)?.ok_or_else(|| EnclaveError::NotFound {
            program: name.into(),
            searched: format!("PATH {path}"),
        });
    }
    let wanted = plain(view, &utf8(directory.join(name))?)?;
    let Some(found) = view.find(&wanted)? else {
        let searched =
            if view.is_host() { "/".into() } else { view.outside("/").display().to_string() };
        return Err(EnclaveError::NotFound { program: wanted, searched });
    };
    let refuse = |problem: &str| {
        Err(EnclaveError::NotExecutable {
            path: view.outside(&found.path),
            problem: problem.into(),
        })
    };
    if !found.metadata.is_file() {
        return refuse("it is no regular file");
    }
    if found.metadata.permissions().mode() & 0o111 == 0 {
        return refuse(&format!(
            "its mode is {:04o}",
            found.metadata.permissions().mode() & 0o7777
        ));
    }
    Ok(wanted)
}

/// The first executable file called `name` in the directories of `path`.
pub(super) fn in_path(view: &View, name: &str, path: &str) -> Result<Option<String>, EnclaveError> {
    for directory in path.split(':').filter(|d| d.starts_with('/')) {
        let candidate = format!("{}/{name}", directory.trim_end_matches('/'));
        if let Some(found) = view.find(&candidate)?
            && found.metadata.is_file()
            && found.metadata.permissions().mode() & 0o111 != 0
        {
            return Ok(Some(plain(view, &candidate)?));
        }
    }
    Ok(None)
}

/// `path` without `.`; with `..` in it, what it leads to.
fn plain(view: &View, path: &str) -> Result<String, EnclaveError> {
    if path.split('/').any(|s| s == "..") {
        return Ok(view.find(path)?.map_or_else(|| path.to_owned(), |found| found.path));
    }
    let parts: Vec<&str> = Path::new(path)
        .components()
        .filter_map(|c| match c {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect();
    Ok(format!("/{}", parts.join("/")))
}
