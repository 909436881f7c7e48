//! What is mounted where.
//!
//! The agent's own world is a small tmpfs: `/root` (the program's root) and `/sys/kernel/config/tsm`
//! (the TEE), which the program never sees, because it gets a mount namespace of its own with
//! `/root` as `/`. Everything is mounted through descriptors: no path of the host or of the plan
//! is looked up twice, and none leads through a link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use casemate_enclave_protocol::LaunchConfig;
use casemate_enclave_protocol::agent_api::SOCKET;
use casemate_enclave_protocol::launch::TeeSource;
use casemate_spec::spec::VolumeKind;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    mount_change, move_mount, open_tree, unmount,
};

use crate::error::AgentError;
use crate::secrets::Secrets;
use crate::sys;

/// The program's root in the agent's world.
pub(crate) const PROGRAM_ROOT: &str = "/root";

const TSM: &str = "sys/kernel/config/tsm";
const PLAIN: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Files of `/proc` that tell about or change the whole machine.
const MASKED: [&str; 13] = [
    "kcore",
    "keys",
    "key-users",
    "kmsg",
    "kallsyms",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "sched_debug",
    "slabinfo",
    "sysrq-trigger",
    "timer_list",
    "vmallocinfo",
];

/// Directories of `/proc` that are not about processes.
const READ_ONLY: [&str; 12] = [
    "acpi",
    "asound",
    "bus",
    "driver",
    "dynamic_debug",
    "fs",
    "irq",
    "pressure",
    "scsi",
    "sys",
    "sysvipc",
    "tty",
];

/// The two file systems before they are mounted anywhere.
pub(crate) struct Stage {
    world: OwnedFd,
    tsm: OwnedFd,
    root: OwnedFd,
}

/// The enclave's pseudo-terminal.
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

/// Everything mounted, the host's file systems gone.
pub(crate) struct Mounted {
    root: OwnedFd,
    terminal: Option<Terminal>,
}

impl Stage {
    pub(crate) fn new(config: &LaunchConfig) -> Result<Self, AgentError> {
        // Modes are set as planned, whatever the starting half's umask is.
        rustix::process::umask(Mode::empty());
        let propagation = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", propagation).map_err(at("making private", "/"))?;
        let world = new_fs("tmpfs", &[("mode", "0755"), ("size", "16m")], PLAIN)?;
        let tsm = make_dirs(world.as_fd(), TSM)?;
        let root = new_fs("tmpfs", &[("mode", "0755")], PLAIN)?;
        let tsm = match config.tee {
            TeeSource::Device => clone_tree(&format!("/{TSM}"), true)?,
            _ => tsm,
        };
        Ok(Self { world, tsm, root })
    }

    /// The empty directory of the program's root.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory that the simulated TEE serves.
    pub(crate) fn tee_tree(&self) -> BorrowedFd<'_> {
        self.tsm.as_fd()
    }

    /// Mounts everything and leaves the host's file systems.
    pub(crate) fn mount(
        self,
        config: &LaunchConfig,
        terminal: bool,
    ) -> Result<Mounted, AgentError> {
        let devices: Vec<(&str, OwnedFd)> = DEVICES
            .iter()
            .map(|name| Ok((*name, clone_tree(&format!("/dev/{name}"), false)?)))
            .collect::<Result<_, AgentError>>()?;
        let volumes: Vec<OwnedFd> = config
            .volumes
            .iter()
            .map(|source| match source {
                Some(path) => clone_tree(path, true),
                None => new_fs("tmpfs", &[("mode", "1777")], PLAIN),
            })
            .collect::<Result<_, _>>()?;
        // The kernel gives a user namespace a /proc only while it sees the host's whole one.
        let proc = new_fs("proc", &[("hidepid", "ptraceable")], plain_noexec())?;

        attach(self.world.as_fd(), somewhere()?)?;
        attach(self.root.as_fd(), make_dirs(self.world.as_fd(), "root")?)?;
        if config.tee == TeeSource::Device {
            attach(self.tsm.as_fd(), make_dirs(self.world.as_fd(), TSM)?)?;
        }
        let root = self.root.as_fd();
        attach(proc.as_fd(), make_dirs(root, "proc")?)?;
        allow_low_ports(proc.as_fd())?;
        mask_proc(proc.as_fd())?;
        let terminal = mount_dev(root, &devices, terminal)?;
        mount_tmp(root)?;
        for (volume, tree) in config.spec.volumes.iter().zip(&volumes) {
            let mut attributes = PLAIN;
            if volume.read_only {
                attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
            }
            let doing = at("limiting", &volume.path);
            if volume.kind == VolumeKind::Untrusted || volume.read_only {
                sys::add_mount_attributes(tree.as_fd(), attributes.bits().into()).map_err(doing)?;
            }
            attach(tree.as_fd(), make_dirs(root, &volume.path)?)?;
        }
        if config.spec.attestation {
            make_dirs(root, "run/casemate")?;
        }
        let world = openat(&self.world, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        enter(world.map_err(at("opening", "/"))?.as_fd())?;
        Ok(Mounted { root: self.root, terminal })
    }
}

