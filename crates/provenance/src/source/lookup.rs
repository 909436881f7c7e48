//! Finding things in a repository before it is verified: names, paths, one file.
//!
//! What these functions return is a repository's own word. It counts once [`super::verify`] has
//! been asked about the very commit, and the very content is found in its table.

use std::path::{Path, PathBuf};

use super::error::{ObjectKind, SourceError};
use super::oid::Oid;
use super::repository::{Objects, Repository};
use super::tree::{EntryMode, FileMode};

/// The commit that `rev` names.
///
/// # Errors
/// [`SourceError::NoRepository`] or [`SourceError::Revision`].
pub fn resolve(repository: &Path, rev: &str) -> Result<Oid, SourceError> {
    super::guarded(repository, || {
        let repo = Repository::open(repository)?;
        Ok(repo.resolve(&repo.objects()?, rev)?.commit)
    })
}

/// The directory that holds the repository's objects: all that [`super::verify`] needs.
///
/// # Errors
/// [`SourceError::NoRepository`].
pub fn object_dir(repository: &Path) -> Result<PathBuf, SourceError> {
    let dir = Repository::open(repository)?.common_dir;
    dir.canonicalize().map_err(|e| SourceError::no_repository(&dir, e))
}

/// The content of the regular file at `path` in the tree of `rev`, if there is one.
///
/// # Errors
/// As [`resolve`], and what reading an object gives.
pub fn file_at(repository: &Path, rev: &str, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
    super::guarded(repository, || {
        let repo = Repository::open(repository)?;
        repo.refuse_disguises()?;
        let objects = repo.objects()?;
        let commit = repo.resolve(&objects, rev)?.commit;
        find(&objects, commit, path)?.map(|id| objects.read(id, ObjectKind::Blob)).transpose()
    })
}

fn find(objects: &Objects, commit: Oid, path: &str) -> Result<Option<Oid>, SourceError> {
    let mut tree = objects.commit(commit)?.tree;
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let entries = objects.tree(tree)?;
        let entry = entries.into_iter().find(|e| e.name == part.as_bytes());
        match entry.map(|e| (e.mode, e.id)) {
            Some((EntryMode::Directory, id)) if parts.peek().is_some() => tree = id,
            Some((EntryMode::File(FileMode::Regular | FileMode::Executable), id))
                if parts.peek().is_none() =>
            {
                return Ok(Some(id));
            }
            _ => return Ok(None),
        }
    }
    Ok(None)
}
