//! Questions about a file that somebody is opening, answered from its descriptor.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};

use aws_lc_rs::digest;
use casemate_spec::Sha256;
use md5::Digest as _;
use nix::errno::Errno;
use rustix::fs::{Stat, fstat};

use super::debian::Md5;
use super::{BuildError, Process};

/// What the file system changes whenever it changes a file.
pub(super) type Cookie = (i64, i64, i64, i64, i64);

/// What a file holds.
pub(super) struct Hashed {
    pub sha256: Sha256,
    pub md5: Md5,
    pub size: u64,
}

/// Digests of everything the descriptor shows, MD5 only on demand (it is zero otherwise).
pub(super) fn hash(fd: BorrowedFd<'_>, with_md5: bool) -> Result<Hashed, BuildError> {
    let mut sha256 = digest::Context::new(&digest::SHA256);
    let mut md5 = md5::Md5::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0;
    loop {
        let read = match rustix::io::pread(fd, &mut buffer, size) {
            Ok(0) => break,
            Ok(read) => read,
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(BuildError::setup("reading an opened file", e)),
        };
        sha256.update(&buffer[..read]);
        if with_md5 {
            md5.update(&buffer[..read]);
        }
        size += read as u64;
    }
    let mut out = [0; 32];
    out.copy_from_slice(sha256.finish().as_ref());
    let md5 = if with_md5 { md5.finalize().into() } else { [0; 16] };
    Ok(Hashed { sha256: Sha256(out), md5, size })
}

/// The path of an opened file as its opener sees it.
pub(super) fn path_of(fd: BorrowedFd<'_>) -> Result<String, BuildError> {
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .map_err(|e| BuildError::setup("naming an opened file", e))?;
    let text = link.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").unwrap_or(&text).to_owned())
}

/// What the file system says about an opened file.
pub(super) fn status(fd: BorrowedFd<'_>) -> Result<Stat, BuildError> {
    fstat(fd).map_err(|e| BuildError::setup("examining an opened file", e))
}

/// The [`Cookie`] of a file.
pub(super) fn cookie(stat: &Stat) -> Cookie {
    (
        stat.st_size,
        stat.st_mtime,
        stat.st_mtime_nsec.cast_signed(),
        stat.st_ctime,
        stat.st_ctime_nsec.cast_signed(),
    )
}

/// Whether any process has the file open for writing: only then does the kernel refuse a read lease.
pub(super) fn has_writer(fd: BorrowedFd<'_>) -> Result<bool, BuildError> {
    let lease = |kind: i32| {
        // SAFETY: F_SETLEASE takes an integer and touches no memory; the descriptor is borrowed,
        // so it is open for the whole call.
        #[allow(unsafe_code)]
        Errno::result(unsafe { nix::libc::fcntl(fd.as_raw_fd(), nix::libc::F_SETLEASE, kind) })
    };
    match lease(nix::libc::F_RDLCK) {
        Ok(_) => {
            lease(nix::libc::F_UNLCK)
                .map_err(|e| BuildError::setup("giving a file lease back", e))?;
            Ok(false)
        }
        Err(Errno::EAGAIN) => Ok(true),
        Err(e) => Err(BuildError::Kernel {
            what: "file leases (CAP_LEASE)".into(),
            reason: e.to_string(),
        }),
    }
}

/// Who a number belongs to.
pub(super) fn process(pid: i32) -> Box<Process> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok();
    Box::new(Process {
        pid,
        name: name.trim_end().to_owned(),
        program: program.map(|p| p.to_string_lossy().into_owned()),
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn sees_a_writer_and_sees_none() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let reader = fs::File::open(file.path()).expect("opening it again");
        assert!(has_writer(reader.as_fd()).expect("leases"));
        let path = file.into_temp_path();
        assert!(!has_writer(reader.as_fd()).expect("leases"));
        drop(path);
    }

    #[test]
    fn hashes_what_the_descriptor_shows() {
        let mut file = tempfile::tempfile().expect("temporary file");
        std::io::Write::write_all(&mut file, b"abc").expect("writing");
        let hashed = hash(file.as_fd(), true).expect("reading");
        assert_eq!(hashed.sha256, Sha256::of(b"abc"));
        assert_eq!(hex::encode(hashed.md5), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(hashed.size, 3);
    }
}
