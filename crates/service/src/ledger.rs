//! The ledger as a service of an installation: its note key is made inside and sealed.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_ledger::LedgerError;
use casemate_ledger::store::Log;
use casemate_spec::Sha256;
use casemate_tlog::Checkpoint;
use casemate_tlog::note::{Signer, VerifierKey};

use crate::attester::Attester;
use crate::error::ServiceError;
use crate::genesis::Genesis;
use crate::keyring::Keyring;
use crate::sealed::DataDir;

/// DER prefix of an Ed25519 SubjectPublicKeyInfo (RFC 8410, section 4); the 32 key bytes follow.
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

const LABEL: &str = "casemate-ledger-v1";

/// Sealed file with the newest checkpoint.
const SEEN: &str = "seen.sealed";

/// How long a new checkpoint may go unremembered.
const REMEMBER_EVERY: Duration = Duration::from_millis(250);

/// Largest request that is read, in bytes.
const BODY_LIMIT: usize = casemate_ledger::wire::MAX_REQUEST;

/// Where the log lies in the service's directory.
pub fn log_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("log")
}

/// Makes the log's key, if there is none, and an empty log, if there is none. Gives the key, role
/// `note`, with evidence; [`vkey_of`] makes a verifier key of it.
///
/// # Errors
/// If the directory can not be written, or the log in it is not what the key signed.
pub fn genesis(data_dir: &Path, attester: &dyn Attester) -> Result<Genesis, ServiceError> {
    let dir = DataDir::open(data_dir, LABEL, attester)?;
    let keys = Keyring::open_or_make(&dir)?;
    let own = signer(&keys)?;
    let spki = [&SPKI_PREFIX, own.verifier().public().as_slice()].concat();
    let log = match Log::create(&log_dir(dir.path()), own) {
        Err(LedgerError::Exists(_)) => Log::open(&log_dir(dir.path()), signer(&keys)?, None),
        made => made,
    };
    remember(&dir, &log.map_err(ServiceError::other)?)?;
    Genesis::attest("ledger", &[("note", &spki)], attester)
}

/// The verifier key (C2SP signed-note) of a new log, as the trust file holds it. Its name, the
/// log's origin, is made from the key.
///
/// # Errors
/// If the genesis is of another service.
pub fn vkey_of(genesis: &Genesis) -> Result<VerifierKey, ServiceError> {
    let spki = BASE64_STANDARD
        .decode(genesis.key("note")?)
        .map_err(|_| ServiceError::Genesis("ledger: note key is not base64".into()))?;
    vkey(&spki)
}

fn vkey(spki: &[u8]) -> Result<VerifierKey, ServiceError> {
    let public = spki
        .strip_prefix(SPKI_PREFIX.as_slice())
        .and_then(|key| <[u8; 32]>::try_from(key).ok())
        .ok_or_else(|| ServiceError::Genesis("ledger: note key is not Ed25519".into()))?;
    VerifierKey::ed25519(&origin(&public), public).map_err(ServiceError::other)
}

/// Serves the log until SIGTERM.
///
/// # Errors
/// If there is no key, the log is not what the key signed, or the socket can not be used.
pub fn run(
    data_dir: &Path,
    listener: TcpListener,
    attester: &dyn Attester,
) -> Result<(), ServiceError> {
    let dir = DataDir::open(data_dir, LABEL, attester)?;
    let signer = signer(&Keyring::open(&dir)?)?;
    let known = seen(&dir, signer.verifier())?;
    let log = Log::open(&log_dir(dir.path()), signer, Some(&known)).map_err(ServiceError::other)?;
    let log = Arc::new(log);
    let router = casemate_ledger::service::router(Arc::clone(&log));
    let over = AtomicBool::new(false);
    let served = std::thread::scope(|scope| {
        scope.spawn(|| keep_remembering(&dir, &log, &over));
        let served = crate::http::serve(listener, router, BODY_LIMIT);
        over.store(true, Ordering::Relaxed);
        served
    });
    remember(&dir, &log)?;
    served
}

