//! The kernel's word on what a build reads: fanotify permission events, answered one by one.
//!
//! Two groups watch. The *guard* gets a permission event for each open and exec on the build's own
//! tmpfs (all mounts of it) and on the mounts through which a step sees the host's `/usr`; the
//! opener waits until the answer. Once a file's bytes are known, an ignore mark on the inode lets
//! further opens pass; the kernel drops it with the first write. Each inode so known also reports
//! writes, so a file that is changed after it was hashed and put back before the end is seen:
//! for the toolchain any write counts, for the build's memory one from outside. The *watchman*
//! reports every change on the tmpfs with the number of the process behind it, which is 0 for
//! processes outside the observer's pid namespace.
//!
//! A writer who mapped a file before it was hashed makes no event when he stores into the mapping;
//! therefore an ignore mark and trust are given only to files that nobody has open for writing,
//! which the kernel tells by granting a read lease.
//!
//! Limits: names that do not exist, directory listings, file attributes and link targets are not
//! materials. Who can write to the block device below a file system, or to the memory of the
//! build's processes, is not seen here; in an enclave there is nobody who can.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use casemate_spec::Sha256;
use nix::errno::Errno;
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags,
    Response,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{FileType, Stat};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::classify::{Classifier, Unvouched};
use super::opened::{Cookie, cookie, has_writer, hash, path_of, process, status};
use super::warden::emit_event;
use super::{BuildError, Class, Event, Material};

/// Every open and every execution.
const OPENS: MaskFlags = MaskFlags::FAN_OPEN_PERM.union(MaskFlags::FAN_OPEN_EXEC_PERM);

/// Every way to change a file's bytes.
const WRITES: MaskFlags = MaskFlags::FAN_MODIFY.union(MaskFlags::FAN_CLOSE_WRITE);

/// Every change of a file or a directory.
const CHANGES: MaskFlags = WRITES
    .union(MaskFlags::FAN_CREATE)
    .union(MaskFlags::FAN_DELETE)
    .union(MaskFlags::FAN_MOVED_FROM)
    .union(MaskFlags::FAN_MOVED_TO)
    .union(MaskFlags::FAN_ATTRIB)
    .union(MaskFlags::FAN_ONDIR);

/// `FAN_REPORT_FID`: events name files by handle and open nothing.
const REPORT_FID: InitFlags = InitFlags::from_bits_retain(0x200);

/// How long the watchman's events may wait while the guard has nothing to do.
const IDLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Checks that this process may observe a build at all.
///
/// # Errors
/// [`BuildError::Privilege`] unless it is root with `CAP_SYS_ADMIN` in the initial user namespace,
/// [`BuildError::Kernel`] if the kernel has no permission events.
pub fn check_privilege() -> Result<(), BuildError> {
    let uid = nix::unistd::geteuid();
    if !uid.is_root() {
        return Err(BuildError::Privilege { found: format!("this process runs as uid {uid}") });
    }
    guard_group().map(drop)
}

fn guard_group() -> Result<Fanotify, BuildError> {
    let flags = InitFlags::FAN_CLASS_CONTENT
        | InitFlags::FAN_CLOEXEC
        | InitFlags::FAN_NONBLOCK
        | InitFlags::FAN_UNLIMITED_QUEUE
        | InitFlags::FAN_UNLIMITED_MARKS;
    // Non-blocking, so that the observer's own look at a named pipe never waits for a partner.
    let files = EventFFlags::O_RDONLY
        | EventFFlags::O_CLOEXEC
        | EventFFlags::O_LARGEFILE
        | EventFFlags::O_NONBLOCK;
    Fanotify::init(flags, files).map_err(|e| match e {
        Errno::EPERM => {
            BuildError::Privilege { found: "this process is root without that capability".into() }
        }
        e => {
            BuildError::Kernel { what: "fanotify permission events".into(), reason: e.to_string() }
        }
    })
}

