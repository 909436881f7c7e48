//! The broker itself: its state, and how a change of it becomes durable, public and effective, in
//! an order that a crash, a restored disk or a second broker can not use.
//!
//! A change goes: sealed as *pending* → its statement in the ledger → the ledger read back, and
//! the statement is the first of its epoch → what was read written down → sealed as the state.
//! A start with something pending goes the same way again with the very same statement. A start
//! with an older state finds in the ledger that a newer one exists, and ends.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use casemate_envelope::EnvelopeKey;
use casemate_evidence::Verifier;
use casemate_service::keyring::Keyring;
use casemate_service::log::LogClient;
use casemate_service::sealed::{DataDir, SealedFile};
use casemate_service::{Attester, Clock, ServiceError, pin};
use casemate_spec::Sha256;
use casemate_spec::trust::TrustFile;
use casemate_statement::SigningKey;
use casemate_statement::dsse::Envelope;
use casemate_statement::rekor::LogEntry;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::change::{Change, Reason};
use crate::error::BrokerError;
use crate::nonce::Nonces;
use crate::state::{State, to_bytes};
use crate::watch::{Head, Watch};

/// Names the broker's sealing key.
pub(crate) const LABEL: &str = "casemate-broker-v1";

const STATE: &str = "state.sealed";
const PENDING: &str = "pending.sealed";
const SEEN: &str = "ledger.sealed";

/// A running broker.
pub struct Broker {
    dir: DataDir,
    pub(crate) signing: SigningKey,
    pub(crate) envelope: EnvelopeKey,
    pub(crate) log: Arc<dyn LogClient>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) verifier: Verifier,
    pub(crate) nonces: Mutex<Nonces>,
    watch: Mutex<Watch>,
    current: RwLock<Current>,
    /// A change is pending whose fate is not known: the ledger was out of reach.
    unsettled: AtomicBool,
}

/// The state in force.
pub(crate) struct Current {
    pub(crate) epoch: u64,
    /// Digest of the trust file in force.
    pub(crate) trust: Sha256,
    pub(crate) state: State,
    /// The signed statement about each act that is still remembered.
    receipts: BTreeMap<String, Envelope>,
}

/// A state with its statement, as it is sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    state: State,
    /// The statement that this is the state.
    receipt: Envelope,
    receipts: BTreeMap<String, Envelope>,
}

