//! Service keys: made inside the enclave once, sealed, never exported.

use casemate_statement::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::ServiceError;
use crate::sealed::DataDir;

const FILE: &str = "keys.sealed";

/// The private keys of a service, as they are sealed.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Keyring {
    /// PKCS #8 document of the P-256 signing key.
    signing: Vec<u8>,
    /// Seed of whatever else the service needs: an X25519 envelope key, an Ed25519 note key.
    seed: [u8; 32],
}

impl Keyring {
    /// The keys in `dir`, made if there are none; whichever came first stays, also after a crash.
    ///
    /// # Errors
    /// If the directory can not be written, or the keys there do not open.
    pub fn open_or_make(dir: &DataDir) -> Result<Self, ServiceError> {
        if let Some(ring) = Self::read(dir)? {
            return Ok(ring);
        }
        let (_, pkcs8) = SigningKey::generate().map_err(ServiceError::other)?;
        let ring = Self { signing: pkcs8.to_vec(), seed: crate::random()? };
        // Numbers in JSON: four bytes for a byte at most, and never grown while secret.
        let mut bytes = Zeroizing::new(Vec::with_capacity(64 + 4 * (ring.signing.len() + 32)));
        serde_json::to_writer(&mut *bytes, &ring).map_err(|e| content(dir, &e))?;
        dir.file(FILE).write(0, &bytes)?;
        Ok(ring)
    }

    /// The keys in `dir`.
    ///
    /// # Errors
    /// [`ServiceError::Content`] if there are none: the service was never made.
    pub fn open(dir: &DataDir) -> Result<Self, ServiceError> {
        Self::read(dir)?.ok_or_else(|| ServiceError::Content {
            file: dir.file(FILE).shown(),
            problem: "expected the service's keys, found no file".into(),
        })
    }

    /// The signing key.
    ///
    /// # Errors
    /// If the document is no P-256 key.
    pub fn signing(&self) -> Result<SigningKey, ServiceError> {
        SigningKey::from_pkcs8(&self.signing).map_err(ServiceError::other)
    }

    /// The seed of the service's other key.
    pub const fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    fn read(dir: &DataDir) -> Result<Option<Self>, ServiceError> {
        let Some(sealed) = dir.file(FILE).read()? else { return Ok(None) };
        serde_json::from_slice(&sealed.bytes).map(Some).map_err(|e| content(dir, &e))
    }
}

fn content(dir: &DataDir, error: &serde_json::Error) -> ServiceError {
    ServiceError::Content { file: dir.file(FILE).shown(), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestAttester;

    #[test]
    fn makes_keys_once_and_gives_them_back_only_to_the_same_workload() {
        let temp = tempfile::tempdir().expect("temp dir");
        let open = |n| DataDir::open(temp.path(), "test", &TestAttester::new(n)).expect("dir");
        assert_eq!(
            Keyring::open(&open(1)).err().map(|e| e.to_string().contains("no file")),
            Some(true)
        );
        let first = Keyring::open_or_make(&open(1)).expect("make");
        let again = Keyring::open_or_make(&open(1)).expect("open");
        assert_eq!((first.seed, &first.signing), (again.seed, &again.signing));
        assert!(matches!(Keyring::open(&open(2)), Err(ServiceError::Unsealed(_))));
        assert!(matches!(Keyring::open_or_make(&open(2)), Err(ServiceError::Unsealed(_))));
    }
}
