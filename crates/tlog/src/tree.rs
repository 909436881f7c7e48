//! Two sources of nodes: a tree held in memory, and a tree read from tiles.

use std::cell::RefCell;
use std::collections::HashMap;

use casemate_spec::Sha256;

use crate::error::TlogError;
use crate::merkle::{self, NodeSource, node_hash};
use crate::tile::{TILE_HEIGHT, TILE_WIDTH, Tile};

/// A tree in memory: the hashes of all its complete subtrees, about 64 bytes a leaf.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    levels: Vec<Vec<Sha256>>,
}

impl Tree {
    /// The tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Adds the hash of a leaf.
    pub fn push(&mut self, leaf: Sha256) {
        let mut hash = leaf;
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let nodes = &mut self.levels[level];
            nodes.push(hash);
            match nodes.as_slice() {
                [.., left, right] if nodes.len().is_multiple_of(2) => hash = node_hash(left, right),
                _ => break,
            }
        }
    }

    /// The root over all leaves.
    pub fn root(&self) -> Sha256 {
        // a tree knows every node of its own, so this can not fail
        self.root_at(self.size()).unwrap_or_else(|_| merkle::empty_root())
    }

    /// The root over the first `size` leaves.
    ///
    /// # Errors
    /// [`TlogError::Range`] if the tree is smaller.
    pub fn root_at(&self, size: u64) -> Result<Sha256, TlogError> {
        merkle::root(self, size)
    }

    /// The hash of the leaf at `index`.
    pub fn leaf(&self, index: u64) -> Option<&Sha256> {
        self.levels.first()?.get(usize::try_from(index).ok()?)
    }

    /// The content of a tile of hashes, if the tree has all of it.
    pub fn tile(&self, tile: &Tile) -> Option<Vec<u8>> {
        let nodes = self.levels.get(usize::from(tile.level()?) * TILE_HEIGHT)?;
        let first = usize::try_from(tile.first()).ok()?;
        let hashes = nodes.get(first..first.checked_add(usize::from(tile.width()))?)?;
        Some(hashes.iter().flat_map(|hash| hash.0).collect())
    }
}

impl NodeSource for Tree {
    type Error = TlogError;

    fn node(&self, level: u8, index: u64) -> Result<Sha256, TlogError> {
        let nodes = self.levels.get(usize::from(level)).map_or(&[][..], Vec::as_slice);
        let node = usize::try_from(index).ok().and_then(|index| nodes.get(index));
        let limit = nodes.len() as u64;
        node.copied().ok_or(TlogError::Range { what: "a node index", limit, found: index })
    }
}

/// A tree of `size` leaves whose tiles `fetch` gets, from a disk or over a network.
///
/// Nothing is believed: compare what is proved with a root that the log signed.
pub struct TileTree<F> {
    size: u64,
    fetch: F,
    tiles: RefCell<HashMap<Tile, Vec<u8>>>,
}

impl<F> TileTree<F> {
    /// A tree of `size` leaves over the tiles that `fetch` returns.
    pub fn new(size: u64, fetch: F) -> Self {
        Self { size, fetch, tiles: RefCell::default() }
    }
}

impl<F, E> NodeSource for TileTree<F>
where
    F: Fn(&Tile) -> Result<Vec<u8>, E>,
    E: From<TlogError>,
{
    type Error = E;

    fn node(&self, level: u8, index: u64) -> Result<Sha256, E> {
        let below = usize::from(level) % TILE_HEIGHT;
        let first = index << below;
        let tile = Tile::at(level / TILE_HEIGHT as u8, first / TILE_WIDTH, self.size)?;
        let begin = (first % TILE_WIDTH) as usize;
        let end = begin + (1 << below);
        if !self.tiles.borrow().contains_key(&tile) {
            let content = (self.fetch)(&tile)?;
            tile.check_hashes(&content)?;
            self.tiles.borrow_mut().insert(tile, content);
        }
        let tiles = self.tiles.borrow();
        let content = tiles.get(&tile).map_or(&[][..], Vec::as_slice);
        let Some(bytes) = content.get(begin * 32..end * 32) else {
            let limit = u64::from(tile.width());
            return Err(
                TlogError::Range { what: "a node in a tile", limit, found: end as u64 }.into()
            );
        };
        Ok(fold(bytes))
    }
}

/// The root of a complete subtree whose lowest hashes are `bytes`, a power of two of them.
fn fold(bytes: &[u8]) -> Sha256 {
    let mut hashes: Vec<Sha256> = bytes
        .chunks_exact(32)
        .map(|chunk| {
            let mut hash = [0; 32];
            hash.copy_from_slice(chunk);
            Sha256(hash)
        })
        .collect();
    while hashes.len() > 1 {
        hashes = hashes.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    hashes.first().copied().unwrap_or_else(merkle::empty_root)
}
