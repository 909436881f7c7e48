//! Evidence from the Linux report interface (configfs-tsm).
//!
//! The protocol is the kernel's (Documentation/ABI/testing/configfs-tsm-report): make a directory,
//! write 64 bytes to `inblob`, read `outblob` and `auxblob`, and compare `generation` before and
//! after, so that nobody else's write is mistaken for ours. Each report has an entry of its own
//! with a random name, removed when it was read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::error::TeeError;

/// Most bytes of one attribute that are read (the kernel's limit is 32 KiB, and 16 KiB more).
const MAX_BLOB: usize = 64 << 10;
/// How long attributes of a new entry may take to appear.
const APPEAR: Duration = Duration::from_secs(1);
/// How long a device may take to answer where reading can be interrupted.
const ANSWER: Duration = Duration::from_secs(10);

/// What the device gave for 64 bytes of report data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsmReport {
    /// The report.
    pub outblob: Vec<u8>,
    /// What comes with it: for SEV-SNP the certificate table. Empty if the device has none.
    pub auxblob: Vec<u8>,
    /// Which provider made it, such as `sev_guest`.
    pub provider: String,
    /// Generation of the entry it was read from.
    pub generation: u64,
}

/// Asks one report interface.
#[derive(Debug, Clone)]
pub struct Client {
    root: PathBuf,
}

impl Client {
    /// A client of the interface at `root`, `/sys/kernel/config/tsm/report` as a rule.
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// A report over `report_data`.
    ///
    /// # Errors
    /// [`TeeError`] with the attribute at fault.
    pub fn report(&self, report_data: &[u8; 64]) -> Result<TsmReport, TeeError> {
        let entry = Entry::create(&self.root)?;
        let mut inblob = entry.open_inblob()?;
        let before = entry.generation()?;
        let written = inblob.write(report_data).and_then(|n| match n {
            64 => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::WriteZero)),
        });
        written.map_err(TeeError::device("writing", &entry.attribute("inblob")))?;
        // The device takes the bytes when the file is closed.
        drop(inblob);
        let outblob = entry.blob("outblob")?;
        if outblob.is_empty() {
            let path = entry.attribute("outblob");
            return Err(TeeError::Answer { path, limit: MAX_BLOB, found: 0 });
        }
        let auxblob = match entry.blob("auxblob") {
            Err(TeeError::Device { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Vec::new()
            }
            other => other?,
        };
        let provider = entry.text("provider")?;
        let (expected, found) = (before + 1, entry.generation()?);
        if expected != found {
            return Err(TeeError::Conflict { path: entry.path.clone(), expected, found });
        }
        Ok(TsmReport { outblob, auxblob, provider, generation: found })
    }
}

/// One report entry, removed on drop.
struct Entry {
    path: PathBuf,
}

impl Entry {
    fn create(root: &Path) -> Result<Self, TeeError> {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| TeeError::Crypto("naming a report"))?;
        let path = root.join(format!("casemate-{}", hex::encode(random)));
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self { path }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                Err(TeeError::NoDevice { path: root.into(), source })
            }
            Err(source) => Err(TeeError::device("making", &path)(source)),
        }
    }

    fn attribute(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The kernel makes the attributes with the directory. A device outside of the kernel takes a
    /// moment, and makes this one last.
    fn open_inblob(&self) -> Result<File, TeeError> {
        let path = self.attribute("inblob");
        let start = Instant::now();
        let mut pause = Duration::from_micros(50);
        loop {
            match OpenOptions::new().write(true).open(&path) {
                Ok(file) => return Ok(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound && start.elapsed() < APPEAR => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_micros(500));
                }
                Err(e) => return Err(TeeError::device("opening", &path)(e)),
            }
        }
    }

    fn generation(&self) -> Result<u64, TeeError> {
        let text = self.text("generation")?;
        text.parse().map_err(|_| {
            let problem = io::Error::other(format!("expected a number, found {text:?}"));
            TeeError::device("reading", &self.attribute("generation"))(problem)
        })
    }

    fn text(&self, name: &str) -> Result<String, TeeError> {
        let bytes = self.blob(name)?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.trim_end().chars().take(256).collect())
    }

    fn blob(&self, name: &str) -> Result<Vec<u8>, TeeError> {
        read_attribute(&self.attribute(name), MAX_BLOB)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // The kernel removes the attributes with the directory; elsewhere they are ordinary files.
        if std::fs::remove_dir(&self.path).is_err() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Reads all of an attribute, which may be a file of the kernel or a FIFO.
pub(crate) fn read_attribute(path: &Path, limit: usize) -> Result<Vec<u8>, TeeError> {
    let fail = |e| TeeError::device("reading", path)(e);
    // Non-blocking, so that a FIFO whose other end died is an end of file, not a wait.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(fail)?;
    let can_wait = file.metadata().map_err(fail)?.file_type().is_fifo();
    let (start, mut out) = (Instant::now(), Vec::new());
    // Some attributes are keys.
    let mut chunk = Zeroizing::new([0; 8192]);
    loop {
        match file.read(chunk.as_mut_slice()) {
            Ok(0) => return Ok(out),
            Ok(n) if out.len() + n > limit => {
                let found = out.len() + n;
                return Err(TeeError::Answer { path: path.into(), limit, found });
            }
            Ok(n) => out.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && can_wait => {
                let seconds = ANSWER.as_secs();
                let late = || TeeError::Timeout { path: path.into(), seconds };
                let left = ANSWER.checked_sub(start.elapsed()).ok_or_else(late)?;
                wait_readable(&file, left).map_err(fail)?;
            }
            Err(e) => return Err(fail(e)),
        }
    }
}

fn wait_readable(file: &File, longest: Duration) -> io::Result<()> {
    let longest = Timespec {
        tv_sec: longest.as_secs().cast_signed(),
        tv_nsec: longest.subsec_nanos().into(),
    };
    match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&longest)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
