//! A log's files: what is written is on the disk before anybody is told.
//!
//! Tiles are written under names that the published checkpoint does not need, and flushed together
//! with the next checkpoint; only then does a rename publish the checkpoint that needs them. So there is no moment at which a
//! crash leaves a checkpoint without its tiles; at worst it leaves tiles without a checkpoint,
//! which the next append writes again.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use casemate_tlog::note::MAX_NOTE;
use casemate_tlog::tile::{MAX_LEAF, TILE_WIDTH, Tile};

use crate::error::LedgerError;

const CHECKPOINT: &str = "checkpoint";
const LOCK: &str = "lock";
/// How many flushes are under way at a time.
const MAX_FLUSHES: usize = 24;
/// The largest entry bundle: 256 leaves of the largest size, each with its length.
const MAX_TILE: u64 = TILE_WIDTH * (MAX_LEAF as u64 + 2);

/// The directory of a log.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    root: PathBuf,
}

impl Files {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn checkpoint_path(&self) -> PathBuf {
        self.root.join(CHECKPOINT)
    }

    /// Takes the log for this process; given back when the file is closed, also by a crash.
    pub(crate) fn lock(&self) -> Result<File, LedgerError> {
        let path = self.root.join(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(LedgerError::io("opening", &path))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::Locked(self.root.clone())),
            Err(e) => Err(LedgerError::io("locking", path)(e.into())),
        }
    }

    /// The published checkpoint, if there is one.
    pub(crate) fn checkpoint(&self) -> Result<Option<String>, LedgerError> {
        let path = self.checkpoint_path();
        let Some(bytes) = read(&path, MAX_NOTE as u64)? else {
            return Ok(None);
        };
        let note = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text");
        let note = String::from_utf8(bytes).map_err(note);
        note.map(Some).map_err(LedgerError::io("reading", path))
    }

    /// A tile, if there is one of that name and width.
    pub(crate) fn tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, LedgerError> {
        read(&self.root.join(tile.to_string()), MAX_TILE)
    }

    /// Whether there is a tile of that name and width.
    pub(crate) fn has(&self, tile: &Tile) -> bool {
        self.root.join(tile.to_string()).exists()
    }

    /// Writes tiles that the published checkpoint does not need, and publishes one that does. When
    /// this returns, all of it is durable.
    pub(crate) fn commit(&self, tiles: &[(Tile, Vec<u8>)], note: &str) -> Result<(), LedgerError> {
        let draft = self.root.join("checkpoint.new");
        let mut folders = BTreeSet::new();
        let mut written = vec![write(&draft, note.as_bytes())?];
        for (tile, content) in tiles {
            let path = self.root.join(tile.to_string());
            make_parent(&path, &mut folders)?;
            written.push(write(&path, content)?);
        }
        for folder in folders {
            written.push(open_folder(&folder)?);
        }
        flush(&written)?;
        fs::rename(&draft, self.checkpoint_path()).map_err(LedgerError::io("renaming", draft))?;
        flush(&[open_folder(&self.root)?])
    }

    /// Removes the partial tiles of a log of `from` leaves that one of `to` leaves does not have.
    /// They are of no further use, so one that can not be removed does no harm.
    pub(crate) fn prune(&self, from: u64, to: u64) {
        let kept: Vec<Tile> = Tile::partial(to).collect();
        for tile in Tile::partial(from).filter(|tile| !kept.contains(tile)) {
            let path = self.root.join(tile.to_string());
            let _ = fs::remove_file(&path);
            if let Some(folder) = path.parent() {
                // stays while the tile is still partial
                let _ = fs::remove_dir(folder);
            }
        }
    }
}

/// A whole file of at most `limit` bytes, or `None` if there is none.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, LedgerError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(LedgerError::io("opening", path)(e)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(LedgerError::io("reading", path))?;
    if bytes.len() as u64 > limit {
        let source = io::Error::new(io::ErrorKind::FileTooLarge, format!("over {limit} bytes"));
        return Err(LedgerError::io("reading", path)(source));
    }
    Ok(Some(bytes))
}

/// Puts `content` at `path` whole or not at all, and durably; `draft` is on the same disk.
pub(crate) fn replace(path: &Path, draft: &Path, content: &[u8]) -> Result<(), LedgerError> {
    let mut folders = BTreeSet::new();
    make_parent(path, &mut folders)?;
    flush(&[write(draft, content)?])?;
    fs::rename(draft, path).map_err(LedgerError::io("renaming", draft))?;
    let folders: Result<Vec<_>, _> = folders.iter().map(|folder| open_folder(folder)).collect();
    flush(&folders?)
}

/// A file or folder with its path, for messages.
type Opened = (File, PathBuf);

/// Writes a file that is not durable yet.
fn write(path: &Path, content: &[u8]) -> Result<Opened, LedgerError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    let mut file = options.open(path).map_err(LedgerError::io("creating", path))?;
    file.write_all(content).map_err(LedgerError::io("writing", path))?;
    Ok((file, path.into()))
}

fn open_folder(path: &Path) -> Result<Opened, LedgerError> {
    Ok((File::open(path).map_err(LedgerError::io("opening", path))?, path.into()))
}

/// Makes files and folders durable, in no order. Many flushes at a time cost the disk little more
/// than one: a file system that keeps a journal commits them together.
fn flush(files: &[Opened]) -> Result<(), LedgerError> {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((file, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            file.sync_all().map_err(LedgerError::io("flushing", path))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let lanes = 1..files.len().min(MAX_FLUSHES);
        // a thread that can not be had is not missed: this one goes on until all is flushed
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = lanes.filter_map(spawn).collect();
        let mut result = work();
        for other in others {
            let ended = |_| Err(LedgerError::Stopped("a flush did not end well".into()));
            result = result.and(other.join().unwrap_or_else(ended));
        }
        result
    })
}

/// Makes the folder of `path`; adds every folder whose list of names is to be flushed.
fn make_parent(path: &Path, folders: &mut BTreeSet<PathBuf>) -> Result<(), LedgerError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let mut missing = parent;
    while !missing.exists() {
        let Some(above) = missing.parent() else {
            break;
        };
        folders.insert(above.into());
        missing = above;
    }
    if missing != parent {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(parent);
        made.map_err(LedgerError::io("creating", parent))?;
    }
    folders.insert(parent.into());
    Ok(())
}
