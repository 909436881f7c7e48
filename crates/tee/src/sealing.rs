//! Keys that only this workload on this platform can derive, and bytes sealed with them.
//!
//! The TEE gives one key for what it measured at launch. On platforms where that is the agent and
//! not the workload, the agent, which knows the workload's measurement, derives the workload's
//! keys from it: HKDF-SHA384 (RFC 5869) with `casemate-seal-v1 ‖ measurement ‖ label`.

use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA384, KeyType, Salt};
use casemate_spec::Sha384;
use zeroize::{Zeroize, Zeroizing};

use crate::error::TeeError;
use crate::tsm::read_attribute;

const DOMAIN: &[u8] = b"casemate-seal-v1";

/// First byte of sealed bytes: AES-256-GCM, random 96-bit nonce.
const FORMAT: u8 = 1;
const NONCE_SIZE: usize = 12;
const TAG_SIZE: usize = 16;

/// The key the TEE derives for what it measured at launch. `root` is the directory beside
/// `report`, `/sys/kernel/config/tsm` as a rule, where the simulated TEE offers `derived_key`.
///
/// A real SEV-SNP derives such keys through `/dev/sev-guest`; that is not supported yet and is an
/// error here, not another key.
///
/// # Errors
/// [`TeeError::NoDevice`] if no device here derives keys.
pub fn hardware_key(root: &Path) -> Result<Zeroizing<[u8; 32]>, TeeError> {
    let path = root.join("derived_key");
    if let Err(source) = std::fs::symlink_metadata(&path) {
        return Err(TeeError::NoDevice { path, source });
    }
    let mut bytes = read_attribute(&path, 32)?;
    let found = bytes.len();
    let mut key = Zeroizing::new([0; 32]);
    let whole = found == key.len();
    if whole {
        key.copy_from_slice(&bytes);
    }
    bytes.zeroize();
    if whole { Ok(key) } else { Err(TeeError::Answer { path, limit: 32, found }) }
}

/// The key of one workload for one use, from the TEE's key.
///
/// # Errors
/// If the system's cryptography fails.
pub fn derive_workload_key(
    hardware_key: &[u8; 32],
    workload: &Sha384,
    label: &str,
) -> Result<Zeroizing<[u8; 32]>, TeeError> {
    hkdf(hardware_key, &[DOMAIN, workload.as_bytes(), label.as_bytes()])
}

/// 32 bytes of HKDF-SHA384 without salt.
pub(crate) fn hkdf(secret: &[u8; 32], info: &[&[u8]]) -> Result<Zeroizing<[u8; 32]>, TeeError> {
    let failed = |_| TeeError::Crypto("deriving a key");
    let mut key = Zeroizing::new([0; 32]);
    let extracted = Salt::new(HKDF_SHA384, &[]).extract(secret);
    let expanded = extracted.expand(info, KeySize).map_err(failed)?;
    expanded.fill(key.as_mut_slice()).map_err(failed)?;
    Ok(key)
}

struct KeySize;

impl KeyType for KeySize {
    fn len(&self) -> usize {
        32
    }
}

/// Seals bytes: nobody without the key can read or alter them, or pass them off in another
/// context (`aad`). A random nonce each time: at most 2^32 per key.
///
/// # Errors
/// If the system gives no randomness.
pub fn seal(key: &[u8; 32], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, TeeError> {
    let failed = |_| TeeError::Crypto("sealing");
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(failed)?;
    let mut out = Vec::with_capacity(1 + NONCE_SIZE + plaintext.len() + TAG_SIZE);
    let mut body = Zeroizing::new(plaintext.to_vec());
    let tag = cipher.seal_in_place_separate_tag(Aad::from(context(aad)), &mut body);
    let (nonce, tag) = tag.map_err(failed)?;
    out.push(FORMAT);
    out.extend_from_slice(nonce.as_ref());
    out.extend_from_slice(&body);
    out.extend_from_slice(tag.as_ref());
    Ok(out)
}

/// Opens what [`seal`] made with the same key and `aad`.
///
/// # Errors
/// [`TeeError::Open`], whatever the cause.
pub fn open(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, TeeError> {
    let (header, body) = sealed.split_at_checked(1 + NONCE_SIZE).ok_or(TeeError::Open)?;
    let [FORMAT, nonce @ ..] = header else { return Err(TeeError::Open) };
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| TeeError::Open)?;
    let cipher =
        RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| TeeError::Crypto("opening"))?;
    let mut body = Zeroizing::new(body.to_vec());
    let size = cipher
        .open_in_place(nonce, Aad::from(context(aad)), body.as_mut_slice())
        .map_err(|_| TeeError::Open)?
        .len();
    body.truncate(size);
    Ok(body)
}

/// The format byte is authenticated too.
fn context(aad: &[u8]) -> Vec<u8> {
    [&[FORMAT], aad].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_the_same_key_and_context() {
        let sealed = seal(&[1; 32], b"a", b"secret").expect("sealing");
        assert_eq!(open(&[1; 32], b"a", &sealed).expect("opening").as_slice(), b"secret");
        assert!(matches!(open(&[2; 32], b"a", &sealed), Err(TeeError::Open)));
        assert!(matches!(open(&[1; 32], b"b", &sealed), Err(TeeError::Open)));
    }

    #[test]
    fn refuses_every_flipped_byte_and_every_shorter_text() {
        let sealed = seal(&[1; 32], b"", b"secret").expect("sealing");
        for i in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[i] ^= 1;
            assert!(open(&[1; 32], b"", &altered).is_err(), "byte {i}");
            assert!(open(&[1; 32], b"", &sealed[..i]).is_err(), "length {i}");
        }
    }

    #[test]
    fn sealing_twice_gives_different_bytes() {
        let seal = || seal(&[1; 32], b"", b"secret").expect("sealing");
        assert_ne!(seal(), seal());
    }

    #[test]
    fn every_input_changes_the_workload_key() {
        let key = |hw: u8, w: u8, label| {
            derive_workload_key(&[hw; 32], &Sha384([w; 48]), label).expect("key")
        };
        assert_eq!(key(1, 1, "a"), key(1, 1, "a"));
        assert_ne!(key(1, 1, "a"), key(2, 1, "a"));
        assert_ne!(key(1, 1, "a"), key(1, 2, "a"));
        assert_ne!(key(1, 1, "a"), key(1, 1, "b"));
    }

    #[test]
    fn the_workload_key_keeps_its_golden_value() {
        let key = derive_workload_key(&[7; 32], &Sha384([1; 48]), "data").expect("key");
        // Computed by another HKDF implementation.
        let golden = "20db4a8b8e83be7f918513f4ee007c246a3317ada6baa31a543e54b6c884cc97";
        assert_eq!(hex::encode(*key), golden);
    }
}
