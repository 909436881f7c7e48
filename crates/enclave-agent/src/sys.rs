//! System calls that no safe wrapper offers. All `unsafe` code of the agent is here.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;
use nix::unistd::{ForkResult, Pid};

/// `fork(2)`: the child's id in the parent, `None` in the child.
///
/// Every caller has one thread only, so the child may do anything; this asserts it where it
/// can be known.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: with a single thread no lock can be held by a thread that the child lacks, so the
    // child is not limited to async-signal-safe functions. The agent forks before it starts its
    // service threads, and after it has joined those that copy files.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Makes `fd` available as descriptor `number`, open across `execve`. What was there is closed.
pub(crate) fn place(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: dup2 touches no memory. The caller is a forked child about to execute the program:
    // nothing that it still uses owns a descriptor below the ones it has moved out of the way.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into()).map(drop)
}

/// Marks every descriptor from `first` on close-on-exec.
pub(crate) fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    let (first, last) = (first as libc::c_uint, libc::c_uint::MAX);
    // SAFETY: close_range with this flag changes flags of descriptors only; no memory is touched
    // and no descriptor is closed now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Adds attributes (`MOUNT_ATTR_*`) to the mount that `mount` is the root of.
pub(crate) fn add_mount_attributes(mount: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a valid empty C string and `attr` a valid structure of the size given;
    // the kernel reads both and writes neither.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Brings the loopback interface up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero ifreq is valid: its fields are byte arrays and a union of plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: `request` is a valid ifreq with a terminated name; the kernel only reads it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into())
        .map(drop)
}

/// Sets the plain personality: no disabled address randomisation, no executable stacks, whatever
/// the starting half had.
pub(crate) fn plain_personality() -> io::Result<()> {
    // SAFETY: touches no memory.
    check(unsafe { libc::personality(0) }.into()).map(drop)
}

/// Restores the default action of every signal that the Rust runtime or a caller may have
/// changed for this process, and unblocks all.
pub(crate) fn default_signals() -> io::Result<()> {
    for signal in [libc::SIGPIPE, libc::SIGCHLD] {
        // SAFETY: the default action involves no handler code.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// `execve(2)`; returns only with an error.
pub(crate) fn execute(path: &CString, arguments: &[CString], environment: &[CString]) -> io::Error {
    match nix::unistd::execve(path, arguments, environment) {
        Ok(never) => match never {},
        Err(e) => e.into(),
    }
}

/// A descriptor of the first listening kind, duplicated out of the way of the ones a program
/// expects.
pub(crate) fn duplicate_high(fd: impl AsFd) -> io::Result<OwnedFd> {
    const HIGH: RawFd = 200;
    let raw = nix::fcntl::fcntl(fd.as_fd(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(HIGH))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Whether `memfd_secret(2)` works here.
pub(crate) fn has_memfd_secret() -> bool {
    // SAFETY: touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, 0) };
    let Ok(fd) = RawFd::try_from(fd) else { return false };
    if fd < 0 {
        return false;
    }
    // SAFETY: the kernel has just made this descriptor for us; dropping it closes it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    true
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
