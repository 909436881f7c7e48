//! The mathematics and the formats of a transparency log; no disk, no socket, no clock.
//!
//! A reader of a signature can not tell a log that shows everybody the same leaves from one that
//! shows each reader what that reader wants to see. Merkle proofs can: a leaf is in the tree whose
//! root the log signed (inclusion), and a later tree still begins with the earlier one
//! (consistency). This crate makes and checks both, and speaks the formats in which other people's
//! tools exchange them.
//!
//! - [`merkle`]: RFC 9162 hashing, proofs made from any source of nodes, proofs checked
//! - [`tree`]: a whole tree in memory, and a tree read from tiles
//! - [`tile`]: C2SP tlog-tiles, the names and contents of the files that a log is published as
//! - [`note`]: C2SP signed-note and tlog-cosignature, keys and signatures
//! - [`checkpoint`]: C2SP tlog-checkpoint, the signed size and root of a log

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod error;
pub mod merkle;
pub mod note;
pub mod tile;
pub mod tree;

pub use casemate_spec::Sha256;
pub use checkpoint::Checkpoint;
pub use error::TlogError;
pub use tile::Tile;
pub use tree::Tree;