fn watchman_group() -> Result<Fanotify, BuildError> {
    let flags = InitFlags::FAN_CLASS_NOTIF
        | InitFlags::FAN_CLOEXEC
        | InitFlags::FAN_NONBLOCK
        | InitFlags::FAN_UNLIMITED_QUEUE
        | REPORT_FID;
    Fanotify::init(flags, EventFFlags::O_RDONLY).map_err(|e| BuildError::Kernel {
        what: "fanotify directory events".into(),
        reason: e.to_string(),
    })
}

/// The running observation of one build.
pub(super) struct Observer {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

/// What the whole build opened.
pub(super) struct Observed {
    pub materials: Vec<Material>,
    pub withheld: Vec<String>,
}

struct Shared {
    guard: Fanotify,
    watchman: Fanotify,
    host: PathBuf,
    own_pid: i32,
    state: Mutex<State>,
    /// The first reason to refuse; it stays.
    verdict: Mutex<Option<BuildError>>,
    /// Handle on process 1 of the running step.
    stage: Mutex<Option<OwnedFd>>,
}

struct State {
    classifier: Classifier,
    materials: BTreeMap<(String, Sha256), (u64, Class)>,
    withheld: HashSet<String>,
    toolchain: HashMap<(u64, u64), (String, Cookie)>,
}

impl Observer {
    /// Starts to watch the tmpfs at `root`; `host` is the host's root as this process sees it.
    pub fn start(root: &Path, host: PathBuf, classifier: Classifier) -> Result<Self, BuildError> {
        let (guard, watchman) = (guard_group()?, watchman_group()?);
        let marking = |e: Errno| BuildError::Kernel {
            what: "fanotify marks on tmpfs".into(),
            reason: e.to_string(),
        };
        let add = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
        watchman.mark(add, CHANGES, rustix::fs::CWD, Some(root)).map_err(marking)?;
        guard.mark(add, OPENS, rustix::fs::CWD, Some(root)).map_err(marking)?;
        let shared = Arc::new(Shared {
            guard,
            watchman,
            host,
            own_pid: std::process::id().cast_signed(),
            state: Mutex::new(State {
                classifier,
                materials: BTreeMap::new(),
                withheld: HashSet::new(),
                toolchain: HashMap::new(),
            }),
            verdict: Mutex::new(None),
            stage: Mutex::new(None),
        });
        let stop = eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|e| BuildError::setup("making an event", e))?;
        let stop = Arc::new(stop);
        let thread = {
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            std::thread::spawn(move || {
                let deadly = DeadlyPanic;
                if let Err(error) = shared.listen(stop.as_fd()) {
                    // Whoever waits for an answer now gets none: the whole observer ends.
                    shared.refuse(error);
                    super::warden::leave(lock(&shared.verdict).take());
                }
                std::mem::forget(deadly);
            })
        };
        Ok(Self { shared, stop, thread })
    }

    /// Marks the host's directories as the step with process 1 `stage` sees them, and returns its
    /// table of mounts. Refuses if that table holds anything but what the root was made of.
    pub fn mark_mounts(&self, stage: u32, bound: &[String]) -> Result<String, BuildError> {
        let table = mount_table(stage)?;
        let own = |point: &str| point == "/" || point == "/proc" || point.starts_with("/dev/");
        for point in table.lines().filter_map(|line| line.split(' ').nth(4)) {
            if own(point) {
                continue;
            }
            if !bound.iter().any(|b| b == point) {
                return Err(BuildError::setup(
                    "checking the step's mounts",
                    format!("{point} is not one of ours"),
                ));
            }
            let path = format!("/proc/{stage}/root{point}");
            let add = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_MOUNT;
            self.shared.guard.mark(add, OPENS, rustix::fs::CWD, Some(path.as_str())).map_err(
                |e| BuildError::Kernel {
                    what: format!("fanotify marks on {point}"),
                    reason: e.to_string(),
                },
            )?;
        }
        if bound.iter().any(|b| !table.lines().any(|line| line.split(' ').nth(4) == Some(b))) {
            return Err(BuildError::setup("checking the step's mounts", "one of ours is missing"));
        }
        Ok(table)
    }

