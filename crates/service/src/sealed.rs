//! Files that only this workload on this platform can read or make.
//!
//! A service's directory lies on the untrusted host. What is secret in it, or must not be forged,
//! is a sealed file: AES-256-GCM under a key that the TEE derives from the workload's measurement.
//! Sealing does not stop the host from putting back an *older* sealed file; the epoch inside is
//! what a service compares with the ledger to notice that.
//!
//! Layout: `casemate-sealed-v1\0`, epoch (64-bit big-endian), nonce (12 bytes), ciphertext and tag
//! (16 bytes). The label of the file and all of the header are authenticated.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use zeroize::{Zeroize as _, Zeroizing};

use crate::attester::Attester;
use crate::error::ServiceError;

const MAGIC: &[u8] = b"casemate-sealed-v1\0";
const NONCE: usize = 12;
const HEADER: usize = MAGIC.len() + 8 + NONCE;

/// Largest sealed file that is read, in bytes.
pub const MAX_SIZE: u64 = 256 << 20;

/// How long a starting service waits for a dying predecessor's lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// A service's directory, held by one process at a time, with the key that seals its files.
pub struct DataDir {
    path: PathBuf,
    key: Zeroizing<[u8; 32]>,
    _lock: File,
}

impl std::fmt::Debug for DataDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataDir").field("path", &self.path).finish_non_exhaustive()
    }
}

impl DataDir {
    /// Opens (and makes, if it is missing) the directory of the service that `label` names.
    ///
    /// # Errors
    /// If it is held by another process, can not be written, or the agent gives no sealing key.
    pub fn open(path: &Path, label: &str, attester: &dyn Attester) -> Result<Self, ServiceError> {
        let shown = path.display().to_string();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| ServiceError::io(&shown, e))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|e| ServiceError::io(format!("{shown}/lock"), e))?;
        hold(&lock, &shown)?;
        Ok(Self { path: path.into(), key: attester.sealing_key(label)?, _lock: lock })
    }

    /// The sealed file `name` in this directory; the name is also its label.
    pub fn file(&self, name: &str) -> SealedFile<'_> {
        SealedFile { dir: self, name: name.into() }
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn hold(lock: &File, shown: &str) -> Result<(), ServiceError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(e)) => {
                return Err(ServiceError::io(format!("{shown}/lock"), e));
            }
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(ServiceError::Locked(shown.into()));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// What a sealed file holds.
pub struct Content {
    /// Which state of the service this is.
    pub epoch: u64,
    /// The plaintext; wiped on drop.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// One sealed file.
#[derive(Debug)]
pub struct SealedFile<'a> {
    dir: &'a DataDir,
    name: String,
}

impl SealedFile<'_> {
    /// The content, or nothing if there is no such file.
    ///
    /// # Errors
    /// [`ServiceError::Unsealed`] if the file was altered or sealed by someone else.
    pub fn read(&self) -> Result<Option<Content>, ServiceError> {
        let path = self.path();
        let shown = path.display().to_string();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(ServiceError::io(shown, e)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(|e| ServiceError::io(&shown, e))?;
        open(&self.dir.key, &self.name, bytes).map(Some).ok_or(ServiceError::Unsealed(shown))
    }

    /// Replaces the file in one step; durable when this returns.
    ///
    /// # Errors
    /// If the directory can not be written.
    pub fn write(&self, epoch: u64, plaintext: &[u8]) -> Result<(), ServiceError> {
        let bytes = seal(&self.dir.key, &self.name, epoch, plaintext)?;
        let (path, new) = (self.path(), self.dir.path.join(format!("{}.new", self.name)));
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            self.sync_dir()
        };
        write().map_err(|e| ServiceError::io(path.display().to_string(), e))
    }

    /// Removes the file if it is there; durable when this returns.
    ///
    /// # Errors
    /// If the directory can not be written.
    pub fn remove(&self) -> Result<(), ServiceError> {
        let remove = || match fs::remove_file(self.path()) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(()) => self.sync_dir(),
        };
        remove().map_err(|e| ServiceError::io(self.path().display().to_string(), e))
    }

    /// How the file is named in messages.
    pub fn shown(&self) -> String {
        self.path().display().to_string()
    }

    fn path(&self) -> PathBuf {
        self.dir.path.join(&self.name)
    }

    fn sync_dir(&self) -> std::io::Result<()> {
        File::open(&self.dir.path)?.sync_all()
    }
}

