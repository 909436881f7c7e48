//! The root that the steps see: the host's `/usr` read-only, the source, and little else.
//!
//! There is no `ld.so.cache`, so the loader searches its default directories; `/etc` holds what the
//! builder writes and those of the toolchain's configuration files that are as shipped.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use casemate_spec::Sha256;
use md5::Digest as _;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps, openat2, utimensat,
};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount,
};

use super::classify::class_of;
use super::debian::{MERGED, Toolchain, is_merged};
use super::{BUILD_UID, BuildError, Class, SOURCE_DIR, SourceFile, SourceMode, SourceTree};

/// Where the observer mounts the root; what lay there stays reachable by descriptors opened before.
pub(super) const MOUNT_POINT: &str = "/tmp";

/// Device files, with the numbers that make each what it is.
const DEVICES: [(&str, u64); 5] = [
    ("null", nix::libc::makedev(1, 3)),
    ("zero", nix::libc::makedev(1, 5)),
    ("full", nix::libc::makedev(1, 7)),
    ("random", nix::libc::makedev(1, 8)),
    ("urandom", nix::libc::makedev(1, 9)),
];

/// Largest file read into memory while the root is made.
const MAX_CONFIGURATION: u64 = 16 << 20;

/// What was assembled.
pub(super) struct Root {
    /// Directories bound from the host, as the steps see them.
    pub bound: Vec<String>,
    /// What the builder put there, by path as the steps see it.
    pub provided: HashMap<String, (Sha256, Class)>,
    /// Configuration files left out because they are not as shipped.
    pub skipped: Vec<String>,
}

/// Makes this process's mounts its own.
pub(super) fn detach_mounts() -> Result<(), BuildError> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .map_err(|e| BuildError::setup("making a mount namespace", e))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| BuildError::setup("making mounts private", e))
}

/// Mounts `/proc` of this process's own pid namespace.
pub(super) fn mount_proc(at: &str) -> Result<(), BuildError> {
    mount("proc", at, "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)
        .map_err(|e| BuildError::setup(format!("mounting {at}"), e))
}

/// Assembles everything but the source under [`MOUNT_POINT`]; `host` is the host's root.
pub(super) fn assemble(host: &Path, toolchain: &Toolchain) -> Result<Root, BuildError> {
    mount(
        "casemate",
        MOUNT_POINT,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(c"mode=0755,size=80%,nr_inodes=0"),
    )
    .map_err(|e| BuildError::setup("mounting a tmpfs", e))?;
    for (directory, mode) in [
        ("usr", 0o755),
        ("proc", 0o555),
        ("dev", 0o755),
        ("dev/shm", 0o1777),
        ("tmp", 0o1777),
        ("etc", 0o755),
        ("build", 0o755),
        ("build/source", 0o755),
    ] {
        make_directory(&at(directory), mode)?;
    }
    chown(at("build/source"), Some(BUILD_UID), Some(BUILD_UID))
        .map_err(|e| failed("giving away", "build/source", e))?;
    let mut root = Root { bound: bind_host(host)?, provided: HashMap::new(), skipped: Vec::new() };
    bind_devices()?;
    write_configuration(&mut root)?;
    copy_alternatives(host)?;
    copy_conffiles(host, toolchain, &mut root)?;
    bundle_certificates(host, toolchain, &mut root)?;
    Ok(root)
}

/// Copies the source into the root, checking each file against the verified table.
pub(super) fn write_source(
    tree: &SourceTree,
    from: impl AsFd,
    time: i64,
) -> Result<(), BuildError> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time).unwrap_or(0));
    for (path, file) in &tree.files {
        let differs = |problem: String| BuildError::SourceDiffers { path: path.clone(), problem };
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(differs("not a plain relative path".into()));
        }
        let to = at(SOURCE_DIR).join(path);
        make_parents(&to).map_err(|e| failed("making directories for", path, e))?;
        match file.mode {
            SourceMode::Link => copy_link(&from, path, file, &to, &differs)?,
            SourceMode::File | SourceMode::Executable => {
                copy_file(&from, path, file, &to, time, &differs)?
            }
        }
    }
    refuse_extra_files(tree, &tree_path(&from), Path::new(""))
}

