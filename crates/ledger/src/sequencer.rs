//! The one thread that gives leaves their positions, group by group.

use std::collections::HashMap;
use std::mem;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};

use casemate_tlog::merkle::leaf_hash;
use casemate_tlog::note::Signer;
use casemate_tlog::tile::{MAX_LEAF, TILE_WIDTH, push_leaf};
use casemate_tlog::{Checkpoint, Sha256, Tile, TlogError};

use crate::error::LedgerError;
use crate::store::{Published, Shared, Ticket};

/// The most leaves that are committed together.
pub(crate) const MAX_GROUP: usize = 8192;
/// No leaf joins a group that has this many bytes.
const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;
/// The most leaves that wait while a group is committed.
pub(crate) const MAX_WAITING: usize = 8192;

/// A leaf that wants a position, and whom to tell.
pub(crate) struct Request {
    leaf: Vec<u8>,
    hash: Sha256,
    done: Box<dyn FnOnce(Result<Ticket, LedgerError>) + Send>,
}

impl Request {
    pub(crate) fn new(
        leaf: Vec<u8>,
        done: impl FnOnce(Result<Ticket, LedgerError>) + Send + 'static,
    ) -> Result<Self, LedgerError> {
        if leaf.len() > MAX_LEAF {
            return Err(TlogError::LeafSize { limit: MAX_LEAF, found: leaf.len() }.into());
        }
        let hash = leaf_hash(&leaf);
        Ok(Self { leaf, hash, done: Box::new(done) })
    }
}

/// What only the sequencer touches.
pub(crate) struct Sequencer {
    shared: Arc<Shared>,
    signer: Signer,
    /// Where each leaf is, by its hash.
    index: HashMap<Sha256, u64>,
    /// The content of the partial last entry bundle.
    tail: Vec<u8>,
}

impl Sequencer {
    pub(crate) const fn new(
        shared: Arc<Shared>,
        signer: Signer,
        index: HashMap<Sha256, u64>,
        tail: Vec<u8>,
    ) -> Self {
        Self { shared, signer, index, tail }
    }

    /// Commits groups until nobody can ask any more.
    pub(crate) fn run(mut self, inbox: &Receiver<Request>) {
        while let Ok(first) = inbox.recv() {
            let mut bytes = first.leaf.len();
            let mut group = vec![first];
            while group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
                let Ok(next) = inbox.try_recv() else { break };
                bytes += next.leaf.len();
                group.push(next);
            }
            self.commit(group);
        }
    }

    /// Commits one group and answers everybody in it.
    fn commit(&mut self, group: Vec<Request>) {
        if self.shared.broken.get().is_none()
            && let Err(e) = self.write(&group)
        {
            // What reached the disk is not known, so nothing may be built on it. Opening the log
            // again starts from the published checkpoint.
            let _ = self.shared.broken.set(e.to_string());
        }
        let published = self.shared.published();
        for Request { hash, done, .. } in group {
            let found = self.index.get(&hash).filter(|i| **i < published.checkpoint.size);
            done(match (found, self.shared.broken.get()) {
                (Some(index), _) => Ok(Ticket { index: *index, published: Arc::clone(&published) }),
                (None, broken) => Err(LedgerError::Stopped(broken.cloned().unwrap_or_default())),
            });
        }
    }

    /// Makes the new leaves of a group durable and publishes the log that has them.
    fn write(&mut self, group: &[Request]) -> Result<(), LedgerError> {
        let from = self.shared.published().checkpoint.size;
        let Some(Growth { size, root, tiles }) = self.integrate(group, from)? else {
            return Ok(());
        };
        let note = Checkpoint::sign(&self.signer, size, root)?;
        self.shared.files.commit(&tiles, &note)?;
        let origin = self.signer.verifier().name().into();
        let published = Published { checkpoint: Checkpoint { origin, size, root }, note };
        let mut current = self.shared.published.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(published);
        drop(current);
        self.shared.files.prune(from, size);
        Ok(())
    }

    /// Adds the leaves of a group that are new to tree and index.
    fn integrate(&mut self, group: &[Request], from: u64) -> Result<Option<Growth>, LedgerError> {
        let mut tree = self.shared.tree_mut();
        let (mut size, mut tiles) = (from, Vec::new());
        for request in group {
            if self.index.contains_key(&request.hash) {
                continue;
            }
            self.index.insert(request.hash, size);
            tree.push(request.hash);
            push_leaf(&mut self.tail, &request.leaf)?;
            size += 1;
            if size.is_multiple_of(TILE_WIDTH) {
                let full = Tile::entries(size / TILE_WIDTH - 1, size)?;
                tiles.push((full, mem::take(&mut self.tail)));
            }
        }
        if size == from {
            return Ok(None);
        }
        if !self.tail.is_empty() {
            tiles.push((Tile::entries(size / TILE_WIDTH, size)?, self.tail.clone()));
        }
        let hashes = Tile::added(from, size).filter_map(|tile| Some((tile, tree.tile(&tile)?)));
        tiles.extend(hashes);
        Ok(Some(Growth { size, root: tree.root(), tiles }))
    }
}

/// What a group adds to the log.
struct Growth {
    size: u64,
    root: Sha256,
    tiles: Vec<(Tile, Vec<u8>)>,
}