impl Mounted {
    pub(crate) const fn terminal(&self) -> Option<&Terminal> {
        self.terminal.as_ref()
    }

    /// Writes the secrets that are delivered as files, readable by their owner alone.
    pub(crate) fn write_secret_files(&self, secrets: &Secrets) -> Result<(), AgentError> {
        for (path, value) in secrets.files() {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            let directory = make_dirs(self.root.as_fd(), directory)?;
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o400);
            let fd = openat(&directory, name, flags, mode).map_err(at("making", path))?;
            let mut file = std::fs::File::from(fd);
            io::Write::write_all(&mut file, value).map_err(|e| AgentError::Mount {
                doing: "writing",
                path: path.into(),
                source: e,
            })?;
        }
        Ok(())
    }

    /// The socket on which the program asks the agent.
    pub(crate) fn bind_agent_socket(&self) -> Result<UnixListener, AgentError> {
        let path = format!("{PROGRAM_ROOT}{SOCKET}");
        let fail = |e| AgentError::Mount { doing: "binding", path: SOCKET.into(), source: e };
        UnixListener::bind(path).map_err(fail)
    }

    /// Makes the root read-only. Mounts on it keep what they are.
    pub(crate) fn seal(&self) -> Result<(), AgentError> {
        let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
        sys::add_mount_attributes(self.root.as_fd(), read_only.bits().into())
            .map_err(at("making read-only", "/"))
    }
}

/// In the program's process: a mount namespace of its own, whose root is the program's.
pub(crate) fn enter_program_root() -> Result<(), AgentError> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .map_err(|e| AgentError::Namespaces(e.into()))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, PROGRAM_ROOT, flags, Mode::empty()).map_err(at("opening", "/"))?;
    enter(root.as_fd())
}

/// Makes the mount `root` the root and drops everything above it.
fn enter(root: BorrowedFd<'_>) -> Result<(), AgentError> {
    rustix::process::fchdir(root).map_err(at("entering", "/"))?;
    rustix::process::pivot_root(".", ".").map_err(at("changing", "/"))?;
    // The old root lies on top of the new one now.
    unmount(".", UnmountFlags::DETACH).map_err(at("leaving", "/"))?;
    rustix::process::chdir("/").map_err(at("entering", "/"))
}

fn new_fs(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, AgentError> {
    let make = || {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            fsconfig_set_string(&context, *key, *value)?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().map_err(at("mounting", kind))
}

/// A detached copy of the mount at `path` of the host.
fn clone_tree(path: &str, recursive: bool) -> Result<OwnedFd, AgentError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags).map_err(at("mounting", path))
}

fn attach(mount: BorrowedFd<'_>, target: impl AsFd) -> Result<(), AgentError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).map_err(at("attaching", "a mount"))
}

/// A directory of the host to mount the agent's world on; it is hidden in this namespace only.
fn somewhere() -> Result<OwnedFd, AgentError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &str| openat(CWD, path, flags, Mode::empty());
    ["/tmp", "/run", "/mnt", "/etc"]
        .into_iter()
        .find_map(|path| open(path).ok())
        .ok_or(Errno::NOENT)
        .map_err(at("opening", "/tmp"))
}

/// Makes and opens the directories of `path` below `root`. A link on the way is refused.
fn make_dirs(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, AgentError> {
    let open = |at: BorrowedFd<'_>, name: &str| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(at, name, flags, Mode::empty(), resolve)
    };
    let make = || {
        let mut here = open(root, ".")?;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            match mkdirat(&here, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            here = open(here.as_fd(), part)?;
        }
        Ok(here)
    };
    make().map_err(at("making the directory", path))
}

