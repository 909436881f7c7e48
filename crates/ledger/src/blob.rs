//! Blobs: what the digests in the leaves stand for, beside the log, addressed by SHA-256.
//!
//! A leaf has room for a digest and a signature. Whoever wants to read what was signed asks for the
//! blob, and sees from its digest that it is the right one; so blobs need no proof of their own.

use std::path::{Path, PathBuf};

use casemate_spec::Sha256;

use crate::error::LedgerError;
use crate::files::{read, replace};

/// The largest blob.
pub const MAX_BLOB: usize = 16 * 1024 * 1024;

/// A folder of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: PathBuf,
}

impl Blobs {
    /// The blobs beside the log in `dir`.
    pub fn beside(dir: &Path) -> Self {
        Self { root: dir.join("blob") }
    }

    /// Keeps a blob; when this returns it is durable. One that is there already stays.
    ///
    /// # Errors
    /// [`LedgerError::TooLarge`], [`LedgerError::Io`].
    pub fn put(&self, bytes: &[u8]) -> Result<Sha256, LedgerError> {
        if bytes.len() > MAX_BLOB {
            let (limit, found) = (MAX_BLOB, bytes.len());
            return Err(LedgerError::TooLarge { what: "a blob", limit, found });
        }
        let digest = Sha256::of(bytes);
        let path = self.path(&digest);
        if read(&path, MAX_BLOB as u64).is_ok_and(|found| found.as_deref() == Some(bytes)) {
            return Ok(digest);
        }
        // concurrent writers of one blob write the same bytes, each to a draft of its own
        let draft = self.root.join(format!("draft-{}", unique()));
        replace(&path, &draft, bytes)?;
        Ok(digest)
    }

    /// The blob with this digest, or `None`.
    ///
    /// # Errors
    /// [`LedgerError::BlobAltered`] if the file's content is another, [`LedgerError::Io`].
    pub fn read(&self, digest: &Sha256) -> Result<Option<Vec<u8>>, LedgerError> {
        let Some(bytes) = read(&self.path(digest), MAX_BLOB as u64)? else {
            return Ok(None);
        };
        let found = Sha256::of(&bytes);
        if found == *digest {
            return Ok(Some(bytes));
        }
        Err(LedgerError::BlobAltered { expected: *digest, found })
    }

    fn path(&self, digest: &Sha256) -> PathBuf {
        let name = digest.to_string();
        self.root.join(&name[..2]).join(&name[2..])
    }
}

/// A number that no other writer in this process uses.
fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_what_was_put_and_refuses_what_was_altered() {
        let dir = tempfile::tempdir().expect("dir");
        let blobs = Blobs::beside(dir.path());
        let digest = blobs.put(b"statement").expect("put");
        assert_eq!(blobs.put(b"statement").expect("again"), digest);
        assert_eq!(blobs.read(&digest).expect("read").as_deref(), Some(&b"statement"[..]));
        assert_eq!(blobs.read(&Sha256::of(b"other")).expect("read"), None);
        std::fs::write(blobs.path(&digest), b"Statement").expect("altering");
        let refused = blobs.read(&digest);
        assert!(matches!(refused, Err(LedgerError::BlobAltered { .. })), "{refused:?}");
        blobs.put(b"statement").expect("healing");
        assert!(blobs.read(&digest).is_ok());
    }

    #[test]
    fn refuses_a_blob_above_the_limit_and_takes_one_at_it() {
        let dir = tempfile::tempdir().expect("dir");
        let blobs = Blobs::beside(dir.path());
        let refused = blobs.put(&vec![0; MAX_BLOB + 1]);
        assert!(matches!(refused, Err(LedgerError::TooLarge { .. })));
        blobs.put(&vec![0; MAX_BLOB]).expect("largest");
    }
}
