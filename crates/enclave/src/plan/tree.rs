//! `root = "dir:PATH"`: a whole directory tree.

use std::fs;

use super::nodes::{Nodes, is_reserved, utf8};
use super::view::{Found, Link, View, read_link};
use crate::error::EnclaveError;

/// Adds everything in the view. What is below the enclave's own places is left out: the enclave
/// mounts over them.
pub(super) fn add_all(view: &View, nodes: &mut Nodes<'_>) -> Result<(), EnclaveError> {
    let mut todo = vec![String::new()];
    while let Some(directory) = todo.pop() {
        let outside = view.outside(&directory);
        let read = |source| EnclaveError::Read { path: outside.clone(), source };
        for entry in fs::read_dir(&outside).map_err(read)? {
            let entry = entry.map_err(read)?;
            let path = format!("{directory}/{}", utf8(entry.file_name().into())?);
            if is_reserved(&path) {
                continue;
            }
            let metadata = entry.metadata().map_err(read)?;
            if metadata.is_symlink() {
                let target = read_link(&entry.path())?;
                nodes.add_links(&[Link { path, target }])?;
                continue;
            }
            if metadata.is_dir() {
                todo.push(path.clone());
            }
            nodes.add(&Found { path, links: Vec::new(), metadata })?;
        }
    }
    Ok(())
}
