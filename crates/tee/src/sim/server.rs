//! Plays the report device of one enclave: one thread that answers what inotify reports.
//!
//! The tree it serves, below the directory it is given (which plays `/sys/kernel/config/tsm`):
//!
//! ```text
//! derived_key             FIFO: the 32-byte sealing key, once per opening
//! report/NAME/inblob      file: 64 bytes of report data, taken when it is closed
//! report/NAME/outblob     FIFO: a report over the taken bytes, once per opening; empty without
//! report/NAME/auxblob     FIFO: the certificate table, once per opening; empty without
//! report/NAME/provider    "sev_guest"
//! report/NAME/generation  how often inblob was written
//! report/NAME/privlevel, privlevel_floor   0
//! ```

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use casemate_spec::Sha384;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, init, remove_watch};
use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

use super::platform::Platform;
use super::tree::{self, Fifo, Inbox};
use crate::error::TeeError;

/// Most report entries that are served at one time; further ones stay empty.
const MAX_ENTRIES: usize = 64;

const ON_TREE: WatchFlags = WatchFlags::OPEN;
const ON_REPORT: WatchFlags =
    WatchFlags::CREATE.union(WatchFlags::DELETE).union(WatchFlags::MOVED_FROM);
const ON_ENTRY: WatchFlags = WatchFlags::OPEN.union(WatchFlags::CLOSE_WRITE);

/// What the simulated TEE launched, and so measured.
#[derive(Debug, Clone)]
pub struct Launch {
    /// SHA-384 of the agent binary: the launch measurement.
    pub agent: Sha384,
    /// Whether the guest may be debugged. Verifiers refuse it.
    pub debug: bool,
}

/// The simulated device.
#[derive(Debug, Clone, Copy)]
pub struct Simulator;

/// A running device. It stops when this is dropped.
#[derive(Debug)]
pub struct SimHandle {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Simulator {
    /// Serves `tree`, a directory that plays `/sys/kernel/config/tsm`, until the handle is
    /// dropped. When this returns, the tree is there.
    ///
    /// # Errors
    /// If a real TEE is present, or the tree can not be made or watched.
    pub fn start(
        platform: Arc<Platform>,
        launch: Launch,
        tree: OwnedFd,
    ) -> Result<SimHandle, TeeError> {
        super::refuse_beside_real_tee()?;
        let mut server = Server::new(platform, launch, tree)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(TeeError::simulator("making an event descriptor"))?;
        let stopped =
            stop.try_clone().map_err(TeeError::simulator("copying an event descriptor"))?;
        let thread = std::thread::Builder::new()
            .name("simulated-tee".into())
            .spawn(move || {
                // Without its device the enclave gets no evidence; there is nobody to tell.
                let _ = server.run(&stopped);
                server.leave();
            })
            .map_err(TeeError::simulator("starting a thread"))?;
        Ok(SimHandle { stop, thread: Some(thread) })
    }
}

impl SimHandle {
    /// Whether the device still answers.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|t| !t.is_finished())
    }
}

