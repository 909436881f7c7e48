//! The log on disk. One thread, the sequencer, gives leaves their positions.
//!
//! Appending costs a few flushes of the disk, whether for one leaf or for thousands. So leaves that
//! arrive while the disk is busy wait together and are committed as a group: entry bundles and
//! hashes first, durably, then the signed checkpoint over all of them. Nobody is answered before.
//!
//! The same leaf again gets the position it has: the log knows all its leaves by their hashes,
//! which it takes from the tiles when it opens. The tree and that index take about 150 bytes of
//! memory for each leaf.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

use casemate_tlog::merkle::{empty_root, leaf_hash, prove_consistency, prove_inclusion};
use casemate_tlog::note::{Signer, VerifierKey};
use casemate_tlog::tile::TILE_WIDTH;
use casemate_tlog::{Checkpoint, Sha256, Tile, TlogError, Tree};

use crate::audit::{self, Audited};
use crate::error::LedgerError;
use crate::files::Files;
use crate::sequencer::{MAX_GROUP, MAX_WAITING, Request, Sequencer};

/// A log, open for appending. No other process can open it meanwhile.
pub struct Log {
    shared: Arc<Shared>,
    key: VerifierKey,
    requests: Option<SyncSender<Request>>,
    sequencer: Option<JoinHandle<()>>,
    _lock: File,
}

/// What the sequencer changes and readers read.
pub(crate) struct Shared {
    pub(crate) files: Files,
    pub(crate) tree: RwLock<Tree>,
    pub(crate) published: RwLock<Arc<Published>>,
    /// Why nothing is written any more.
    pub(crate) broken: OnceLock<String>,
}

/// A state of the log that it has signed and made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Size and root.
    pub checkpoint: Checkpoint,
    /// The signed note.
    pub note: String,
}

/// The position of a leaf, and a published state in which it is there.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The position.
    pub index: u64,
    /// The state.
    pub published: Arc<Published>,
}

/// A leaf's position with the proof of it.
#[derive(Debug, Clone)]
pub struct Appended {
    /// The position.
    pub index: u64,
    /// A state of the log in which the leaf is there.
    pub published: Arc<Published>,
    /// The proof of the position in that state.
    pub proof: Vec<Sha256>,
}

impl Log {
    /// Makes a new, empty log in `dir`.
    ///
    /// # Errors
    /// [`LedgerError::Exists`] if there is one already, [`LedgerError::Locked`], [`LedgerError::Io`].
    pub fn create(dir: &Path, signer: Signer) -> Result<Self, LedgerError> {
        std::fs::create_dir_all(dir).map_err(LedgerError::io("creating", dir))?;
        let files = Files::new(dir);
        let lock = files.lock()?;
        let first = Tile::entries(0, TILE_WIDTH)?;
        if files.checkpoint()?.is_some() || files.has(&first) {
            return Err(LedgerError::Exists(dir.into()));
        }
        files.commit(&[], &Checkpoint::sign(&signer, 0, empty_root())?)?;
        Self::start(files, signer, None, lock)
    }

    /// Opens the log in `dir` if all of it is what `signer` signed, and continues after the
    /// checkpoint `known` from before, if there is one.
    ///
    /// # Errors
    /// As [`audit::verify_dir`]; [`LedgerError::Locked`], [`LedgerError::Io`].
    pub fn open(
        dir: &Path,
        signer: Signer,
        known: Option<&Checkpoint>,
    ) -> Result<Self, LedgerError> {
        let files = Files::new(dir);
        if files.checkpoint()?.is_none() {
            return Err(LedgerError::Missing(dir.into()));
        }
        let lock = files.lock()?;
        Self::start(files, signer, known, lock)
    }