impl Broker {
    /// Opens the broker in `data_dir` under `trust`, once the ledger has confirmed its state.
    ///
    /// # Errors
    /// If the trust file is not one to follow, the files do not open, or the ledger knows a newer
    /// state or does not continue what the broker has read of it.
    pub fn open(
        data_dir: &Path,
        trust: TrustFile,
        attester: &dyn Attester,
        log: Arc<dyn LogClient>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BrokerError> {
        let dir = DataDir::open(data_dir, LABEL, attester)?;
        let keys = Keyring::open(&dir)?;
        let (signing, envelope) = (keys.signing()?, EnvelopeKey::from_seed(keys.seed()));
        check_named(&trust, &signing, &envelope, attester)?;
        let mut watch = Watch::open(&dir.file(SEEN), signing.public().clone())?;
        let document = recover(&dir, &signing, log.as_ref(), &mut watch)?;
        let broker = Self {
            current: RwLock::new(Current::of(document, &trust, watch.head())?),
            dir,
            signing,
            envelope,
            log,
            clock,
            verifier: Verifier::new(),
            nonces: Mutex::new(Nonces::default()),
            watch: Mutex::new(watch),
            unsettled: AtomicBool::new(false),
        };
        broker.follow(trust)?;
        Ok(broker)
    }

    /// Finishes a change that was left pending because the ledger was out of reach. Until that is
    /// done, nobody knows which state is the one that counts, and nothing else is.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn finish_pending(&self) -> Result<(), BrokerError> {
        if !self.unsettled.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut current = self.current_mut();
        let mut watch = lock(&self.watch);
        let document = recover(&self.dir, &self.signing, self.log.as_ref(), &mut watch)?;
        let trust = current.state.trust.clone();
        *current = Current::of(document, &trust, watch.head())?;
        self.unsettled.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Writes down how far the ledger was read.
    ///
    /// # Errors
    /// If the directory can not be written.
    pub fn close(&self) -> Result<(), BrokerError> {
        Ok(lock(&self.watch).remember(&self.dir.file(SEEN))?)
    }

    /// The state in force; it does not change while this is held.
    pub(crate) fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state in force, to be changed by [`Self::commit`].
    pub(crate) fn current_mut(&self) -> RwLockWriteGuard<'_, Current> {
        // Only replaced whole, after everything else succeeded: right even after a panic.
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `next` the state, for this reason. `id` is the act's, if it is one.
    pub(crate) fn commit(
        &self,
        current: &mut Current,
        next: State,
        reason: Reason,
        id: Option<&str>,
    ) -> Result<LogEntry, BrokerError> {
        let epoch = current.epoch + 1;
        let trust = next.trust.signed.digest().map_err(BrokerError::other)?;
        let time = timestamp(self.clock.now())?;
        let statement = reason.statement(epoch, next.digest()?, trust, time);
        let change = statement.predicate.clone();
        let receipt = statement.sign(&self.signing).map_err(BrokerError::other)?;
        let mut receipts = current.receipts.clone();
        receipts.retain(|id, _| next.remembers(id));
        if let Some(id) = id {
            receipts.insert(id.into(), receipt.clone());
        }
        let document = Document { state: next, receipt, receipts };
        let bytes = to_bytes(&document)?;
        self.unsettled.store(true, Ordering::SeqCst);
        self.dir.file(PENDING).write(epoch, &bytes)?;
        let mut watch = lock(&self.watch);
        let log = self.log.as_ref();
        let entry = publish(log, &mut watch, &self.signing, &document, &change)?;
        settle(&self.dir, &mut watch, epoch, &bytes)?;
        self.unsettled.store(false, Ordering::SeqCst);
        let Document { state, receipts, .. } = document;
        *current = Current { epoch, trust, state, receipts };
        Ok(entry)
    }

    /// Logs a statement that changes no state, and makes sure that the ledger everyone sees has
    /// it, and knows no newer state than this broker.
    pub(crate) fn record(&self, epoch: u64, envelope: &Envelope) -> Result<LogEntry, BrokerError> {
        let digest = envelope.digest();
        lock(&self.watch).expect(digest, None);
        let added = self.log.add_dsse(envelope, self.signing.public());
        let mut watch = lock(&self.watch);
        let read = || -> Result<LogEntry, BrokerError> {
            let entry = added?;
            if !watch.has(&digest) {
                watch.advance(self.log.as_ref())?;
            }
            if !watch.has(&digest) {
                return Err(withheld(&digest));
            }
            still_at(watch.head(), epoch)?;
            watch.remember_sometimes(&self.dir.file(SEEN))?;
            Ok(entry)
        };
        let entry = read();
        watch.forget(&digest);
        entry
    }

    /// The statement about an act that was applied, with its place in the ledger.
    pub(crate) fn receipt_of(
        &self,
        current: &Current,
        id: &str,
    ) -> Result<(Envelope, LogEntry), BrokerError> {
        let missing = || BrokerError::Reused { id: id.into() };
        let envelope = current.receipts.get(id).ok_or_else(missing)?;
        let entry = self.log.add_dsse(envelope, self.signing.public())?;
        Ok((envelope.clone(), entry))
    }

    /// The statement about the latest state.
    pub(crate) fn latest_receipt(&self, current: &Current, id: &str) -> Option<Envelope> {
        current.receipts.get(id).cloned()
    }

    /// Pins a first trust file, or follows a proper successor.
    fn follow(&self, trust: TrustFile) -> Result<(), BrokerError> {
        let mut current = self.current_mut();
        let first = current.epoch == 0;
        let pinned = (!first).then_some(&current.state.trust);
        if pin::check(pinned, &trust)? == pin::Step::Same {
            return Ok(());
        }
        let reason = Reason::trust(&trust.signed)?;
        let next = current.state.under(trust)?;
        self.commit(&mut current, next, reason, None)?;
        Ok(())
    }
}

impl Current {
    /// The state of a document that the ledger has confirmed; without one, the state before the
    /// first.
    fn of(
        document: Option<Document>,
        trust: &TrustFile,
        head: Option<Head>,
    ) -> Result<Self, BrokerError> {
        let (epoch, state, receipts) = match document {
            None => (0, State::first(trust.clone())?, BTreeMap::new()),
            Some(d) => (head.map_or(0, |h| h.epoch), d.state, d.receipts),
        };
        let trust = state.trust.signed.digest().map_err(BrokerError::other)?;
        Ok(Self { epoch, trust, state, receipts })
    }
}

/// Brings files and ledger together after a stop, orderly or not, and gives the state.
fn recover(
    dir: &DataDir,
    signing: &SigningKey,
    log: &dyn LogClient,
    watch: &mut Watch,
) -> Result<Option<Document>, BrokerError> {
    watch.advance(log)?;
    let state = read(&dir.file(STATE))?;
    let pending = read(&dir.file(PENDING))?;
    let epoch = state.as_ref().map_or(0, |(epoch, _)| *epoch);
    let (epoch, document) = match pending {
        Some((next, document)) if next == epoch + 1 => {
            let digest = document.state.digest()?;
            // Whatever the ledger says of this epoch must be this very change; if it says nothing,
            // the statement did not arrive, and is sent again as it is.
            match watch.head() {
                Some(head) if head.epoch > next => return Err(rolled_back(head.epoch, next)),
                Some(head) if head.epoch == next && head.state != digest => {
                    return Err(BrokerError::Forked { epoch: next });
                }
                _ => {}
            }
            let change = Change::of_envelope(&document.receipt)?;
            publish(log, watch, signing, &document, &change)?;
            let bytes = to_bytes(&document)?;
            settle(dir, watch, next, &bytes)?;
            (next, Some(document))
        }
        Some((next, _)) if next <= epoch => {
            // The state was sealed, and the stop came before this was cleared away.
            dir.file(PENDING).remove()?;
            (epoch, state.map(|(_, d)| d))
        }
        Some((next, _)) => return Err(rolled_back(next, epoch)),
        None => (epoch, state.map(|(_, d)| d)),
    };
    confirm(watch.head(), epoch, document.as_ref())?;
    watch.remember(&dir.file(SEEN))?;
    Ok(document)
}

/// Compares the state in the files with the one that the ledger knows.
fn confirm(head: Option<Head>, epoch: u64, document: Option<&Document>) -> Result<(), BrokerError> {
    still_at(head, epoch)?;
    match (head, document) {
        (Some(head), Some(document)) if head.state != document.state.digest()? => {
            Err(BrokerError::Forked { epoch })
        }
        _ => Ok(()),
    }
}

/// Checks that the ledger knows this broker at `epoch`, no more and no less.
fn still_at(head: Option<Head>, epoch: u64) -> Result<(), BrokerError> {
    match head.map_or(0, |h| h.epoch) {
        known if known > epoch => Err(rolled_back(known, epoch)),
        known if known < epoch => Err(BrokerError::Service(ServiceError::Ledger(format!(
            "expected this broker's state of epoch {epoch}, the log knows only epoch {known}: \
             it was rolled back or is another log"
        )))),
        _ => Ok(()),
    }
}

/// Logs the statement about a pending state and reads it back: it must be the first of its epoch.
fn publish(
    log: &dyn LogClient,
    watch: &mut Watch,
    signing: &SigningKey,
    document: &Document,
    change: &Change,
) -> Result<LogEntry, BrokerError> {
    let digest = document.receipt.digest();
    watch.expect(digest, Some(change.clone()));
    let read = |watch: &mut Watch| -> Result<LogEntry, BrokerError> {
        let entry = log.add_dsse(&document.receipt, signing.public())?;
        watch.advance(log)?;
        match watch.head() {
            Some(head) if head.epoch == change.epoch && head.state == change.state => Ok(entry),
            Some(head) if head.epoch == change.epoch => {
                Err(BrokerError::Forked { epoch: change.epoch })
            }
            Some(head) if head.epoch > change.epoch => Err(rolled_back(head.epoch, change.epoch)),
            _ => Err(withheld(&digest)),
        }
    };
    let entry = read(watch);
    watch.forget(&digest);
    entry
}

/// Seals a state that the ledger has confirmed.
fn settle(dir: &DataDir, watch: &mut Watch, epoch: u64, bytes: &[u8]) -> Result<(), BrokerError> {
    watch.remember(&dir.file(SEEN))?;
    dir.file(STATE).write(epoch, bytes)?;
    dir.file(PENDING).remove()?;
    Ok(())
}

fn read(file: &SealedFile<'_>) -> Result<Option<(u64, Document)>, BrokerError> {
    let Some(sealed) = file.read()? else { return Ok(None) };
    let content = |problem: String| ServiceError::Content { file: file.shown(), problem };
    let document: Document =
        serde_json::from_slice(&sealed.bytes).map_err(|e| content(e.to_string()))?;
    if !document.state.is_known() {
        return Err(content("a state of another version".into()).into());
    }
    Ok(Some((sealed.epoch, document)))
}

/// Checks that the trust file means this broker.
fn check_named(
    trust: &TrustFile,
    signing: &SigningKey,
    envelope: &EnvelopeKey,
    attester: &dyn Attester,
) -> Result<(), BrokerError> {
    let named = &trust.signed.broker;
    let own = attester.workload()?.measurement().map_err(BrokerError::other)?;
    pin::named("broker.key", &named.key, &signing.public().spki_base64())?;
    pin::named("broker.envelope_key", &named.envelope_key, &crate::base64(envelope.spki()))?;
    pin::named("broker.measurement", &named.measurement.to_string(), &own.to_string())?;
    Ok(())
}

pub(crate) fn timestamp(now: i64) -> Result<Timestamp, BrokerError> {
    Timestamp::from_second(now).map_err(|_| ServiceError::Crypto("time").into())
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is replaced whole or counted: right even after a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn rolled_back(ledger: u64, file: u64) -> BrokerError {
    BrokerError::RolledBack { ledger, file }
}

fn withheld(digest: &Sha256) -> BrokerError {
    BrokerError::Service(ServiceError::Ledger(format!(
        "expected the statement {digest} in the log, it is not there"
    )))
}
