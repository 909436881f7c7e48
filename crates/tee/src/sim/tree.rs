//! File operations on the tree that plays configfs.
//!
//! The tree belongs to the enclave. Everything goes through directory descriptors and follows no
//! symbolic link, so that no name in it can lead the simulator anywhere else.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fstat, ftruncate, inotify, mkdirat, mknodat, openat, renameat,
    unlinkat,
};

const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);
const PRIVATE_DIR: Mode = Mode::from_raw_mode(0o700);
const READ_ONLY: Mode = Mode::from_raw_mode(0o400);

/// Name under which a FIFO is made before it takes the place of another.
const NEXT: &str = ".next";

/// Opens a directory, which must not be a link.
pub(super) fn open_dir(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// Makes a directory and opens it.
pub(super) fn make_dir(parent: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    mkdirat(parent, name, PRIVATE_DIR)?;
    open_dir(parent, name.as_bytes())
}

/// Makes a file that must not be there yet and is only read.
pub(super) fn make_file(dir: &OwnedFd, name: &str, content: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, READ_ONLY)?;
    write_whole(&file, content)
}

/// Replaces the content of a file in one step.
pub(super) fn replace_file(dir: &OwnedFd, name: &str, content: &[u8]) -> io::Result<()> {
    let _ = unlinkat(dir, NEXT, AtFlags::empty());
    make_file(dir, NEXT, content)?;
    Ok(renameat(dir, NEXT, dir, name)?)
}

/// A file the enclave writes, held open so that taking its content is no event of its own.
pub(super) struct Inbox(OwnedFd);

impl Inbox {
    pub(super) fn make(dir: &OwnedFd, name: &str) -> io::Result<Self> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(openat(dir, name, flags, PRIVATE_FILE)?))
    }

    /// Takes what was written, at most `limit` bytes and one more, and empties the file.
    pub(super) fn take(&self, limit: usize) -> io::Result<Vec<u8>> {
        let mut content = vec![0; limit + 1];
        let mut size = 0;
        while size < content.len() {
            match rustix::io::pread(&self.0, &mut content[size..], size as u64) {
                Ok(0) => break,
                Ok(n) => size += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        content.truncate(size);
        ftruncate(&self.0, 0)?;
        Ok(content)
    }
}

/// A FIFO whose every opening is answered once.
///
/// The simulator holds it open for reading and writing, so that a reader's opening succeeds at
/// once and is reported by inotify. The answer goes into the FIFO the reader has; before, a fresh
/// one takes its name, and after, the simulator lets go, which is the reader's end of file.
pub(super) struct Fifo {
    name: &'static str,
    held: OwnedFd,
}

impl Fifo {
    pub(super) fn make(dir: &OwnedFd, name: &'static str) -> io::Result<Self> {
        Ok(Self { name, held: next_fifo(dir, name)? })
    }

    pub(super) fn answer(&mut self, dir: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
        let fresh = next_fifo(dir, self.name)?;
        let asked = std::mem::replace(&mut self.held, fresh);
        write_whole(&asked, bytes)
    }

    /// Removes the name, so that nobody waits on it for ever.
    pub(super) fn remove(&self, dir: &OwnedFd) {
        let _ = unlinkat(dir, self.name, AtFlags::empty());
    }
}

/// Puts a fresh FIFO in place of `name` and holds it open.
fn next_fifo(dir: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let _ = unlinkat(dir, NEXT, AtFlags::empty());
    mknodat(dir, NEXT, FileType::Fifo, PRIVATE_FILE, 0)?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let held = openat(dir, NEXT, flags, Mode::empty())?;
    if !FileType::from_raw_mode(fstat(&held)?.st_mode).is_fifo() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    renameat(dir, NEXT, dir, name)?;
    Ok(held)
}

/// Watches a directory that is known by its descriptor only.
pub(super) fn watch(
    inotify: &OwnedFd,
    dir: &OwnedFd,
    events: inotify::WatchFlags,
) -> io::Result<i32> {
    let path = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
    Ok(inotify::add_watch(inotify, path, events | inotify::WatchFlags::ONLYDIR)?)
}

/// Writes all, or fails: a full FIFO is an error, not a wait.
fn write_whole(file: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
