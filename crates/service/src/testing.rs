//! Stand-ins for tests: an agent without a TEE, a clock that is set, and the ledger without a
//! network between.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use casemate_ledger::store::Log;
use casemate_spec::binding::Purpose;
use casemate_spec::workload::Workload;
use casemate_spec::{Sha256, Sha384};
use casemate_statement::PublicKey;
use casemate_statement::dsse::Envelope;
use casemate_statement::rekor::{HashedRekord, LogEntry};
use casemate_tlog::note::Signer;
use casemate_tlog::tile::TILE_WIDTH;
use casemate_tlog::{Checkpoint, Tile};
use zeroize::Zeroizing;

use crate::attester::Attester;
use crate::clock::Clock;
use crate::error::ServiceError;
use crate::log::LogClient;

/// An agent whose sealing keys depend on the workload it stands for. It gives no evidence.
#[derive(Debug, Clone)]
pub struct TestAttester(u8);

impl TestAttester {
    /// The agent of the workload that `n` stands for.
    pub const fn new(n: u8) -> Self {
        Self(n)
    }
}

impl Attester for TestAttester {
    fn evidence(
        &self,
        _: Purpose,
        _: Option<&[u8; 32]>,
        _: &[u8],
    ) -> Result<Vec<u8>, ServiceError> {
        Err(ServiceError::Agent("this agent has no TEE".into()))
    }

    fn sealing_key(&self, label: &str) -> Result<Zeroizing<[u8; 32]>, ServiceError> {
        Ok(Zeroizing::new(Sha256::of(&[&[self.0], label.as_bytes()].concat()).0))
    }

    fn workload(&self) -> Result<Workload, ServiceError> {
        Ok(Workload {
            spec: Sha256([self.0; 32]),
            root: Sha256([self.0; 32]),
            agent: Sha384([self.0; 48]),
            production: true,
        })
    }
}

/// A clock that stands where it was set.
#[derive(Debug)]
pub struct TestClock(AtomicI64);

impl TestClock {
    /// A clock that shows `now`.
    pub const fn new(now: i64) -> Self {
        Self(AtomicI64::new(now))
    }

    /// Sets the clock.
    pub fn set(&self, now: i64) {
        self.0.store(now, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What goes wrong between a service and the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// Nothing.
    None,
    /// What is sent does not arrive.
    RequestLost,
    /// What is sent arrives and is logged; the answer does not come back.
    AnswerLost,
    /// The log no longer continues what it signed before.
    Forked,
}

/// A real ledger in a directory, called directly.
pub struct TestLog {
    log: Log,
    blobs: Mutex<HashMap<Sha256, Vec<u8>>>,
    fault: AtomicU8,
}

impl TestLog {
    /// The log in `dir`, made if there is none, with the key `name` from `seed`.
    ///
    /// # Errors
    /// If the log is not what the key signed.
    pub fn open(dir: &Path, name: &str, seed: &[u8; 32]) -> Result<Self, ServiceError> {
        let signer = || Signer::from_seed(name, seed).map_err(ServiceError::other);
        let log = match Log::open(dir, signer()?, None) {
            Err(casemate_ledger::LedgerError::Missing(_)) => Log::create(dir, signer()?),
            other => other,
        };
        let log = log.map_err(ServiceError::other)?;
        Ok(Self { log, blobs: Mutex::default(), fault: AtomicU8::new(Fault::None as u8) })
    }

    /// What goes wrong from now on.
    pub fn set_fault(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.log.published().checkpoint.size
    }

    /// Appends somebody else's leaf.
    ///
    /// # Errors
    /// If the log does not take it.
    pub fn append(&self, leaf: &[u8]) -> Result<(), ServiceError> {
        self.log.append(leaf.to_vec()).map(drop).map_err(ServiceError::other)
    }

    /// Every statement that was logged, as it was signed.
    pub fn statements(&self) -> Vec<Vec<u8>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn add(&self, record: &HashedRekord) -> Result<LogEntry, ServiceError> {
        let lost = || ServiceError::Unreachable { url: "test".into(), problem: "fault".into() };
        let fault = self.fault.load(Ordering::SeqCst);
        if fault == Fault::RequestLost as u8 {
            return Err(lost());
        }
        let leaf = record.to_leaf().map_err(ServiceError::other)?;
        let added = self.log.append(leaf.clone()).map_err(ServiceError::other)?;
        if fault == Fault::AnswerLost as u8 {
            return Err(lost());
        }
        let Checkpoint { size, root, .. } = &added.published.checkpoint;
        let note = added.published.note.clone();
        let (size, index) = ((*size, root), added.index);
        Ok(LogEntry::new(self.log.key(), index, leaf, size, &added.proof, note))
    }
}

impl LogClient for TestLog {
    fn add_dsse(&self, envelope: &Envelope, key: &PublicKey) -> Result<LogEntry, ServiceError> {
        envelope.verify(key).map_err(ServiceError::other)?;
        if self.fault.load(Ordering::SeqCst) != Fault::RequestLost as u8 {
            let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
            blobs.insert(envelope.digest(), envelope.pae());
        }
        self.add(&HashedRekord::of_dsse(envelope, key).map_err(ServiceError::other)?)
    }

    fn add_signature(
        &self,
        digest: &Sha256,
        signature: &[u8],
        key: &PublicKey,
    ) -> Result<LogEntry, ServiceError> {
        self.add(&HashedRekord::of_digest(*digest, signature.to_vec(), key.clone()))
    }

    fn checkpoint(&self) -> Result<Checkpoint, ServiceError> {
        Ok(self.log.published().checkpoint.clone())
    }

    /// Bundles of the test kits are logged elsewhere, so whether this log continues theirs is said by
    /// the fault; that a real client finds it out is tested with the ledger.
    fn continues(&self, earlier: &Checkpoint) -> Result<(), ServiceError> {
        if self.fault.load(Ordering::SeqCst) == Fault::Forked as u8 {
            return Err(ServiceError::Ledger(format!("forked before size {}", earlier.size)));
        }
        Ok(())
    }

    fn leaves(&self, from: u64, to: u64) -> Result<Vec<Vec<u8>>, ServiceError> {
        let tile = Tile::entries(from / TILE_WIDTH, to).map_err(ServiceError::other)?;
        let content = self.log.tile(&tile).map_err(ServiceError::other)?;
        let leaves = tile.leaves(&content).map_err(ServiceError::other)?;
        let skip = usize::try_from(from % TILE_WIDTH).unwrap_or(usize::MAX);
        Ok(leaves.into_iter().skip(skip).map(<[u8]>::to_vec).collect())
    }

    fn blob(&self, digest: &Sha256) -> Result<Vec<u8>, ServiceError> {
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || ServiceError::Ledger(format!("no blob {digest}"));
        blobs.get(digest).cloned().ok_or_else(missing)
    }
}