    fn start(
        files: Files,
        signer: Signer,
        known: Option<&Checkpoint>,
        lock: File,
    ) -> Result<Self, LedgerError> {
        let key = signer.verifier().clone();
        let audited = audit::verify_dir(files.root(), &key, known)?;
        let Audited { checkpoint, note, tree, tail } = audited;
        refuse_older_checkpoint(&files, checkpoint.size)?;
        let index = (0..tree.size()).filter_map(|i| Some((*tree.leaf(i)?, i))).collect();
        let published = RwLock::new(Arc::new(Published { checkpoint, note }));
        let shared =
            Arc::new(Shared { files, tree: RwLock::new(tree), published, broken: OnceLock::new() });
        let (requests, inbox) = sync_channel(MAX_WAITING);
        let sequencer = Sequencer::new(Arc::clone(&shared), signer, index, tail);
        let sequencer = std::thread::Builder::new()
            .name("ledger-sequencer".into())
            .spawn(move || sequencer.run(&inbox))
            .map_err(LedgerError::io("starting the sequencer of", shared.files.root()))?;
        let (requests, sequencer) = (Some(requests), Some(sequencer));
        Ok(Self { shared, key, requests, sequencer, _lock: lock })
    }

    /// The key that checkpoints are signed with.
    pub const fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The directory of the log.
    pub fn dir(&self) -> &Path {
        self.shared.files.root()
    }

    /// Whether the log still takes entries.
    ///
    /// # Errors
    /// [`LedgerError::Stopped`] after a failed write.
    pub fn check_running(&self) -> Result<(), LedgerError> {
        match self.shared.broken.get() {
            Some(reason) => Err(LedgerError::Stopped(reason.clone())),
            None => Ok(()),
        }
    }

    /// The latest published state.
    pub fn published(&self) -> Arc<Published> {
        self.shared.published()
    }

    /// Appends a leaf, or finds it where it is; returns when it is durable and signed.
    ///
    /// # Errors
    /// [`TlogError::LeafSize`], [`LedgerError::Stopped`] after a failed write.
    pub fn append(&self, leaf: Vec<u8>) -> Result<Appended, LedgerError> {
        let (done, answer) = sync_channel(1);
        let request = Request::new(leaf, move |ticket| {
            // whoever asked may have gone
            let _ = done.send(ticket);
        })?;
        let requests = self.requests.as_ref().ok_or_else(stopped)?;
        requests.send(request).map_err(|_| stopped())?;
        self.receipt(&answer.recv().map_err(|_| stopped())??)
    }

    /// As [`Self::append`], but returns at once; `done` is called by the sequencer and must be quick.
    ///
    /// # Errors
    /// [`TlogError::LeafSize`], [`LedgerError::Busy`] if too many wait already, and as
    /// [`Self::append`].
    pub fn submit(
        &self,
        leaf: Vec<u8>,
        done: impl FnOnce(Result<Ticket, LedgerError>) + Send + 'static,
    ) -> Result<(), LedgerError> {
        let request = Request::new(leaf, done)?;
        let requests = self.requests.as_ref().ok_or_else(stopped)?;
        requests.try_send(request).map_err(|e| match e {
            TrySendError::Full(_) => LedgerError::Busy("entries"),
            TrySendError::Disconnected(_) => stopped(),
        })
    }

    /// The proof that belongs to a ticket.
    ///
    /// # Errors
    /// None for a ticket of this log.
    pub fn receipt(&self, ticket: &Ticket) -> Result<Appended, LedgerError> {
        let published = Arc::clone(&ticket.published);
        let proof = prove_inclusion(&*self.shared.tree(), ticket.index, published.checkpoint.size)?;
        Ok(Appended { index: ticket.index, published, proof })
    }

    /// The proof of the leaf at `index` in the first `size` leaves.
    ///
    /// # Errors
    /// [`TlogError::Range`] if the published log has no such leaf or size.
    pub fn prove(&self, index: u64, size: u64) -> Result<Vec<Sha256>, LedgerError> {
        self.check_size(size)?;
        Ok(prove_inclusion(&*self.shared.tree(), index, size)?)
    }

