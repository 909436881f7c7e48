//! The other end of the log's service. It believes nothing that it has not verified.
//!
//! Every answer is held against the log's key: checkpoints by their signatures, entries by proofs
//! that lead to a checkpoint, blobs by their digests. The client remembers the latest checkpoint
//! that it verified, and every other one must be consistent with it: a log that shows this client
//! two histories is found out.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casemate_spec::Sha256;
use casemate_statement::PublicKey;
use casemate_statement::dsse::Envelope;
use casemate_statement::json;
use casemate_statement::rekor::{HashedRekord, LogEntry, MAX_LEAF};
use casemate_statement::sshsig::SshSignature;
use casemate_tlog::merkle::{leaf_hash, prove_inclusion, verify_inclusion};
use casemate_tlog::note::{MAX_NOTE, VerifierKey};
use casemate_tlog::tile::TILE_WIDTH;
use casemate_tlog::tree::TileTree;
use casemate_tlog::{Checkpoint, Tile, TlogError, Tree};
use serde::de::DeserializeOwned;

use crate::blob::MAX_BLOB;
use crate::error::LedgerError;
use crate::store::Published;
use crate::wire::{AddAnswer, AddRequest, MAX_ANSWER, MAX_REQUEST, Problem, ProofAnswer};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A log behind an address, and what is known of it.
pub struct Client {
    agent: ureq::Agent,
    url: String,
    key: VerifierKey,
    known: Mutex<Option<Checkpoint>>,
}

