//! C2SP tlog-tiles: how a log is cut into files that never change once they are full.
//!
//! A tile of hashes holds up to 256 nodes of every eighth level of the tree; an entry bundle holds
//! the 256 leaves below one tile of level 0. Only the last tile of each level may be partial, and
//! its name says how wide it is.

use std::fmt;
use std::str::FromStr;

use crate::error::TlogError;

/// How many levels of the tree one tile spans.
pub const TILE_HEIGHT: usize = 8;
/// How many nodes, or leaves, a full tile has.
pub const TILE_WIDTH: u64 = 1 << TILE_HEIGHT;
/// The largest leaf: its length is written in two bytes.
pub const MAX_LEAF: usize = u16::MAX as usize;
/// The highest level of tiles in a tree of less than 2^64 leaves.
const MAX_LEVEL: u8 = 7;

/// The name of a tile: of hashes at a level, or of the entries themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// `None` for entries.
    level: Option<u8>,
    index: u64,
    width: u16,
}

impl Tile {
    /// The tile of hashes at `level` and `index` in a tree of `size` leaves, as wide as it is there.
    ///
    /// # Errors
    /// [`TlogError::Range`] if that tree has no such tile.
    pub fn at(level: u8, index: u64, size: u64) -> Result<Self, TlogError> {
        let nodes = match level {
            0..=MAX_LEVEL => size >> (usize::from(level) * TILE_HEIGHT),
            _ => 0,
        };
        Self::within(Some(level), index, nodes)
    }

    /// The entry bundle at `index` in a tree of `size` leaves, as wide as it is there.
    ///
    /// # Errors
    /// [`TlogError::Range`] if that tree has no such bundle.
    pub fn entries(index: u64, size: u64) -> Result<Self, TlogError> {
        Self::within(None, index, size)
    }

    fn within(level: Option<u8>, index: u64, nodes: u64) -> Result<Self, TlogError> {
        let before = index.checked_mul(TILE_WIDTH).filter(|before| *before < nodes);
        let Some(before) = before else {
            let limit = nodes.div_ceil(TILE_WIDTH);
            return Err(TlogError::Range { what: "a tile index", limit, found: index });
        };
        Ok(Self { level, index, width: (nodes - before).min(TILE_WIDTH) as u16 })
    }

    /// Every tile of a tree of `size` leaves: entries first, then hashes from the lowest level up.
    pub fn all(size: u64) -> impl Iterator<Item = Self> {
        Self::added(0, size)
    }

    /// The tiles of a tree of `to` leaves that a tree of `from` leaves does not have.
    pub fn added(from: u64, to: u64) -> impl Iterator<Item = Self> {
        std::iter::once(None).chain((0..=MAX_LEVEL).map(Some)).flat_map(move |level| {
            let shift = usize::from(level.unwrap_or(0)) * TILE_HEIGHT;
            let (old, new) = (from >> shift, to >> shift);
            let first = if new > old { old / TILE_WIDTH } else { new.div_ceil(TILE_WIDTH) };
            (first..new.div_ceil(TILE_WIDTH)).map_while(move |i| Self::within(level, i, new).ok())
        })
    }

    /// The partial tiles of a tree of `size` leaves, at most one of each kind.
    pub fn partial(size: u64) -> impl Iterator<Item = Self> {
        std::iter::once(None).chain((0..=MAX_LEVEL).map(Some)).filter_map(move |level| {
            let nodes = size >> (usize::from(level.unwrap_or(0)) * TILE_HEIGHT);
            Self::within(level, nodes / TILE_WIDTH, nodes).ok()
        })
    }

    /// The level of a tile of hashes; `None` for an entry bundle.
    pub const fn level(&self) -> Option<u8> {
        self.level
    }

    /// The position of the tile in its level.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many nodes or leaves the tile has, 1 to 256.
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// The position, in its level of the tree, of the tile's first node or leaf.
    pub const fn first(&self) -> u64 {
        self.index.saturating_mul(TILE_WIDTH)
    }

