//! The ledger as a service sees it.
//!
//! The ledger answers over an untrusted network and its operator is not trusted either. Whoever
//! implements [`LogClient`] checks signatures of checkpoints and inclusion of what was added; that
//! the log only ever grows is checked by those who remember an earlier checkpoint.

use casemate_ledger::client::Client;
use casemate_spec::Sha256;
use casemate_statement::PublicKey;
use casemate_statement::dsse::Envelope;
use casemate_statement::rekor::{HashedRekord, LogEntry};
use casemate_tlog::note::VerifierKey;
use casemate_tlog::tile::TILE_WIDTH;
use casemate_tlog::{Checkpoint, Tile};

use crate::client::Http;
use crate::error::ServiceError;

/// What a service does with the ledger.
pub trait LogClient: Send + Sync {
    /// Adds a statement signed by `key`. Adding the same envelope again gives the same leaf. The entry's
    /// inclusion is proved before this returns.
    ///
    /// # Errors
    /// If the ledger does not answer, refuses, or its proof does not hold.
    fn add_dsse(&self, envelope: &Envelope, key: &PublicKey) -> Result<LogEntry, ServiceError>;

    /// Adds a signature by `key` over the bytes with this digest; otherwise as [`Self::add_dsse`].
    ///
    /// # Errors
    /// As [`Self::add_dsse`].
    fn add_signature(
        &self,
        digest: &Sha256,
        signature: &[u8],
        key: &PublicKey,
    ) -> Result<LogEntry, ServiceError>;

    /// The latest checkpoint, its signature checked.
    ///
    /// # Errors
    /// If the ledger does not answer or its signature does not hold.
    fn checkpoint(&self) -> Result<Checkpoint, ServiceError>;

    /// Checks that the log as it is now continues the log of an earlier, verified checkpoint.
    ///
    /// # Errors
    /// If it was rolled back, is another log, or the ledger does not answer.
    fn continues(&self, earlier: &Checkpoint) -> Result<(), ServiceError>;

    /// The leaves from index `from` up to and without `to`; at least one, perhaps fewer than asked
    /// for. Not yet checked against any root.
    ///
    /// # Errors
    /// If the ledger does not answer.
    fn leaves(&self, from: u64, to: u64) -> Result<Vec<Vec<u8>>, ServiceError>;

    /// The bytes that a leaf's signature is over, by their SHA-256.
    ///
    /// # Errors
    /// If the ledger does not answer or has no such bytes.
    fn blob(&self, digest: &Sha256) -> Result<Vec<u8>, ServiceError>;
}

/// The ledger over HTTP.
pub struct Ledger {
    client: Client,
    http: Http,
}

impl Ledger {
    /// The ledger at `url` that signs with the key in `vkey` (C2SP signed-note, as in the trust
    /// file).
    ///
    /// # Errors
    /// If `vkey` is no verifier key.
    pub fn new(url: &str, vkey: &str) -> Result<Self, ServiceError> {
        let key: VerifierKey = vkey.parse().map_err(ServiceError::other)?;
        Ok(Self { client: Client::new(url, key), http: Http::new(url) })
    }
}

impl LogClient for Ledger {
    fn add_dsse(&self, envelope: &Envelope, key: &PublicKey) -> Result<LogEntry, ServiceError> {
        self.client.add_dsse(envelope, key).map_err(ServiceError::other)
    }

    fn add_signature(
        &self,
        digest: &Sha256,
        signature: &[u8],
        key: &PublicKey,
    ) -> Result<LogEntry, ServiceError> {
        let record = HashedRekord::of_digest(*digest, signature.to_vec(), key.clone());
        self.client.add(&record, &[]).map_err(ServiceError::other)
    }

    fn checkpoint(&self) -> Result<Checkpoint, ServiceError> {
        self.client.checkpoint().map(|p| p.checkpoint).map_err(ServiceError::other)
    }

    fn continues(&self, earlier: &Checkpoint) -> Result<(), ServiceError> {
        let now = self.client.checkpoint().map_err(ServiceError::other)?.checkpoint;
        self.client.consistency(earlier, &now).map(drop).map_err(ServiceError::other)
    }

    fn leaves(&self, from: u64, to: u64) -> Result<Vec<Vec<u8>>, ServiceError> {
        let tile = Tile::entries(from / TILE_WIDTH, to).map_err(ServiceError::other)?;
        let content = self.http.get(&format!("/{tile}"))?;
        let leaves = tile.leaves(&content).map_err(ServiceError::other)?;
        let indexed = (from / TILE_WIDTH * TILE_WIDTH..).zip(leaves);
        Ok(indexed.filter(|(i, _)| (from..to).contains(i)).map(|(_, l)| l.to_vec()).collect())
    }

    fn blob(&self, digest: &Sha256) -> Result<Vec<u8>, ServiceError> {
        self.client.blob(digest).map_err(ServiceError::other)
    }
}