impl Client {
    /// The log at `url` (such as `http://127.0.0.1:4000`) with this key.
    pub fn new(url: &str, key: VerifierKey) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build();
        let url = url.trim_end_matches('/').into();
        Self { agent: config.into(), url, key, known: Mutex::new(None) }
    }

    /// A client that knows a checkpoint from before, which it verified.
    #[must_use]
    pub fn knowing(mut self, checkpoint: Checkpoint) -> Self {
        self.known = Mutex::new(Some(checkpoint));
        self
    }

    /// The latest checkpoint that was verified.
    pub fn known(&self) -> Option<Checkpoint> {
        self.lock().clone()
    }

    /// The key that the log is held against.
    pub const fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The state of the log now.
    ///
    /// # Errors
    /// [`LedgerError::RolledBack`] if it is smaller than one seen before, [`LedgerError::Forked`]
    /// or [`TlogError::NotConsistent`] if it does not continue it, [`LedgerError::Unreachable`].
    pub fn checkpoint(&self) -> Result<Published, LedgerError> {
        let before = self.known();
        let note = self.fetch("/checkpoint", MAX_NOTE as u64)?;
        let wrong = |_| self.wrong("checkpoint is not UTF-8 text");
        let note = String::from_utf8(note).map_err(wrong)?;
        let checkpoint = Checkpoint::open(&note, &self.key)?;
        if let Some(before) = before.filter(|before| before.size > checkpoint.size) {
            return Err(LedgerError::RolledBack { known: before.size, found: checkpoint.size });
        }
        self.learn(&checkpoint)?;
        Ok(Published { checkpoint, note })
    }

    /// Logs an entry with the blobs that belong to it; the verified proof of it comes back.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if the log refuses, else what is wrong with its answer.
    pub fn add(&self, record: &HashedRekord, blobs: &[&[u8]]) -> Result<LogEntry, LedgerError> {
        let request = encode(record, blobs)?;
        let post = self.agent.post(self.at("/v1/entries")).content_type("application/json");
        let sent = post.send(&request[..]);
        let answer: AddAnswer = self.json(&self.read(sent, MAX_ANSWER)?)?;
        answer.entry.verify_record(&self.key, record)?;
        let note = &answer.entry.inclusion_proof.checkpoint.envelope;
        self.learn(&Checkpoint::open(note, &self.key)?)?;
        Ok(answer.entry)
    }

    /// Logs an envelope signed by `key`. The statement is kept beside the log as the bytes that
    /// were signed (the pre-authentication encoding), under the digest in the entry.
    ///
    /// # Errors
    /// As [`Self::add`], and if the envelope is not signed by `key`.
    pub fn add_dsse(&self, envelope: &Envelope, key: &PublicKey) -> Result<LogEntry, LedgerError> {
        envelope.verify(key)?;
        self.add(&HashedRekord::of_dsse(envelope, key)?, &[&envelope.pae()])
    }

    /// Logs a person's signature over `message`. Beside the log go the bytes that the signature
    /// covers, under the digest in the entry, the message and the armored signature.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_sshsig(
        &self,
        signature: &SshSignature,
        message: &[u8],
    ) -> Result<LogEntry, LedgerError> {
        let (covered, armored) = (signature.covered(message), signature.to_armored());
        self.add(&signature.record(message), &[&covered, message, armored.as_bytes()])
    }

    /// The entry at `index` with its proof in the log as it is now.
    ///
    /// # Errors
    /// As [`Self::checkpoint`]; [`TlogError::Range`] if there is none.
    pub fn entry(&self, index: u64) -> Result<LogEntry, LedgerError> {
        let Published { checkpoint: Checkpoint { size, root, .. }, note } = self.checkpoint()?;
        let mut leaves = self.bundle(index / TILE_WIDTH, size)?.into_iter();
        let leaf = leaves.nth((index % TILE_WIDTH) as usize);
        let range = TlogError::Range { what: "a leaf index", limit: size, found: index };
        let leaf = leaf.ok_or(range)?;
        let proof = self.fetch(&format!("/v1/proof?index={index}&size={size}"), MAX_ANSWER)?;
        let proof: ProofAnswer = self.json(&proof)?;
        let entry = LogEntry::new(&self.key, index, leaf, (size, &root), &proof.hashes, note);
        entry.verify(&self.key)?;
        Ok(entry)
    }

    /// The leaves `from..to`, each proved to be in the log as it is now, or as many as there are.
    ///
    /// # Errors
    /// As [`Self::checkpoint`]; [`TlogError::NotIncluded`] for a leaf that is not the signed one.
    pub fn entries(&self, from: u64, to: u64) -> Result<Vec<Vec<u8>>, LedgerError> {
        let Checkpoint { size, root, .. } = self.checkpoint()?.checkpoint;
        let (to, mut found) = (to.min(size), Vec::new());
        let tiles = TileTree::new(size, |tile: &Tile| self.tile(tile));
        let bundles = from / TILE_WIDTH..to.div_ceil(TILE_WIDTH);
        for bundle in bundles {
            for (leaf, index) in self.bundle(bundle, size)?.into_iter().zip(bundle * TILE_WIDTH..) {
                if (from..to).contains(&index) {
                    let proof = prove_inclusion(&tiles, index, size)?;
                    verify_inclusion(index, size, &leaf_hash(&leaf), &proof, &root)?;
                    found.push(leaf);
                }
            }
        }
        Ok(found)
    }

    /// Reads every leaf of the log and compares the root over them with the signed one.
    ///
    /// # Errors
    /// As [`Self::checkpoint`]; [`LedgerError::AnotherTree`].
    pub fn verify_all(&self) -> Result<Published, LedgerError> {
        let published = self.checkpoint()?;
        let Checkpoint { size, root: expected, .. } = published.checkpoint;
        let mut tree = Tree::new();
        for bundle in 0..size.div_ceil(TILE_WIDTH) {
            self.bundle(bundle, size)?.iter().for_each(|leaf| tree.push(leaf_hash(leaf)));
        }
        match tree.root() {
            found if found == expected => Ok(published),
            found => Err(LedgerError::AnotherTree { size, expected, found }),
        }
    }

    /// The verified proof that the log went from one checkpoint to the other by appending only.
    ///
    /// # Errors
    /// What is wrong with the proof, or [`LedgerError::Forked`], [`LedgerError::RolledBack`].
    pub fn consistency(
        &self,
        from: &Checkpoint,
        to: &Checkpoint,
    ) -> Result<Vec<Sha256>, LedgerError> {
        let mut hashes = Vec::new();
        if 0 < from.size && from.size < to.size {
            let path = format!("/v1/consistency?from={}&to={}", from.size, to.size);
            hashes = self.json::<ProofAnswer>(&self.fetch(&path, MAX_ANSWER)?)?.hashes;
        }
        match from.verify_successor(to, &hashes) {
            Ok(()) => Ok(hashes),
            Err(TlogError::Forked { size, known, found }) => {
                Err(LedgerError::Forked { size, known, found })
            }
            Err(TlogError::RolledBack { known, found }) => {
                Err(LedgerError::RolledBack { known, found })
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The blob with this digest.
    ///
    /// # Errors
    /// [`LedgerError::BlobAltered`] if the log sends another one, [`LedgerError::Refused`] if it
    /// has none.
    pub fn blob(&self, digest: &Sha256) -> Result<Vec<u8>, LedgerError> {
        let bytes = self.fetch(&format!("/v1/blob/{digest}"), MAX_BLOB as u64)?;
        match Sha256::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(LedgerError::BlobAltered { expected: *digest, found }),
        }
    }

    /// Holds a signed checkpoint against the latest known one, and remembers the later of them.
    fn learn(&self, checkpoint: &Checkpoint) -> Result<(), LedgerError> {
        let mut known = self.lock();
        match known.as_ref() {
            // answers may overtake each other, so the one that arrives last can be the earlier
            Some(latest) if latest.size > checkpoint.size => {
                self.consistency(checkpoint, latest)?;
                return Ok(());
            }
            Some(latest) => self.consistency(latest, checkpoint)?,
            None => Vec::new(),
        };
        *known = Some(checkpoint.clone());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Checkpoint>> {
        // the value is replaced whole, so it is right even after a panic
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leaves of an entry bundle, not verified.
    fn bundle(&self, index: u64, size: u64) -> Result<Vec<Vec<u8>>, LedgerError> {
        let tile = Tile::entries(index, size)?;
        let content = self.tile(&tile)?;
        Ok(tile.leaves(&content)?.into_iter().map(<[u8]>::to_vec).collect())
    }

    fn tile(&self, tile: &Tile) -> Result<Vec<u8>, LedgerError> {
        let limit = TILE_WIDTH * (MAX_LEAF as u64 + 2);
        self.fetch(&format!("/{tile}"), limit)
    }

    fn fetch(&self, path: &str, limit: u64) -> Result<Vec<u8>, LedgerError> {
        self.read(self.agent.get(self.at(path)).call(), limit)
    }

    /// The body of a good answer; what the service says, if it refuses.
    fn read(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
        limit: u64,
    ) -> Result<Vec<u8>, LedgerError> {
        let url = || self.url.clone();
        let lost = |e: ureq::Error| LedgerError::Unreachable { url: url(), reason: e.to_string() };
        let mut answer = answer.map_err(lost)?;
        let status = answer.status();
        let read = answer.body_mut().with_config().limit(limit).read_to_vec();
        let body = read.map_err(|e| match e {
            ureq::Error::BodyExceedsLimit(_) => self.wrong("it is longer than it may be"),
            other => lost(other),
        })?;
        if status.is_success() {
            return Ok(body);
        }
        Err(match serde_json::from_slice(&body) {
            Ok(Problem { code, message, fix }) => LedgerError::Refused { code, message, fix },
            Err(_) => self.wrong(&format!("HTTP status {status}")),
        })
    }

    fn json<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, LedgerError> {
        json::from_slice(body, "log's answer", MAX_ANSWER as usize)
            .map_err(|e| self.wrong(&e.to_string()))
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn wrong(&self, reason: &str) -> LedgerError {
        LedgerError::Answer { url: self.url.clone(), reason: reason.into() }
    }
}

/// The request to log an entry, if the service will take one as large.
fn encode(record: &HashedRekord, blobs: &[&[u8]]) -> Result<Vec<u8>, LedgerError> {
    let too_large = |what, limit, found| Err(LedgerError::TooLarge { what, limit, found });
    if let Some(large) = blobs.iter().find(|blob| blob.len() > MAX_BLOB) {
        return too_large("a blob", MAX_BLOB, large.len());
    }
    let entry = json::from_slice(&record.to_leaf()?, "log leaf", MAX_LEAF)?;
    let blobs = blobs.iter().map(|blob| blob.to_vec().into()).collect();
    let request = serde_json::to_vec(&AddRequest { entry, blobs });
    let request = request.map_err(|e| LedgerError::Request(e.to_string()))?;
    match request.len() {
        found if found > MAX_REQUEST => too_large("an entry with its blobs", MAX_REQUEST, found),
        _ => Ok(request),
    }
}
