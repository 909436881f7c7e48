//! Whether a working tree differs from the commit that would be built.
//!
//! The working tree is never a source: this only tells people that what they see in their
//! editor is not what is about to be built.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::error::{ObjectKind, SourceError};
use super::files::{self, File};
use super::repository::{MAX_BLOB, Repository, check_id};
use super::tree::FileMode;

/// Files of `HEAD` that the working tree has changed or lost, in path order; none if there is
/// nothing to tell, or no working tree. Files that are not in `HEAD` are not looked at.
///
/// # Errors
/// What reading the repository gives.
pub fn dirty(repository: &Path) -> Result<Option<Vec<String>>, SourceError> {
    super::guarded(repository, || {
        let repo = Repository::open(repository)?;
        let Some(root) = repo.work_tree.clone() else { return Ok(None) };
        let objects = repo.objects()?;
        let head = repo.resolve(&objects, "HEAD")?.commit;
        let files = files::list(&objects, objects.commit(head)?.tree)?;
        let mut changed = Vec::new();
        for file in files {
            let (_, size) = objects.header(file.id, ObjectKind::Blob)?;
            if !is_as_committed(&root.join(&file.path), &file, size) {
                changed.push(file.path);
            }
        }
        Ok((!changed.is_empty()).then_some(changed))
    })
}

/// What can not be read counts as changed.
fn is_as_committed(path: &Path, file: &File, size: u64) -> bool {
    let Ok(data) = fs::symlink_metadata(path) else { return false };
    if data.len() != size || size > MAX_BLOB {
        return false;
    }
    let bytes = match file.mode {
        FileMode::Symlink if data.is_symlink() => {
            fs::read_link(path).map(|target| target.as_os_str().as_bytes().to_vec())
        }
        FileMode::Regular | FileMode::Executable if data.is_file() => {
            let executable = data.permissions().mode() & 0o100 != 0;
            if executable != (file.mode == FileMode::Executable) {
                return false;
            }
            fs::read(path)
        }
        _ => return false,
    };
    bytes.is_ok_and(|bytes| check_id(file.id, ObjectKind::Blob, &bytes).is_ok())
}