/// Every port may be listened on: the network is the enclave's own.
fn allow_low_ports(proc: BorrowedFd<'_>) -> Result<(), AgentError> {
    const NAME: &str = "sys/net/ipv4/ip_unprivileged_port_start";
    let write = || {
        let file = openat(proc, NAME, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, b"0")
    };
    match write() {
        // Without IPv4 in the kernel there is nothing to allow.
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(at("writing", NAME)(e)),
    }
}

fn mask_proc(proc: BorrowedFd<'_>) -> Result<(), AgentError> {
    for name in MASKED {
        let Some(target) = existing(proc, name)? else { continue };
        attach(clone_tree("/dev/null", false)?.as_fd(), target)?;
    }
    for name in READ_ONLY {
        let Some(target) = existing(proc, name)? else { continue };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let copy = open_tree(&target, "", flags).map_err(at("mounting", name))?;
        let read_only = plain_noexec() | MountAttrFlags::MOUNT_ATTR_RDONLY;
        sys::add_mount_attributes(copy.as_fd(), read_only.bits().into())
            .map_err(at("making read-only", name))?;
        attach(copy.as_fd(), target)?;
    }
    Ok(())
}

fn existing(at_dir: BorrowedFd<'_>, name: &str) -> Result<Option<OwnedFd>, AgentError> {
    match openat(at_dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(at("opening", name)(e)),
    }
}

fn mount_dev(
    root: BorrowedFd<'_>,
    devices: &[(&str, OwnedFd)],
    terminal: bool,
) -> Result<Option<Terminal>, AgentError> {
    let noexec = PLAIN | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let dev = new_fs("tmpfs", &[("mode", "0755"), ("size", "1m")], noexec)?;
    attach(dev.as_fd(), make_dirs(root, "dev")?)?;
    for (name, device) in devices {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = openat(&dev, *name, flags, Mode::empty()).map_err(at("making", name))?;
        attach(device.as_fd(), target)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlinkat(target, &dev, name).map_err(at("making", name))?;
    }
    let pts = new_fs("devpts", &[("ptmxmode", "0666"), ("mode", "0620")], {
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC
    })?;
    attach(pts.as_fd(), make_dirs(dev.as_fd(), "pts")?)?;
    let shm = new_fs("tmpfs", &[("mode", "1777")], PLAIN)?;
    attach(shm.as_fd(), make_dirs(dev.as_fd(), "shm")?)?;
    let terminal = if terminal { Some(open_terminal(pts.as_fd())?) } else { None };
    sys::add_mount_attributes(dev.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into())
        .map_err(at("making read-only", "/dev"))?;
    Ok(terminal)
}

fn open_terminal(pts: BorrowedFd<'_>) -> Result<Terminal, AgentError> {
    let open = || -> io::Result<Terminal> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = openat(pts, "ptmx", flags, Mode::empty())?;
        rustix::pty::unlockpt(&master)?;
        let flags = rustix::pty::OpenptFlags::RDWR
            | rustix::pty::OpenptFlags::NOCTTY
            | rustix::pty::OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        Ok(Terminal { master, slave })
    };
    open().map_err(AgentError::Terminal)
}

/// `/tmp` is the same memory as the root, so that a program that lies there is found, but stays
/// writable when the root no longer is.
fn mount_tmp(root: BorrowedFd<'_>) -> Result<(), AgentError> {
    let target = make_dirs(root, "tmp")?;
    rustix::fs::chmodat(root, "tmp", Mode::from_raw_mode(0o1777), AtFlags::empty())
        .map_err(at("opening up", "/tmp"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = open_tree(&target, "", flags).map_err(at("mounting", "/tmp"))?;
    attach(copy.as_fd(), target)
}

const fn plain_noexec() -> MountAttrFlags {
    PLAIN.union(MountAttrFlags::MOUNT_ATTR_NOEXEC)
}

fn at<E: Into<io::Error>>(doing: &'static str, path: &str) -> impl FnOnce(E) -> AgentError {
    move |source| AgentError::Mount { doing, path: path.into(), source: source.into() }
}