    /// Names the process whose end ends the step, for the moment something has to be refused.
    pub fn guard_stage(&self, stage: Option<u32>) -> Result<(), BuildError> {
        let handle = match stage.and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            Some(pid) => Some(
                pidfd_open(pid, PidfdFlags::empty())
                    .map_err(|e| BuildError::setup("opening a pid handle", e))?,
            ),
            None => None,
        };
        *lock(&self.shared.stage) = handle;
        self.verdict()
    }

    /// The first reason to refuse, if there is one.
    pub fn verdict(&self) -> Result<(), BuildError> {
        lock(&self.shared.verdict).clone().map_or(Ok(()), Err)
    }

    /// A fetch step left this file behind.
    pub fn add_fetched(&self, path: &str, sha256: Sha256, size: u64) {
        let mut state = lock(&self.shared.state);
        if state.classifier.add_fetched(path, sha256) {
            state.materials.insert((path.to_owned(), sha256), (size, Class::Fetched));
        }
    }

    /// The builder itself writes this file.
    pub fn provide(&self, path: &str, sha256: Sha256) {
        lock(&self.shared.state).classifier.provide(path, sha256);
    }

    /// Ends the observation: reads what is still queued, looks at every toolchain file again.
    pub fn finish(self) -> Result<Observed, BuildError> {
        rustix::io::write(&self.stop, &1u64.to_ne_bytes())
            .map_err(|e| BuildError::setup("stopping the observation", e))?;
        self.thread.join().map_err(|_| BuildError::ObserverLost { how: "panic".into() })?;
        if let Some(error) = lock(&self.shared.verdict).take() {
            return Err(error);
        }
        let mut state = lock(&self.shared.state);
        let materials = std::mem::take(&mut state.materials)
            .into_iter()
            .map(|((path, sha256), (size, class))| Material { path, sha256, size, class })
            .collect();
        let mut withheld: Vec<String> = state.withheld.drain().collect();
        withheld.sort_unstable();
        Ok(Observed { materials, withheld })
    }
}

/// The mounts that process `stage` sees.
pub(super) fn mount_table(stage: u32) -> Result<String, BuildError> {
    fs::read_to_string(format!("/proc/{stage}/mountinfo"))
        .map_err(|e| BuildError::setup("reading the step's mounts", e))
}

/// A panic of the listener ends the whole observer, and with it every process of the build: a
/// dead listener's questions would be answered with yes by the kernel.
struct DeadlyPanic;

impl Drop for DeadlyPanic {
    fn drop(&mut self) {
        std::process::exit(101);
    }
}

impl Shared {
    fn listen(&self, stop: BorrowedFd<'_>) -> Result<(), BuildError> {
        loop {
            let mut sources = [
                PollFd::new(&self.guard, PollFlags::IN),
                PollFd::from_borrowed_fd(stop, PollFlags::IN),
            ];
            match poll(&mut sources, Some(&IDLE)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(BuildError::setup("waiting for file events", e)),
            }
            let stopping = !sources[1].revents().is_empty();
            self.drain_guard()?;
            self.drain_watchman()?;
            if stopping {
                return self.compare_toolchain();
            }
        }
    }