    /// Whether the tile has all of its 256 nodes or leaves, and so never changes again.
    pub const fn is_full(&self) -> bool {
        self.width as u64 == TILE_WIDTH
    }

    /// Checks that `content` has the length that a tile of hashes of this width has.
    ///
    /// # Errors
    /// [`TlogError::Tile`].
    pub fn check_hashes(&self, content: &[u8]) -> Result<(), TlogError> {
        let expected = usize::from(self.width) * 32;
        if content.len() == expected {
            return Ok(());
        }
        Err(self.wrong(format!("expected {expected} bytes, found {}", content.len())))
    }

    /// The leaves in the content of an entry bundle: as many as the tile is wide, and nothing more.
    ///
    /// # Errors
    /// [`TlogError::Tile`].
    pub fn leaves<'a>(&self, content: &'a [u8]) -> Result<Vec<&'a [u8]>, TlogError> {
        let mut leaves = Vec::with_capacity(usize::from(self.width));
        let mut rest = content;
        for number in 0..self.width {
            let leaf = rest.split_first_chunk().and_then(|(length, rest)| {
                rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
            });
            let Some((leaf, after)) = leaf else {
                let reason = format!("expected {} leaves, it ends in leaf {number}", self.width);
                return Err(self.wrong(reason));
            };
            leaves.push(leaf);
            rest = after;
        }
        if rest.is_empty() {
            return Ok(leaves);
        }
        Err(self.wrong(format!("{} bytes follow its {} leaves", rest.len(), self.width)))
    }

    /// A tile that is `reason`.
    fn wrong(&self, reason: String) -> TlogError {
        TlogError::Tile { path: self.to_string(), reason }
    }
}

/// Appends a leaf to the content of an entry bundle: its length in two bytes, then the leaf.
///
/// # Errors
/// [`TlogError::LeafSize`] above [`MAX_LEAF`] bytes.
pub fn push_leaf(bundle: &mut Vec<u8>, leaf: &[u8]) -> Result<(), TlogError> {
    let Ok(length) = u16::try_from(leaf.len()) else {
        return Err(TlogError::LeafSize { limit: MAX_LEAF, found: leaf.len() });
    };
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(leaf);
    Ok(())
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Some(level) => write!(f, "tile/{level}/")?,
            None => f.write_str("tile/entries/")?,
        }
        let mut divisor = 1u64;
        while self.index / divisor >= 1000 {
            divisor *= 1000;
        }
        while divisor > 1 {
            write!(f, "x{:03}/", self.index / divisor % 1000)?;
            divisor /= 1000;
        }
        write!(f, "{:03}", self.index % 1000)?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

impl FromStr for Tile {
    type Err = TlogError;

    fn from_str(path: &str) -> Result<Self, TlogError> {
        let wrong = || TlogError::TilePath(path.chars().take(80).collect());
        parse(path).filter(|tile| tile.to_string() == path).ok_or_else(wrong)
    }
}

/// A tile whose path may be `path`; other spellings of the same tile pass here.
fn parse(path: &str) -> Option<Tile> {
    let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
    let level = match level {
        "entries" => None,
        level => Some(level.parse().ok().filter(|level| *level <= MAX_LEVEL)?),
    };
    let (digits, width) = match rest.split_once(".p/") {
        Some((digits, width)) => (digits, width.parse().ok().filter(|w| (1..256).contains(w))?),
        None => (rest, TILE_WIDTH as u16),
    };
    let mut index = 0u64;
    for group in digits.split('/') {
        let group: u16 = group.strip_prefix('x').unwrap_or(group).parse().ok()?;
        index = index.checked_mul(1000)?.checked_add(u64::from(group))?;
    }
    index.checked_mul(TILE_WIDTH)?;
    Some(Tile { level, index, width })
}
