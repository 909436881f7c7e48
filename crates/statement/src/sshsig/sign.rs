//! Signing with an OpenSSH private key file, for people without an agent at hand.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA512, RsaKeyPair,
};
use zeroize::Zeroizing;

use super::private::{PrivateFile, RsaNumbers, Secret};
use super::wire::{put, put_mpint};
use super::{Hash, MAGIC, SshPublicKey, SshSignature, VERSION, signed_data};
use crate::StatementError;
use crate::key::KeyKind;

/// Whether the OpenSSH private key in `pem` needs a passphrase.
///
/// # Errors
/// [`StatementError::PrivateKey`] if it is no OpenSSH private key.
pub fn is_encrypted(pem: &[u8]) -> Result<bool, StatementError> {
    Ok(PrivateFile::parse(pem)?.is_encrypted())
}

/// The public half of the OpenSSH private key in `pem`; needs no passphrase.
///
/// # Errors
/// [`StatementError::PrivateKey`] if it is no OpenSSH private key, [`StatementError::PublicKey`]
/// if it is of a kind that is not accepted.
pub fn public_key_of(pem: &[u8]) -> Result<SshPublicKey, StatementError> {
    Ok(PrivateFile::parse(pem)?.public)
}

/// Signs `message` for `namespace` with the OpenSSH private key in `pem` (Ed25519, ECDSA, RSA with
/// SHA-512). The signature is verified before it is returned.
///
/// # Errors
/// [`StatementError::PrivateKey`] for files and keys that can not sign here, FIDO keys among them;
/// [`StatementError::Passphrase`] if it is missing or wrong.
pub fn sign(
    pem: &[u8],
    passphrase: Option<&str>,
    namespace: &str,
    message: &[u8],
) -> Result<SshSignature, StatementError> {
    let file = PrivateFile::parse(pem)?;
    let public = file.public.clone();
    let signed = signed_data(namespace, Hash::Sha512, message);
    let (algorithm, raw) = match file.open(passphrase)? {
        Secret::Hardware => {
            let problem = "is in a security key, which only `ssh-keygen -Y sign` can ask to sign";
            return Err(StatementError::PrivateKey(problem.into()));
        }
        Secret::Ed25519(seed) => (public.algorithm(), sign_ed25519(&seed, &public, &signed)),
        Secret::Ecdsa(number) => (public.algorithm(), sign_ecdsa(&number, &public, &signed)),
        Secret::Rsa(numbers) => ("rsa-sha2-512", sign_rsa(&numbers, &signed)),
    };
    let damaged = || StatementError::PrivateKey("is damaged, or its halves do not fit".into());
    let blob = signature_blob(&public, namespace, algorithm, &raw.ok_or_else(damaged)?);
    let signature = SshSignature::from_blob(&blob)?;
    signature.verify(namespace, message).map_err(|_| damaged())?;
    Ok(signature)
}

fn sign_ed25519(seed: &[u8], public: &SshPublicKey, signed: &[u8]) -> Option<Vec<u8>> {
    let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public.key().raw()).ok()?;
    Some(pair.sign(signed).as_ref().to_vec())
}

fn sign_ecdsa(number: &[u8], public: &SshPublicKey, signed: &[u8]) -> Option<Vec<u8>> {
    let (algorithm, size): (_, usize) = match public.key().kind() {
        KeyKind::P256 => (&ECDSA_P256_SHA256_FIXED_SIGNING, 32),
        KeyKind::P384 => (&ECDSA_P384_SHA384_FIXED_SIGNING, 48),
        KeyKind::P521 => (&ECDSA_P521_SHA512_FIXED_SIGNING, 66),
        KeyKind::Ed25519 | KeyKind::Rsa(_) => return None,
    };
    let mut padded = Zeroizing::new(vec![0; size.checked_sub(number.len())?]);
    padded.extend_from_slice(number);
    let point = public.key().raw();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &padded, point).ok()?;
    let signature = pair.sign(&SystemRandom::new(), signed).ok()?;
    let (r, s) = signature.as_ref().split_at_checked(size)?;
    let mut out = Vec::new();
    put_mpint(&mut out, r);
    put_mpint(&mut out, s);
    Some(out)
}

fn sign_rsa(numbers: &RsaNumbers, signed: &[u8]) -> Option<Vec<u8>> {
    let RsaNumbers { n, e, d, q_inverse, p, q } = numbers;
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n: n.as_slice(), e: e.as_slice() },
        d: d.as_slice(),
        p: p.as_slice(),
        q: q.as_slice(),
        dP: &remainder_less_one(d, p)?,
        dQ: &remainder_less_one(d, q)?,
        qInv: q_inverse.as_slice(),
    };
    let pair = RsaKeyPair::from_components(&components).ok()?;
    let mut out = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA512, &SystemRandom::new(), signed, &mut out).ok()?;
    Some(out)
}

/// `number` modulo `prime` less one, which the file does not hold. Bit by bit: it is done once for
/// a signature, with numbers of at most 8192 bits.
fn remainder_less_one(number: &[u8], prime: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let size = prime.len();
    // an odd prime less one is the prime with its lowest bit cleared
    let mut modulus = Zeroizing::new(prime.to_vec());
    *modulus.last_mut()? &= !1;
    if modulus.iter().all(|b| *b == 0) || size > 1024 || number.len() > 1024 {
        return None;
    }
    // one byte more, so that doubling does not overflow
    modulus.insert(0, 0);
    let mut rest = Zeroizing::new(vec![0u8; size + 1]);
    for bit in (0..number.len() * 8).map(|i| number[i / 8] >> (7 - i % 8) & 1) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            let doubled = (u16::from(*byte) << 1) | u16::from(carry);
            *byte = doubled as u8;
            carry = (doubled >> 8) as u8;
        }
        if rest.as_slice() >= modulus.as_slice() {
            let mut borrow = false;
            for (byte, less) in rest.iter_mut().zip(modulus.iter()).rev() {
                let (a, under) = byte.overflowing_sub(*less);
                let (b, again) = a.overflowing_sub(u8::from(borrow));
                (*byte, borrow) = (b, under || again);
            }
        }
    }
    rest.remove(0);
    Some(rest)
}

fn signature_blob(public: &SshPublicKey, namespace: &str, algorithm: &str, raw: &[u8]) -> Vec<u8> {
    let mut inner = Vec::new();
    put(&mut inner, algorithm.as_bytes());
    put(&mut inner, raw);
    let mut blob = MAGIC.to_vec();
    blob.extend_from_slice(&VERSION.to_be_bytes());
    put(&mut blob, public.blob());
    put(&mut blob, namespace.as_bytes());
    put(&mut blob, &[]);
    put(&mut blob, Hash::Sha512.name().as_bytes());
    put(&mut blob, &inner);
    blob
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn remainders_are_those_of_whole_numbers(number: u128, prime: u64) {
            let prime = (prime | 1).max(3);
            let less_one = u128::from(prime - 1);
            let rest = remainder_less_one(&number.to_be_bytes(), &prime.to_be_bytes());
            let rest = rest.map(|r| u64::from_be_bytes(r.as_slice().try_into().unwrap_or([0; 8])));
            proptest::prop_assert_eq!(rest.map(u128::from), Some(number % less_one));
        }
    }
}