fn copy_file(
    from: &impl AsFd,
    path: &str,
    expected: &SourceFile,
    to: &Path,
    time: SystemTime,
    differs: &dyn Fn(String) -> BuildError,
) -> Result<(), BuildError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let fd =
        openat2(from, path, flags, Mode::empty(), resolve).map_err(|e| differs(e.to_string()))?;
    let mut reader = File::from(fd);
    let copying = |e: std::io::Error| failed("copying source file", path, e);
    if !reader.metadata().map_err(copying)?.is_file() {
        return Err(differs("not a regular file".into()));
    }
    let mut writer = File::create_new(to).map_err(copying)?;
    let (sha256, _) =
        Sha256::of_reader(Tee { reader: &mut reader, writer: &mut writer }).map_err(copying)?;
    if sha256 != expected.sha256 {
        return Err(differs(format!("expected SHA-256 {}, found {sha256}", expected.sha256)));
    }
    let mode = if expected.mode == SourceMode::Executable { 0o755 } else { 0o644 };
    writer.set_permissions(Permissions::from_mode(mode)).map_err(copying)?;
    writer.set_modified(time).map_err(copying)?;
    chown(to, Some(BUILD_UID), Some(BUILD_UID)).map_err(copying)
}

fn copy_link(
    from: &impl AsFd,
    path: &str,
    expected: &SourceFile,
    to: &Path,
    differs: &dyn Fn(String) -> BuildError,
) -> Result<(), BuildError> {
    let target = fs::read_link(tree_path(from).join(path)).map_err(|e| differs(e.to_string()))?;
    let bytes = target.as_os_str().as_encoded_bytes();
    if Sha256::of(bytes) != expected.sha256 {
        return Err(differs(format!("links to {}", target.display())));
    }
    let copying = |e: std::io::Error| failed("copying source link", path, e);
    symlink(&target, to).map_err(copying)?;
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let times = Timestamps { last_access: zero, last_modification: zero };
    utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| copying(e.into()))?;
    lchown(to, Some(BUILD_UID), Some(BUILD_UID)).map_err(copying)
}

/// A file that the table does not name must not lie in the tree that was handed over.
fn refuse_extra_files(tree: &SourceTree, top: &Path, inside: &Path) -> Result<(), BuildError> {
    let walking =
        |e: std::io::Error| failed("reading source directory", &inside.display().to_string(), e);
    for entry in fs::read_dir(top.join(inside)).map_err(walking)? {
        let entry = entry.map_err(walking)?;
        let path = inside.join(entry.file_name());
        if entry.file_type().map_err(walking)?.is_dir() {
            refuse_extra_files(tree, top, &path)?;
        } else if !path.to_str().is_some_and(|p| tree.files.contains_key(p)) {
            let problem = "not in the verified tree".into();
            return Err(BuildError::SourceDiffers { path: path.display().to_string(), problem });
        }
    }
    Ok(())
}

/// The resolver's configuration for a step with network, and where it goes.
pub(super) fn resolver(file: &Path) -> Option<(String, Vec<u8>)> {
    fs::read(file).ok().map(|bytes| ("/etc/resolv.conf".to_owned(), bytes))
}

/// The path at which the observer sees what the steps see at `inside`.
pub(super) fn at(inside: &str) -> PathBuf {
    Path::new(MOUNT_POINT).join(inside.trim_start_matches('/'))
}

fn bind_host(host: &Path) -> Result<Vec<String>, BuildError> {
    let mut bound = vec!["/usr".to_owned()];
    bind_read_only(&host.join("usr"), &at("usr"))?;
    for name in MERGED {
        if is_merged(host, name) {
            let link = at(name);
            symlink(format!("usr/{name}"), &link)
                .map_err(|e| failed("linking", &link.display().to_string(), e))?;
        } else if host.join(name).is_dir() {
            make_directory(&at(name), 0o755)?;
            bind_read_only(&host.join(name), &at(name))?;
            bound.push(format!("/{name}"));
        }
    }
    Ok(bound)
}

fn bind_read_only(from: &Path, to: &Path) -> Result<(), BuildError> {
    let binding = |e| failed("binding", &from.display().to_string(), e);
    mount_bind(from, to).map_err(|e| binding(e.into()))?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(to, flags, "").map_err(|e| binding(e.into()))
}

fn bind_devices() -> Result<(), BuildError> {
    for (name, number) in DEVICES {
        let (from, to) = (Path::new("/dev").join(name), at("dev").join(name));
        let binding = |e| failed("binding", &from.display().to_string(), e);
        File::create_new(&to).map_err(binding)?;
        mount_bind(&from, &to).map_err(|e| binding(e.into()))?;
        let metadata = fs::metadata(&to).map_err(binding)?;
        if !metadata.file_type().is_char_device() || metadata.rdev() != number {
            return Err(BuildError::setup(
                format!("binding {}", from.display()),
                "not that device",
            ));
        }
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, at("dev").join(name)).map_err(|e| failed("linking", name, e))?;
    }
    Ok(())
}