/// Seals the log's newest checkpoint: a log that is older at the next start was put back.
fn remember(dir: &DataDir, log: &Log) -> Result<(), ServiceError> {
    let published = log.published();
    dir.file(SEEN).write(published.checkpoint.size, published.note.as_bytes())
}

/// Remembers the checkpoint whenever it has changed. A failed write is tried again; until one
/// succeeds, a rollback to what was remembered last would not be noticed.
fn keep_remembering(dir: &DataDir, log: &Log, over: &AtomicBool) {
    let mut remembered = log.published().checkpoint.size;
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(REMEMBER_EVERY);
        let size = log.published().checkpoint.size;
        if size != remembered && remember(dir, log).is_ok() {
            remembered = size;
        }
    }
}

/// The checkpoint that was remembered last.
fn seen(dir: &DataDir, key: &VerifierKey) -> Result<Checkpoint, ServiceError> {
    let file = dir.file(SEEN);
    let content = |problem: String| ServiceError::Content { file: file.shown(), problem };
    let sealed = file
        .read()?
        .ok_or_else(|| content("expected the newest checkpoint, found no file".into()))?;
    let note = std::str::from_utf8(&sealed.bytes).map_err(|e| content(e.to_string()))?;
    Checkpoint::open(note, key).map_err(ServiceError::other)
}

fn signer(keys: &Keyring) -> Result<Signer, ServiceError> {
    // The name of a key must be known to make it, and the name is made from the key: so the public
    // half is taken from a key that is never used under the name "key".
    let nameless = Signer::from_seed("key", keys.seed()).map_err(ServiceError::other)?;
    let origin = origin(nameless.verifier().public());
    Signer::from_seed(&origin, keys.seed()).map_err(ServiceError::other)
}

/// The log's name: unique in the world without anybody having to choose it.
fn origin(public: &[u8; 32]) -> String {
    format!("casemate.dev/log/{}", &Sha256::of(public).to_string()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestAttester;

    #[test]
    fn the_key_and_the_log_are_made_once() {
        let temp = tempfile::tempdir().expect("temp dir");
        let open = || {
            let dir = DataDir::open(temp.path(), LABEL, &TestAttester::new(1)).expect("dir");
            signer(&Keyring::open_or_make(&dir).expect("keys")).expect("signer")
        };
        // This agent has no TEE, so genesis stops after the keys are made; as a crash would.
        for _ in 0..2 {
            assert!(genesis(temp.path(), &TestAttester::new(1)).is_err());
        }
        let (first, again) = (open(), open());
        assert_eq!(first.verifier(), again.verifier());
        let spki = [&SPKI_PREFIX, first.verifier().public().as_slice()].concat();
        assert_eq!(vkey(&spki).expect("vkey"), *first.verifier());
        assert!(Log::open(&log_dir(temp.path()), first, None).is_ok());
        assert!(vkey(&spki[1..]).is_err());
    }

    #[test]
    fn a_log_put_back_as_it_was_is_refused_and_the_newest_is_not() {
        let temp = tempfile::tempdir().expect("temp dir");
        // Stops at the evidence, after key and log are made.
        assert!(genesis(temp.path(), &TestAttester::new(1)).is_err());
        let dir = DataDir::open(temp.path(), LABEL, &TestAttester::new(1)).expect("dir");
        let own = || signer(&Keyring::open(&dir).expect("keys")).expect("signer");
        let path = log_dir(temp.path());
        let old = std::fs::read(path.join("checkpoint")).expect("old checkpoint");
        let log = Log::open(&path, own(), None).expect("log");
        log.append(b"leaf".to_vec()).expect("append");
        remember(&dir, &log).expect("remember");
        drop(log);
        let known = seen(&dir, own().verifier()).expect("seen");
        assert!(Log::open(&path, own(), Some(&known)).is_ok());
        std::fs::write(path.join("checkpoint"), old).expect("rolling back");
        let refused = Log::open(&path, own(), Some(&known)).err();
        assert!(matches!(refused, Some(LedgerError::RolledBack { .. })), "{refused:?}");
    }
}