    /// The proof that the first `to` leaves begin with the first `from`.
    ///
    /// # Errors
    /// [`TlogError::Range`] if the published log is smaller, [`TlogError::RolledBack`].
    pub fn prove_consistency(&self, from: u64, to: u64) -> Result<Vec<Sha256>, LedgerError> {
        self.check_size(to)?;
        Ok(prove_consistency(&*self.shared.tree(), from, to)?)
    }

    /// The content of a tile, as the published log has it.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`], or what is wrong with the file.
    pub fn tile(&self, tile: &Tile) -> Result<Vec<u8>, LedgerError> {
        let missing = || LedgerError::NotFound(tile.to_string());
        let size = self.published().checkpoint.size;
        let widest = match tile.level() {
            Some(level) => Tile::at(level, tile.index(), size),
            None => Tile::entries(tile.index(), size),
        };
        if widest.map_err(|_| missing())?.width() < tile.width() {
            return Err(missing());
        }
        match tile.level() {
            Some(_) => self.shared.tree().tile(tile).ok_or_else(missing),
            None => self.entries(tile),
        }
    }

    /// The entry bundle `tile`, which the published log covers, cut from what is on disk.
    fn entries(&self, tile: &Tile) -> Result<Vec<u8>, LedgerError> {
        // a partial bundle may be replaced by a wider one while it is looked for
        for _ in 0..100 {
            let now = Tile::entries(tile.index(), self.published().checkpoint.size)?;
            let Some(mut content) = self.shared.files.tile(&now)? else {
                std::thread::yield_now();
                continue;
            };
            let leaves = now.leaves(&content)?;
            let wanted = leaves.get(..usize::from(tile.width())).unwrap_or(&leaves);
            let hashes: Vec<Sha256> = wanted.iter().map(|leaf| leaf_hash(leaf)).collect();
            self.check_leaves(&now, &hashes)?;
            let length = wanted.iter().map(|leaf| leaf.len() + 2).sum();
            content.truncate(length);
            return Ok(content);
        }
        let size = self.published().checkpoint.size;
        Err(LedgerError::TileRemoved { path: tile.to_string(), size })
    }

    /// Compares leaves that were read from a bundle with the signed tree.
    fn check_leaves(&self, bundle: &Tile, hashes: &[Sha256]) -> Result<(), LedgerError> {
        let tree = self.shared.tree();
        for (found, index) in hashes.iter().zip(bundle.first()..) {
            let expected = tree.leaf(index).copied();
            if let Some(expected) = expected.filter(|expected| expected != found) {
                let (path, found) = (bundle.to_string(), *found);
                return Err(LedgerError::LeafEdited { index, path, expected, found });
            }
        }
        Ok(())
    }

    fn check_size(&self, size: u64) -> Result<(), LedgerError> {
        let limit = self.published().checkpoint.size + 1;
        if size < limit {
            return Ok(());
        }
        Err(TlogError::Range { what: "a size of the log", limit, found: size }.into())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(sequencer) = self.sequencer.take() {
            // a sequencer that panicked has told its callers by dropping them
            let _ = sequencer.join();
        }
    }
}

impl Shared {
    // A panic while one of these locks is held can not leave the value behind it half changed in a
    // way that matters: the tree only grows beyond what is published, the state is one pointer.
    fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tree_mut(&self) -> RwLockWriteGuard<'_, Tree> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A crash leaves at most one group of leaves beyond the checkpoint. More of them mean that the
/// checkpoint is an old one, and appending after it would fork the log.
fn refuse_older_checkpoint(files: &Files, size: u64) -> Result<(), LedgerError> {
    let beyond = (size + MAX_GROUP as u64).div_ceil(TILE_WIDTH);
    let tile = Tile::entries(beyond, u64::MAX)?;
    if files.has(&tile) {
        return Err(LedgerError::RolledBack { known: tile.first() + TILE_WIDTH, found: size });
    }
    Ok(())
}

fn stopped() -> LedgerError {
    LedgerError::Stopped("its sequencer has ended".into())
}