fn write_configuration(root: &mut Root) -> Result<(), BuildError> {
    let passwd = format!(
        "root:x:0:0:root:/:/usr/sbin/nologin\nbuild:x:{BUILD_UID}:{BUILD_UID}:build:/tmp:/bin/sh\n\
         nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
    );
    let group = format!("root:x:0:\nbuild:x:{BUILD_UID}:\nnogroup:x:65534:\n");
    for (path, text) in [
        ("/etc/passwd", passwd.as_str()),
        ("/etc/group", group.as_str()),
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ] {
        provide(root, path, text.as_bytes(), Class::Builder)?;
    }
    Ok(())
}

/// Debian's choice of tools behind generic names: links only, what they lead to is checked when used.
fn copy_alternatives(host: &Path) -> Result<(), BuildError> {
    let from = host.join("etc/alternatives");
    let Ok(entries) = fs::read_dir(&from) else { return Ok(()) };
    make_directory(&at("etc/alternatives"), 0o755)?;
    for entry in entries {
        let entry = entry.map_err(|e| failed("reading", "/etc/alternatives", e))?;
        if entry.file_type().is_ok_and(|t| t.is_symlink()) {
            copy_symlink(&entry.path(), &at("etc/alternatives").join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn copy_conffiles(host: &Path, toolchain: &Toolchain, root: &mut Root) -> Result<(), BuildError> {
    for (path, expected, package) in &toolchain.conffiles {
        let Some(bytes) =
            path.starts_with("/etc/").then(|| read_small(&host.join(&path[1..]))).flatten()
        else {
            continue;
        };
        if root.provided.contains_key(path) {
            continue;
        }
        if md5::Md5::digest(&bytes)[..] == expected[..] {
            provide(root, path, &bytes, class_of(&toolchain.packages[*package]))?;
        } else {
            root.skipped.push(path.clone());
        }
    }
    Ok(())
}

/// The one file that TLS clients read: the certificates of the `ca-certificates` package, joined
/// here, because the host's own copy of it is made by a maintainer script.
fn bundle_certificates(
    host: &Path,
    toolchain: &Toolchain,
    root: &mut Root,
) -> Result<(), BuildError> {
    if !toolchain.has("ca-certificates") {
        return Ok(());
    }
    let mut bundle = Vec::new();
    for (path, digests) in toolchain.under("/usr/share/ca-certificates/") {
        let bytes = read_small(&host.join(&path[1..])).unwrap_or_default();
        if digests.contains(&md5::Md5::digest(&bytes).into()) {
            bundle.extend(bytes);
            bundle.push(b'\n');
        } else {
            root.skipped.push(path.to_owned());
        }
    }
    provide(root, "/etc/ssl/certs/ca-certificates.crt", &bundle, Class::Builder)
}

fn provide(root: &mut Root, path: &str, bytes: &[u8], class: Class) -> Result<(), BuildError> {
    let to = at(path);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|e| failed("making directories for", path, e))?;
    }
    fs::write(&to, bytes).map_err(|e| failed("writing", path, e))?;
    root.provided.insert(path.to_owned(), (Sha256::of(bytes), class));
    Ok(())
}

fn read_small(path: &Path) -> Option<Vec<u8>> {
    let metadata =
        fs::metadata(path).ok().filter(|m| m.is_file() && m.len() <= MAX_CONFIGURATION)?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).ok()?);
    File::open(path).ok()?.take(MAX_CONFIGURATION).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn copy_symlink(from: &Path, to: &Path) -> Result<(), BuildError> {
    fs::read_link(from)
        .and_then(|target| symlink(target, to))
        .map_err(|e| failed("copying link", &from.display().to_string(), e))
}

fn make_directory(path: &Path, mode: u32) -> Result<(), BuildError> {
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(|e| failed("making directory", &path.display().to_string(), e))
}

/// Makes the directories above a source file, owned by the build.
fn make_parents(file: &Path) -> std::io::Result<()> {
    let Some(parent) = file.parent().filter(|p| !p.exists()) else { return Ok(()) };
    make_parents(parent)?;
    fs::create_dir(parent)?;
    chown(parent, Some(BUILD_UID), Some(BUILD_UID))
}

/// A path that leads to what a descriptor shows, whatever is mounted over its name.
pub(super) fn tree_path(fd: &impl AsFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

fn failed(doing: &str, what: &str, reason: std::io::Error) -> BuildError {
    BuildError::setup(format!("{doing} {what}"), reason)
}

/// Writes what is read.
struct Tee<'a> {
    reader: &'a mut File,
    writer: &'a mut File,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.writer.write_all(&buffer[..read])?;
        Ok(read)
    }
}
