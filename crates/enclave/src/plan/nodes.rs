//! The nodes of a root while they are collected.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use casemate_enclave_protocol::{Content, Node};

use super::file_node;
use super::view::{Found, Link, View};
use crate::error::EnclaveError;

/// Places inside that are the enclave's own.
const RESERVED: [&str; 3] = ["/proc", "/dev", "/run/casemate"];

/// Nodes by path.
#[derive(Debug)]
pub(super) struct Nodes<'a> {
    view: &'a View,
    by_path: BTreeMap<String, Node>,
}

impl<'a> Nodes<'a> {
    pub(super) const fn new(view: &'a View) -> Self {
        Self { view, by_path: BTreeMap::new() }
    }

    pub(super) fn into_vec(self) -> Vec<Node> {
        self.by_path.into_values().collect()
    }

    pub(super) fn set(&mut self, path: &str, mode: u32, content: Content) {
        self.by_path.insert(path.to_owned(), file_node(path, mode, content));
    }

    /// Adds what was found, and the links that lead there.
    pub(super) fn add(&mut self, found: &Found) -> Result<(), EnclaveError> {
        self.add_links(&found.links)?;
        let Found { path, metadata, .. } = found;
        if path == "/" {
            return Ok(());
        }
        refuse_reserved(path)?;
        let bits = metadata.permissions().mode();
        let host = self.view.is_host();
        let (mode, content) = if metadata.is_file() {
            let mode = match host {
                true if bits & 0o111 != 0 => 0o755,
                true => 0o644,
                false => bits & 0o777,
            };
            (mode, Content::File(utf8(self.view.outside(path))?))
        } else if metadata.is_dir() {
            (if host { 0o755 } else { bits & 0o1777 }, Content::Directory)
        } else {
            return Err(EnclaveError::Unsupported {
                path: self.view.outside(path),
                problem: "it is neither a file, a directory nor a link".into(),
            });
        };
        self.set(path, mode, content);
        Ok(())
    }

    /// Gives the program's file another path inside, and says which.
    pub(super) fn place(&mut self, program: &str, place: &str) -> Result<String, EnclaveError> {
        refuse_reserved(place)?;
        // The program may be reached through links; what they lead to is the file.
        let mut path = program.to_owned();
        while let Some(Node { content: Content::Symlink(_), .. }) = self.by_path.get(&path) {
            let outside = self.view.outside(&path);
            let real = outside
                .canonicalize()
                .map_err(|e| EnclaveError::Read { path: outside, source: e })?;
            path = utf8(real)?;
        }
        let Some(node) = self.by_path.remove(&path) else {
            return Err(EnclaveError::Unsupported {
                path: program.into(),
                problem: "the program is no file of the root".into(),
            });
        };
        self.set(place, node.mode, node.content);
        Ok(place.to_owned())
    }

    pub(super) fn add_links(&mut self, links: &[Link]) -> Result<(), EnclaveError> {
        for link in links {
            refuse_reserved(&link.path)?;
            self.set(&link.path, 0o777, Content::Symlink(link.target.clone()));
        }
        Ok(())
    }
}

/// Whether `path` is one of the enclave's own places or below one.
pub(super) fn is_reserved(path: &str) -> bool {
    RESERVED
        .iter()
        .any(|r| path.strip_prefix(r).is_some_and(|s| s.is_empty() || s.starts_with('/')))
}

fn refuse_reserved(path: &str) -> Result<(), EnclaveError> {
    if is_reserved(path) {
        return Err(EnclaveError::Unsupported {
            path: path.into(),
            problem: format!("the enclave has its own {}", RESERVED.join(", ")),
        });
    }
    Ok(())
}

/// `path` as text.
pub(super) fn utf8(path: PathBuf) -> Result<String, EnclaveError> {
    path.into_os_string().into_string().map_err(|path| EnclaveError::Unsupported {
        path: path.into(),
        problem: "its name is not UTF-8".into(),
    })
}