impl Drop for SimHandle {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Server {
    platform: Arc<Platform>,
    launch: Launch,
    /// Random per launch, as a chip's guest ids are.
    report_id: [u8; 32],
    inotify: OwnedFd,
    tree: OwnedFd,
    tree_watch: i32,
    derived_key: Fifo,
    report: OwnedFd,
    report_watch: i32,
    entries: HashMap<i32, Entry>,
}

/// One directory below `report`.
struct Entry {
    name: Vec<u8>,
    dir: OwnedFd,
    outblob: Fifo,
    auxblob: Fifo,
    inbox: Inbox,
    /// The report data taken last.
    inblob: Option<[u8; 64]>,
    generation: u64,
}

/// An event, apart from the buffer it came in.
struct Event {
    watch: i32,
    flags: ReadFlags,
    name: Vec<u8>,
}

impl Server {
    fn new(platform: Arc<Platform>, launch: Launch, tree: OwnedFd) -> Result<Self, TeeError> {
        let mut report_id = [0; 32];
        aws_lc_rs::rand::fill(&mut report_id).map_err(|_| TeeError::Crypto("naming a guest"))?;
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(TeeError::simulator("making an inotify instance"))?;
        let make = TeeError::simulator::<io::Error>("making the report tree");
        let report = tree::make_dir(&tree, "report").map_err(make)?;
        let make = TeeError::simulator::<io::Error>("making the key FIFO");
        let derived_key = Fifo::make(&tree, "derived_key").map_err(make)?;
        let watch = |dir, events| {
            tree::watch(&inotify, dir, events)
                .map_err(TeeError::simulator("watching the report tree"))
        };
        let (tree_watch, report_watch) = (watch(&tree, ON_TREE)?, watch(&report, ON_REPORT)?);
        Ok(Self {
            platform,
            launch,
            report_id,
            inotify,
            tree,
            tree_watch,
            derived_key,
            report,
            report_watch,
            entries: HashMap::new(),
        })
    }

