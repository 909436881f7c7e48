//! What a step left behind: downloads after a fetch step, artifacts after the last.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use casemate_spec::Sha256;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat, openat2, unlinkat};
use rustix::io::Errno;

use super::root::at;
use super::{Artifact, BuildError, SOURCE_DIR};

/// Where steps can write.
const WRITABLE: [&str; 3] = [SOURCE_DIR, "/tmp", "/dev/shm"];

/// Tells path (as steps see it), digest and size of every regular file a step can have written.
pub(super) fn written_files(tell: &mut dyn FnMut(String, Sha256, u64)) -> Result<(), BuildError> {
    WRITABLE.iter().try_for_each(|directory| walk(directory, tell))
}

fn walk(directory: &str, tell: &mut dyn FnMut(String, Sha256, u64)) -> Result<(), BuildError> {
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let reading = |e: std::io::Error| BuildError::setup(format!("reading {directory}"), e);
        for entry in fs::read_dir(at(&directory)).map_err(reading)? {
            let entry = entry.map_err(reading)?;
            let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().map_err(reading)?;
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() {
                let file = File::open(entry.path()).map_err(reading)?;
                let (sha256, size) = Sha256::of_reader(file).map_err(reading)?;
                tell(path, sha256, size);
            }
        }
    }
    Ok(())
}

/// Copies the artifact at `path` (relative to the source directory) into the output directory.
pub(super) fn artifact(path: &str, output: BorrowedFd<'_>) -> Result<Artifact, BuildError> {
    let copying = |e: std::io::Error| BuildError::setup(format!("copying artifact {path}"), e);
    let mut from = open_plain(path)?;
    let metadata = from.metadata().map_err(copying)?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a directory" } else { "a special file" };
        return Err(BuildError::ArtifactKind { path: path.into(), found: found.into() });
    }
    let name = path.rsplit('/').next().unwrap_or(path).to_owned();
    let executable = metadata.permissions().mode() & 0o111 != 0;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(if executable { 0o755 } else { 0o644 });
    remove(&name, output)?;
    let mut to = File::from(openat(output, &name, flags, mode).map_err(|e| copying(e.into()))?);
    let (sha256, size) =
        Sha256::of_reader(Copy { from: &mut from, to: &mut to }).map_err(copying)?;
    to.sync_all().map_err(copying)?;
    Ok(Artifact { name, path: path.into(), sha256, size, executable })
}

/// Removes an artifact that must not be used.
pub(super) fn remove(name: &str, output: BorrowedFd<'_>) -> Result<(), BuildError> {
    match unlinkat(output, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(BuildError::setup(format!("removing {name} from the output directory"), e)),
    }
}

/// Opens a path inside the source directory without following a single link.
fn open_plain(path: &str) -> Result<File, BuildError> {
    let kind = |found: &str| BuildError::ArtifactKind { path: path.into(), found: found.into() };
    let opening = |e: Errno| BuildError::setup(format!("opening artifact {path}"), e);
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = openat(CWD, at(SOURCE_DIR), directory, Mode::empty()).map_err(opening)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(&source, Path::new(path), flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(File::from(fd)),
        Err(Errno::LOOP) => Err(kind("a symbolic link, or reached through one")),
        Err(Errno::NXIO) => Err(kind("a socket")),
        Err(Errno::NOENT | Errno::NOTDIR) => Err(BuildError::ArtifactMissing { path: path.into() }),
        Err(e) => Err(opening(e)),
    }
}

/// Writes what is read.
struct Copy<'a> {
    from: &'a mut File,
    to: &'a mut File,
}

impl Read for Copy<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.to.write_all(&buffer[..read])?;
        Ok(read)
    }
}