    fn drain_guard(&self) -> Result<(), BuildError> {
        loop {
            let events = match self.guard.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(BuildError::setup("reading file events", e)),
            };
            for event in events {
                self.handle(&event)?;
            }
        }
    }

    fn handle(&self, event: &FanotifyEvent) -> Result<(), BuildError> {
        if !event.check_version() || event.mask().contains(MaskFlags::FAN_Q_OVERFLOW) {
            return Err(BuildError::EventsLost);
        }
        let Some(fd) = event.fd() else { return Ok(()) };
        if event.mask().intersects(OPENS) {
            let answer = match self.judge(fd, event.pid()) {
                Ok(answer) => answer,
                Err(error) => {
                    self.refuse(error);
                    Response::FAN_DENY
                }
            };
            return self
                .guard
                .write_response(FanotifyResponse::new(fd, answer))
                .map_err(|e| BuildError::setup("answering a file event", e));
        }
        self.written(fd, event.pid())
    }

    /// A file whose bytes were known has been written to.
    fn written(&self, fd: BorrowedFd<'_>, pid: i32) -> Result<(), BuildError> {
        let path = path_of(fd)?;
        let stat = status(fd)?;
        if lock(&self.state).toolchain.contains_key(&(stat.st_dev, stat.st_ino)) {
            self.refuse(BuildError::ToolChanged {
                path,
                how: "the kernel reported a write".into(),
            });
        } else if pid == 0 {
            self.refuse(BuildError::ChangedFromOutside {
                path,
                how: "the kernel reported a write".into(),
            });
        }
        Ok(())
    }

    fn judge(&self, fd: BorrowedFd<'_>, pid: i32) -> Result<Response, BuildError> {
        if pid == self.own_pid {
            return Ok(Response::FAN_ALLOW);
        }
        let path = path_of(fd)?;
        if pid == 0 {
            return Err(BuildError::OpenedFromOutside { path });
        }
        if lock(&self.verdict).is_some() {
            return Ok(Response::FAN_DENY);
        }
        let stat = status(fd)?;
        let mut state = lock(&self.state);
        let kind = FileType::from_raw_mode(stat.st_mode);
        match (state.classifier.is_bound(&path), kind) {
            (true, FileType::RegularFile) => self.judge_host_file(&mut state, fd, path, pid, &stat),
            (false, FileType::RegularFile) => self.judge_own_file(&mut state, fd, path),
            (true, _) => Err(BuildError::UnknownFile {
                path,
                reason: "not a regular file".into(),
                process: process(pid),
            }),
            (false, _) => {
                // A pipe or socket between the build's own processes holds nothing of its own.
                self.ignore(fd, MarkFlags::FAN_MARK_IGNORED_SURV_MODIFY)?;
                Ok(Response::FAN_ALLOW)
            }
        }
    }

    fn judge_host_file(
        &self,
        state: &mut State,
        fd: BorrowedFd<'_>,
        path: String,
        pid: i32,
        stat: &Stat,
    ) -> Result<Response, BuildError> {
        if !state.classifier.is_shipped(&path) {
            return match state.classifier.unvouched(&path, || process(pid)) {
                Unvouched::Refuse(error) => Err(error),
                Unvouched::Withhold => {
                    if state.withheld.insert(path.clone()) {
                        emit_event(Event::Withheld { path });
                    }
                    Ok(Response::FAN_DENY)
                }
            };
        }
        // From here on every write is reported, so nothing changes unseen while it is hashed.
        self.watch(fd)?;
        if has_writer(fd)? {
            return Err(BuildError::ToolChanged {
                path,
                how: "a process has it open for writing".into(),
            });
        }
        let hashed = hash(fd, true)?;
        let class = state.classifier.shipped(&path, hashed.md5, || process(pid))?;
        state.toolchain.insert((stat.st_dev, stat.st_ino), (path.clone(), cookie(stat)));
        state.materials.insert((path, hashed.sha256), (hashed.size, class));
        self.ignore(fd, MarkFlags::empty())?;
        Ok(Response::FAN_ALLOW)
    }

    fn judge_own_file(
        &self,
        state: &mut State,
        fd: BorrowedFd<'_>,
        path: String,
    ) -> Result<Response, BuildError> {
        let written = has_writer(fd)?;
        if written && !state.classifier.has_origin(&path) {
            // Being written by the build: hashed when it is read.
            return Ok(Response::FAN_ALLOW);
        }
        if !written {
            self.watch(fd)?;
        }
        let hashed = hash(fd, false)?;
        let class = state.classifier.own(&path, hashed.sha256);
        if !(written && class == Class::Generated) {
            state.materials.entry((path, hashed.sha256)).or_insert((hashed.size, class));
        }
        if !written {
            self.ignore(fd, MarkFlags::empty())?;
        }
        Ok(Response::FAN_ALLOW)
    }

    fn watch(&self, fd: BorrowedFd<'_>) -> Result<(), BuildError> {
        self.guard
            .mark(MarkFlags::FAN_MARK_ADD, WRITES, fd, None::<&str>)
            .map_err(|e| BuildError::setup("marking a file", e))
    }

    fn ignore(&self, fd: BorrowedFd<'_>, extra: MarkFlags) -> Result<(), BuildError> {
        self.guard
            .mark(
                MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_IGNORED_MASK | extra,
                OPENS,
                fd,
                None::<&str>,
            )
            .map_err(|e| BuildError::setup("marking a file", e))
    }

    /// Every change on the tmpfs whose author has no number here is one from outside.
    fn drain_watchman(&self) -> Result<(), BuildError> {
        let mut buffer = [0; 64 * 1024];
        loop {
            let length = match rustix::io::read(&self.watchman, &mut buffer) {
                Ok(length) => length,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(BuildError::setup("reading directory events", e)),
            };
            for change in changes(&buffer[..length]) {
                let (mask, pid) = change.ok_or(BuildError::EventsLost)?;
                if mask.contains(MaskFlags::FAN_Q_OVERFLOW) {
                    return Err(BuildError::EventsLost);
                }
                if pid == 0 {
                    self.refuse(BuildError::ChangedFromOutside {
                        path: "a file or directory of the build's root".into(),
                        how: format!("{mask:?}"),
                    });
                }
            }
        }
    }

    /// A toolchain file must be, at the end, the very file that was hashed, untouched.
    fn compare_toolchain(&self) -> Result<(), BuildError> {
        let state = lock(&self.state);
        for (path, before) in state.toolchain.values() {
            let changed =
                |how: &str| Err(BuildError::ToolChanged { path: path.clone(), how: how.into() });
            let mut options = fs::File::options();
            options.read(true).custom_flags(nix::libc::O_NONBLOCK);
            let Ok(file) = options.open(self.host.join(path.trim_start_matches('/'))) else {
                return changed("it is gone");
            };
            if has_writer(file.as_fd())? {
                return changed("a process has it open for writing");
            }
            let stat = status(file.as_fd())?;
            if cookie(&stat) == *before {
                continue;
            }
            let hashed = hash(file.as_fd(), false)?;
            if !state.materials.contains_key(&(path.clone(), hashed.sha256)) {
                return changed("its bytes differ at the end");
            }
        }
        Ok(())
    }

    /// Notes the first reason and ends the step.
    fn refuse(&self, error: BuildError) {
        lock(&self.verdict).get_or_insert(error);
        if let Some(stage) = lock(&self.stage).as_ref() {
            let _ = pidfd_send_signal(stage, Signal::KILL);
        }
    }
}

