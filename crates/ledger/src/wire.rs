//! What goes over HTTP besides checkpoints, tiles and blobs: small JSON documents.

use casemate_spec::{Coded, Sha256};
use casemate_statement::json::Base64;
use casemate_statement::rekor::LogEntry;
use serde::{Deserialize, Serialize};

use crate::blob::MAX_BLOB;
use crate::error::LedgerError;

/// The most blobs that come with one entry.
pub const MAX_BLOBS: usize = 4;
/// The largest request: one blob of the largest size in base64, and the entry.
pub const MAX_REQUEST: usize = MAX_BLOB / 3 * 4 + 512 * 1024;
/// The largest JSON answer: an entry with its proof.
pub const MAX_ANSWER: u64 = 512 * 1024;

/// `POST /v1/entries`: log this.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// A Rekor v2 `hashedrekord` 0.0.2 entry.
    pub entry: serde_json::Value,
    /// The bytes that the entry's digest stands for, and others to keep beside the log.
    #[serde(default)]
    pub blobs: Vec<Base64>,
}

/// It is logged.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddAnswer {
    /// The entry with its proof, as it stands in a Sigstore bundle.
    pub entry: LogEntry,
}

/// `GET /v1/proof?index=I&size=N`: that leaf I is in the log of N leaves.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofQuery {
    /// The position.
    pub index: u64,
    /// The size of the log.
    pub size: u64,
}

/// `GET /v1/consistency?from=M&to=N`: that the log of N leaves begins with that of M.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyQuery {
    /// The earlier size.
    pub from: u64,
    /// The later size.
    pub to: u64,
}

/// A proof of either kind.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofAnswer {
    /// Its hashes, in hexadecimal, in the order of RFC 9162.
    pub hashes: Vec<Sha256>,
}

/// Why the service refuses, with HTTP status 4xx or 5xx.
#[derive(Debug, Serialize, Deserialize)]
pub struct Problem {
    /// A stable code.
    pub code: String,
    /// What was expected and found.
    pub message: String,
    /// What can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl From<&LedgerError> for Problem {
    fn from(error: &LedgerError) -> Self {
        Self { code: error.code().into(), message: error.to_string(), fix: error.fix() }
    }
}