fn seal(
    key: &[u8; 32],
    label: &str,
    epoch: u64,
    plaintext: &[u8],
) -> Result<Vec<u8>, ServiceError> {
    let failed = || ServiceError::Crypto("sealed file");
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| failed())?;
    // Reserved in full, so that no copy of the plaintext is left behind by growing.
    let mut body = Zeroizing::new(Vec::with_capacity(plaintext.len() + AES_256_GCM.tag_len()));
    body.extend_from_slice(plaintext);
    let nonce = key
        .seal_in_place_append_tag(Aad::from(aad(label, epoch)), &mut *body)
        .map_err(|_| failed())?;
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&epoch.to_be_bytes());
    out.extend_from_slice(nonce.as_ref());
    out.extend_from_slice(&body);
    Ok(out)
}

fn open(key: &[u8; 32], label: &str, mut bytes: Vec<u8>) -> Option<Content> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (epoch, rest) = rest.split_first_chunk::<8>()?;
    let (nonce, _) = rest.split_first_chunk::<NONCE>()?;
    let (epoch, nonce) = (u64::from_be_bytes(*epoch), Nonce::assume_unique_for_key(*nonce));
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).ok()?;
    let plain = key
        .open_in_place(nonce, Aad::from(aad(label, epoch)), &mut bytes[HEADER..])
        .ok()
        .map(|plain| Zeroizing::new(plain.to_vec()));
    bytes.zeroize();
    Some(Content { epoch, bytes: plain? })
}

fn aad(label: &str, epoch: u64) -> Vec<u8> {
    [MAGIC, &epoch.to_be_bytes(), label.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestAttester;

    fn dir(path: &Path) -> DataDir {
        DataDir::open(path, "test", &TestAttester::new(1)).expect("data directory")
    }

    #[test]
    fn gives_back_what_was_sealed_and_nothing_when_nothing_was() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = dir(&temp.path().join("new/data"));
        assert!(dir.file("a").read().expect("absent").is_none());
        dir.file("a").write(7, b"secret").expect("write");
        let content = dir.file("a").read().expect("read").expect("present");
        assert_eq!((content.epoch, content.bytes.as_slice()), (7, b"secret".as_slice()));
        let raw = fs::read(dir.path().join("a")).expect("raw");
        assert!(!raw.windows(6).any(|w| w == b"secret"));
        dir.file("a").remove().expect("remove");
        dir.file("a").remove().expect("remove twice");
        assert!(dir.file("a").read().expect("absent").is_none());
    }

    #[test]
    fn refuses_every_flipped_byte_and_every_shorter_file() {
        let sealed = seal(&[1; 32], "a", 3, b"secret").expect("seal");
        assert!(open(&[1; 32], "a", sealed.clone()).is_some());
        for i in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[i] ^= 1;
            assert!(open(&[1; 32], "a", altered).is_none(), "byte {i}");
            assert!(open(&[1; 32], "a", sealed[..i].to_vec()).is_none(), "length {i}");
        }
    }

    #[test]
    fn refuses_another_files_content_and_another_workloads() {
        let sealed = seal(&[1; 32], "a", 3, b"secret").expect("seal");
        assert!(open(&[1; 32], "b", sealed.clone()).is_none());
        assert!(open(&[2; 32], "a", sealed).is_none());
    }

    #[test]
    fn refuses_a_directory_in_use() {
        let temp = tempfile::tempdir().expect("temp dir");
        let first = dir(temp.path());
        let second = DataDir::open(temp.path(), "test", &TestAttester::new(1));
        assert!(matches!(second, Err(ServiceError::Locked(_))));
        drop(first);
        assert!(DataDir::open(temp.path(), "test", &TestAttester::new(1)).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, keep in 0usize..=HEADER) {
            let mut framed = seal(&[1; 32], "a", 3, b"").expect("seal")[..keep].to_vec();
            framed.extend_from_slice(&bytes);
            let _ = open(&[1; 32], "a", framed);
            proptest::prop_assert!(open(&[1; 32], "a", bytes).is_none());
        }
    }
}