/// Mask and pid of each event in what the kernel wrote; `None` for what is no event.
fn changes(mut bytes: &[u8]) -> impl Iterator<Item = Option<(MaskFlags, i32)>> + '_ {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let field = |at: usize| bytes.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
        let parsed = (|| {
            let length = u32::from_ne_bytes(field(0)?) as usize;
            let (low, high) = (u32::from_ne_bytes(field(8)?), u32::from_ne_bytes(field(12)?));
            let mask = if cfg!(target_endian = "little") {
                u64::from(high) << 32 | u64::from(low)
            } else {
                u64::from(low) << 32 | u64::from(high)
            };
            let pid = i32::from_ne_bytes(field(20)?);
            let version = *bytes.get(4)?;
            let rest = bytes.get(length.max(24)..)?;
            (version == nix::sys::fanotify::FANOTIFY_METADATA_VERSION).then_some((
                rest,
                MaskFlags::from_bits_retain(mask),
                pid,
            ))
        })();
        match parsed {
            Some((rest, mask, pid)) => {
                bytes = rest;
                Some(Some((mask, pid)))
            }
            None => {
                bytes = &[];
                Some(None)
            }
        }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_off_event_counts_as_lost() {
        let mut event = Vec::new();
        event.extend(24u32.to_ne_bytes());
        event.extend([3, 0, 24, 0]);
        event.extend(0x100u64.to_ne_bytes());
        event.extend((-1i32).to_ne_bytes());
        event.extend(42i32.to_ne_bytes());
        let whole: Vec<_> = changes(&event).collect();
        assert_eq!(whole, [Some((MaskFlags::FAN_CREATE, 42))]);
        assert_eq!(changes(&event[..20]).collect::<Vec<_>>(), [None]);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_event_parser_panic(bytes: Vec<u8>) {
            let _ = changes(&bytes).count();
        }
    }
}