    fn run(&mut self, stop: &OwnedFd) -> io::Result<()> {
        loop {
            let mut waiting =
                [PollFd::new(stop, PollFlags::IN), PollFd::new(&self.inotify, PollFlags::IN)];
            match poll(&mut waiting, None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if !waiting[0].revents().is_empty() {
                return Ok(());
            }
            for event in self.events()? {
                self.handle(&event);
            }
        }
    }

    /// Every event that is there.
    fn events(&self) -> io::Result<Vec<Event>> {
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut out = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => out.push(Event {
                    watch: event.wd(),
                    flags: event.events(),
                    name: event.file_name().map_or_else(Vec::new, |n| n.to_bytes().to_vec()),
                }),
                Err(Errno::WOULDBLOCK) => return Ok(out),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Whatever goes wrong with one entry is that entry's end, not the device's.
    fn handle(&mut self, event: &Event) {
        if event.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.catch_up();
        } else if event.watch == self.tree_watch {
            if event.flags.contains(ReadFlags::OPEN) && event.name == b"derived_key" {
                self.answer_key();
            }
        } else if event.watch == self.report_watch {
            if event.flags.contains(ReadFlags::CREATE | ReadFlags::ISDIR) {
                self.add(&event.name);
            } else if event.flags.contains(ReadFlags::ISDIR) {
                self.forget(&event.name);
            }
        } else {
            self.handle_entry(event);
        }
    }

    fn handle_entry(&mut self, event: &Event) {
        let Some(entry) = self.entries.get_mut(&event.watch) else { return };
        let served = match (event.name.as_slice(), event.flags) {
            (b"inblob", flags) if flags.contains(ReadFlags::CLOSE_WRITE) => entry.take_inblob(),
            (b"outblob", flags) if flags.contains(ReadFlags::OPEN) => {
                entry.answer_report(&self.platform, &self.launch, &self.report_id)
            }
            (b"auxblob", flags) if flags.contains(ReadFlags::OPEN) => {
                entry.answer_certificates(&self.platform)
            }
            _ => Ok(()),
        };
        if served.is_err() {
            self.drop_entry(event.watch);
        }
    }

    fn answer_key(&mut self) {
        if let Ok(key) = self.platform.derived_key(&self.launch) {
            let _ = self.derived_key.answer(&self.tree, key.as_slice());
        }
    }

    /// Fills a new directory below `report`.
    fn add(&mut self, name: &[u8]) {
        let known = self.entries.values().any(|e| e.name == name);
        if known || self.entries.len() >= MAX_ENTRIES {
            return;
        }
        // Gone again, or not a directory: nothing to serve.
        let Ok(dir) = tree::open_dir(&self.report, name) else { return };
        let Ok(watch) = tree::watch(&self.inotify, &dir, ON_ENTRY) else { return };
        match Entry::fill(name, dir) {
            Ok(entry) => {
                self.entries.insert(watch, entry);
            }
            Err(_) => {
                let _ = remove_watch(&self.inotify, watch);
            }
        }
    }

    fn forget(&mut self, name: &[u8]) {
        let watch = self.entries.iter().find(|(_, e)| e.name == name).map(|(w, _)| *w);
        if let Some(watch) = watch {
            self.drop_entry(watch);
        }
    }

    fn drop_entry(&mut self, watch: i32) {
        if let Some(entry) = self.entries.remove(&watch) {
            entry.leave();
        }
        // Fails where the directory is gone, and the watch with it.
        let _ = remove_watch(&self.inotify, watch);
    }

    /// Events were lost: look at everything that is there, and answer everybody who might wait.
    fn catch_up(&mut self) {
        let present = self.list().unwrap_or_default();
        let gone: Vec<i32> = self
            .entries
            .iter()
            .filter(|(_, e)| !present.contains(&e.name))
            .map(|(w, _)| *w)
            .collect();
        gone.into_iter().for_each(|watch| self.drop_entry(watch));
        present.iter().for_each(|name| self.add(name));
        self.answer_key();
        let mut broken = Vec::new();
        for (watch, entry) in &mut self.entries {
            let served = entry
                .take_inblob()
                .and_then(|()| entry.answer_report(&self.platform, &self.launch, &self.report_id))
                .and_then(|()| entry.answer_certificates(&self.platform));
            if served.is_err() {
                broken.push(*watch);
            }
        }
        broken.into_iter().for_each(|watch| self.drop_entry(watch));
    }

    fn list(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.report)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && entry.file_type() == FileType::Directory {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    fn leave(&mut self) {
        self.derived_key.remove(&self.tree);
        self.entries.values().for_each(Entry::leave);
        self.entries.clear();
    }
}

impl Entry {
    /// Makes the attributes; `inblob` last, which tells a client that all are there.
    fn fill(name: &[u8], dir: OwnedFd) -> io::Result<Self> {
        for (attribute, content) in [
            ("provider", &b"sev_guest\n"[..]),
            ("privlevel", b"0\n"),
            ("privlevel_floor", b"0\n"),
            ("generation", b"0\n"),
        ] {
            tree::make_file(&dir, attribute, content)?;
        }
        let outblob = Fifo::make(&dir, "outblob")?;
        let auxblob = Fifo::make(&dir, "auxblob")?;
        let inbox = Inbox::make(&dir, "inblob")?;
        let name = name.to_vec();
        Ok(Self { name, dir, outblob, auxblob, inbox, inblob: None, generation: 0 })
    }

    /// Takes what was written since the last time. Anything but 64 bytes is no report data, as for
    /// the kernel's provider.
    fn take_inblob(&mut self) -> io::Result<()> {
        let content = self.inbox.take(64)?;
        if content.is_empty() {
            return Ok(());
        }
        self.inblob = content.try_into().ok();
        self.generation += 1;
        tree::replace_file(&self.dir, "generation", format!("{}\n", self.generation).as_bytes())
    }

    fn answer_report(
        &mut self,
        platform: &Platform,
        launch: &Launch,
        report_id: &[u8; 32],
    ) -> io::Result<()> {
        let report = match &self.inblob {
            Some(data) => {
                platform.report(launch, report_id, data).map_err(io::Error::other)?.to_vec()
            }
            None => Vec::new(),
        };
        self.outblob.answer(&self.dir, &report)
    }

    fn answer_certificates(&mut self, platform: &Platform) -> io::Result<()> {
        let table = if self.inblob.is_some() { platform.certificates() } else { &[] };
        self.auxblob.answer(&self.dir, table)
    }

    fn leave(&self) {
        self.outblob.remove(&self.dir);
        self.auxblob.remove(&self.dir);
    }
}
