//! The ledger: a log that nobody can rewrite, on the disk of a machine that nobody trusts.
//!
//! Every statement, approval, signature and secret release becomes a leaf. What the log has signed
//! it can not take back: leaves are hashed into an RFC 9162 tree, the root of the tree is signed,
//! and readers who keep one signed root find out if a later one does not continue it.
//!
//! - [`store`]: the log on disk: appends are durable, deduplicated and committed in groups
//! - [`audit`]: a directory read and judged: is it the tree that the log signed?
//! - [`blob`]: what the leaves' digests stand for, beside the log
//! - [`service`]: the log over HTTP
//! - [`client`]: the other end, which believes nothing that it has not verified

#![forbid(unsafe_code)]

pub mod audit;
pub mod blob;
pub mod client;
pub mod error;
mod files;
mod sequencer;
pub mod service;
pub mod store;
pub mod wire;

pub use error::LedgerError;
