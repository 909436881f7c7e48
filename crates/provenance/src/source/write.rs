//! Writing a verified tree to disk.
//!
//! Every byte comes from an object whose id and SHA-256 are checked once more as it is written.
//! Files are created below directory handles that this code itself opened, exclusively and
//! without following links, so neither the tree's own links nor anything that appears in the
//! destination meanwhile can lead a write elsewhere.

use std::fs::File as FsFile;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use casemate_spec::Sha256;
use rustix::fs::{self, AtFlags, Mode, OFlags, Timespec, Timestamps};

use super::error::{ObjectKind, SourceError};
use super::repository::{Objects, Repository};
use super::tree::FileMode;
use super::{Verified, VerifiedFile};

/// Writes the verified tree into the empty directory `destination`.
///
/// Files get mode 0644 or 0755 whatever the umask, and the time of the commit. On failure the
/// destination may hold a part of the tree; nothing in it is unverified.
///
/// # Errors
/// [`SourceError::Destination`] if the directory is missing, not empty or can not be written;
/// [`SourceError::Altered`] and its kin if the repository changed since it was verified.
pub fn write_tree(
    verified: &Verified,
    repository: &Path,
    destination: &Path,
) -> Result<(), SourceError> {
    super::guarded(repository, || {
        let repo = Repository::open(repository)?;
        let objects = repo.objects()?;
        let writer = Writer::new(destination, verified.time)?;
        writer.write(&objects, &verified.files)
    })
}

struct Writer<'a> {
    root: OwnedFd,
    path: &'a Path,
    times: Timestamps,
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl<'a> Writer<'a> {
    fn new(path: &'a Path, time: i64) -> Result<Self, SourceError> {
        let root = fs::open(path, DIRECTORY, Mode::empty())
            .map_err(|e| SourceError::destination(path, e))?;
        let mut entries =
            fs::Dir::read_from(&root).map_err(|e| SourceError::destination(path, e))?;
        let occupied = entries
            .any(|entry| entry.map_or(true, |e| !matches!(e.file_name().to_bytes(), b"." | b"..")));
        if occupied {
            return Err(SourceError::destination(path, "is not empty"));
        }
        let at = Timespec { tv_sec: time, tv_nsec: 0 };
        Ok(Self { root, path, times: Timestamps { last_access: at, last_modification: at } })
    }

    /// Files come in path order, so each directory is made once and closed when the path leaves it.
    fn write(&self, objects: &Objects, files: &[VerifiedFile]) -> Result<(), SourceError> {
        let mut open: Vec<(&str, OwnedFd)> = Vec::new();
        for file in files {
            let (parent, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
            while let Some((left, fd)) = open.pop_if(|(path, _)| !is_below(parent, path)) {
                self.finish_directory(&fd, left)?;
            }
            let mut made = open.last().map_or(0, |(path, _)| path.len());
            while made < parent.len() {
                let from = if made == 0 { 0 } else { made + 1 };
                let end = parent[from..].find('/').map_or(parent.len(), |n| from + n);
                let above = open.last().map_or(&self.root, |(_, fd)| fd);
                let fd = self.make_directory(above, &parent[..end])?;
                open.push((&parent[..end], fd));
                made = end;
            }
            let directory = open.last().map_or(&self.root, |(_, fd)| fd);
            self.write_file(objects, directory, file, name)?;
        }
        while let Some((left, fd)) = open.pop() {
            self.finish_directory(&fd, left)?;
        }
        self.finish_directory(&self.root, "")
    }

    fn make_directory(&self, parent: &OwnedFd, path: &str) -> Result<OwnedFd, SourceError> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let failed = |e| SourceError::destination(&self.full(path), e);
        fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(failed)?;
        let fd = fs::openat(parent, name, DIRECTORY, Mode::empty()).map_err(failed)?;
        fs::fchmod(&fd, Mode::from_raw_mode(0o755)).map_err(failed)?;
        Ok(fd)
    }

    fn finish_directory(&self, fd: &OwnedFd, near: &str) -> Result<(), SourceError> {
        fs::futimens(fd, &self.times).map_err(|e| SourceError::destination(&self.full(near), e))
    }

    fn write_file(
        &self,
        objects: &Objects,
        parent: &OwnedFd,
        file: &VerifiedFile,
        name: &str,
    ) -> Result<(), SourceError> {
        let bytes = objects.read(file.blob, ObjectKind::Blob)?;
        if Sha256::of(&bytes) != file.sha256 || bytes.len() as u64 != file.size {
            let problem = "its SHA-256 is not the one that was verified".into();
            return Err(SourceError::Unreadable { kind: ObjectKind::Blob, id: file.blob, problem });
        }
        let failed = |e: std::io::Error| SourceError::destination(&self.full(&file.path), e);
        if file.mode == FileMode::Symlink {
            fs::symlinkat(bytes.as_slice(), parent, name).map_err(|e| failed(e.into()))?;
            return fs::utimensat(parent, name, &self.times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| failed(e.into()));
        }
        let mode =
            Mode::from_raw_mode(if file.mode == FileMode::Executable { 0o755 } else { 0o644 });
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(parent, name, flags, mode).map_err(|e| failed(e.into()))?;
        let mut out = FsFile::from(fd);
        out.write_all(&bytes).map_err(failed)?;
        fs::fchmod(out.as_fd(), mode).map_err(|e| failed(e.into()))?;
        fs::futimens(out.as_fd(), &self.times).map_err(|e| failed(e.into()))
    }

    fn full(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }
}

/// Whether `path` is `directory` or below it.
fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
