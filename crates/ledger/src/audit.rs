//! A log's directory, read and judged: is it the tree that the log signed, and all of it?
//!
//! Every leaf is hashed again. If the leaves lead to the signed root they are right, and a tile of
//! hashes that says otherwise was altered; if they do not, but the hashes do, then the hashes tell
//! which leaf was edited. With a checkpoint known from before, a log that was rolled back or forked
//! is found out too; without one it can not be, however careful the reader.

use std::path::Path;

use casemate_tlog::merkle::leaf_hash;
use casemate_tlog::note::VerifierKey;
use casemate_tlog::tile::TILE_WIDTH;
use casemate_tlog::{Checkpoint, Sha256, Tile, Tree};

use crate::error::LedgerError;
use crate::files::Files;

/// A log that is what it signed.
#[derive(Debug)]
pub struct Audited {
    /// Its checkpoint.
    pub checkpoint: Checkpoint,
    /// The signed note that the checkpoint was read from.
    pub note: String,
    /// The whole tree.
    pub tree: Tree,
    /// The content of the last entry bundle, if it is partial; else nothing.
    pub(crate) tail: Vec<u8>,
}

/// Reads all of the log in `dir` and compares it with its checkpoint, which `key` must have signed,
/// and with the checkpoint `known` from before, if there is one.
///
/// # Errors
/// What is wrong, as exactly as the directory tells: see [`LedgerError`], codes 1 to 9.
pub fn verify_dir(
    dir: &Path,
    key: &VerifierKey,
    known: Option<&Checkpoint>,
) -> Result<Audited, LedgerError> {
    let files = Files::new(dir);
    let Some(note) = files.checkpoint()? else {
        return Err(LedgerError::Missing(dir.into()));
    };
    let checkpoint = Checkpoint::open(&note, key)
        .map_err(|source| LedgerError::Checkpoint { path: files.checkpoint_path(), source })?;
    if let Some(known) = known.filter(|known| known.size > checkpoint.size) {
        return Err(LedgerError::RolledBack { known: known.size, found: checkpoint.size });
    }
    let (tree, tail) = read_leaves(&files, checkpoint.size)?;
    if tree.root() != checkpoint.root {
        return Err(find_edited_leaf(&files, &checkpoint, &tree)?);
    }
    check_hashes(&files, &tree)?;
    if let Some(known) = known {
        check_known(known, &checkpoint, &tree)?;
    }
    Ok(Audited { checkpoint, note, tree, tail })
}

/// The tree over the leaves on disk, and the content of a partial last bundle.
fn read_leaves(files: &Files, size: u64) -> Result<(Tree, Vec<u8>), LedgerError> {
    let mut tree = Tree::new();
    let mut tail = Vec::new();
    for index in 0..size.div_ceil(TILE_WIDTH) {
        let tile = Tile::entries(index, size)?;
        let Some(content) = files.tile(&tile)? else {
            return Err(missing_bundle(files, &tile, size)?);
        };
        for leaf in tile.leaves(&content).map_err(|e| altered(&tile, e))? {
            tree.push(leaf_hash(leaf));
        }
        if !tile.is_full() {
            tail = content;
        }
    }
    Ok((tree, tail))
}

/// Whether a missing bundle was taken out, the log ends there, or the checkpoint is an old one.
fn missing_bundle(files: &Files, tile: &Tile, size: u64) -> Result<LedgerError, LedgerError> {
    for later in tile.index() + 1..size.div_ceil(TILE_WIDTH) {
        if files.has(&Tile::entries(later, size)?) {
            return Ok(LedgerError::TileRemoved { path: tile.to_string(), size });
        }
    }
    for found in (1..=TILE_WIDTH).rev().map(|width| tile.first() + width) {
        if files.has(&Tile::entries(tile.index(), found)?) {
            return Ok(match found > size {
                true => LedgerError::RolledBack { known: found, found: size },
                false => LedgerError::Truncated { size, found },
            });
        }
    }
    Ok(LedgerError::Truncated { size, found: tile.first() })
}

/// The first leaf that is not the one in the tiles of hashes, if those lead to the signed root.
fn find_edited_leaf(
    files: &Files,
    checkpoint: &Checkpoint,
    leaves: &Tree,
) -> Result<LedgerError, LedgerError> {
    let size = checkpoint.size;
    let mut signed = Tree::new();
    for index in 0..size.div_ceil(TILE_WIDTH) {
        let tile = Tile::at(0, index, size)?;
        for hash in read_hashes(files, &tile, size)?.chunks_exact(32) {
            let mut leaf = [0; 32];
            leaf.copy_from_slice(hash);
            signed.push(Sha256(leaf));
        }
    }
    let mut pairs = (0..size).filter_map(|i| Some((i, *signed.leaf(i)?, *leaves.leaf(i)?)));
    let differing = pairs.find(|(_, expected, found)| expected != found);
    Ok(match differing {
        Some((index, expected, found)) if signed.root() == checkpoint.root => {
            let path = Tile::entries(index / TILE_WIDTH, size)?.to_string();
            LedgerError::LeafEdited { index, path, expected, found }
        }
        _ => LedgerError::AnotherTree { size, expected: checkpoint.root, found: leaves.root() },
    })
}

/// Compares every tile of hashes with the tree over the leaves, which is the signed one.
fn check_hashes(files: &Files, tree: &Tree) -> Result<(), LedgerError> {
    let size = tree.size();
    for tile in Tile::all(size).filter(|tile| tile.level().is_some()) {
        let content = read_hashes(files, &tile, size)?;
        if tree.tile(&tile).as_deref() != Some(&content) {
            let reason = "its hashes are not those of the signed tree".into();
            return Err(LedgerError::TileAltered { path: tile.to_string(), reason });
        }
    }
    Ok(())
}

fn read_hashes(files: &Files, tile: &Tile, size: u64) -> Result<Vec<u8>, LedgerError> {
    let Some(content) = files.tile(tile)? else {
        return Err(LedgerError::TileRemoved { path: tile.to_string(), size });
    };
    tile.check_hashes(&content).map_err(|e| altered(tile, e))?;
    Ok(content)
}

/// Compares the tree with a checkpoint known from before, which is no larger.
fn check_known(known: &Checkpoint, now: &Checkpoint, tree: &Tree) -> Result<(), LedgerError> {
    if known.origin != now.origin {
        let (expected, found) = (known.origin.clone(), now.origin.clone());
        return Err(casemate_tlog::TlogError::Origin { expected, found }.into());
    }
    let found = tree.root_at(known.size)?;
    if found == known.root {
        return Ok(());
    }
    Err(LedgerError::Forked { size: known.size, known: known.root, found })
}

fn altered(tile: &Tile, error: casemate_tlog::TlogError) -> LedgerError {
    let reason = match error {
        casemate_tlog::TlogError::Tile { reason, .. } => reason,
        other => other.to_string(),
    };
    LedgerError::TileAltered { path: tile.to_string(), reason }
}
