//! What every service does the same way, once: sealed state, trust pinning, signed answers,
//! genesis of keys, serving and its client.
//!
//! A service is a program in an enclave, with a directory and a network that belong to an
//! untrusted host. So what it keeps is sealed ([`sealed`]), whom it follows is pinned ([`pin`]),
//! what it says is signed ([`answer`]), and its keys never leave it ([`keyring`], [`genesis`]).
//!
//! - [`attester`]: the agent as a service sees it
//! - [`sealed`]: files only this workload can read or make
//! - [`pin`]: one installation's trust file, forward only
//! - [`keyring`], [`genesis`]: keys made inside, and their public halves with evidence
//! - [`log`]: the ledger as another service sees it; [`ledger`]: the ledger as a service
//! - [`answer`]: signed answers
//! - [`http`], [`client`]: the two ends of the wire
//! - [`error`]: codes, and refusals as JSON

#![forbid(unsafe_code)]

pub mod answer;
pub mod attester;
pub mod client;
pub mod clock;
pub mod error;
pub mod genesis;
pub mod http;
pub mod keyring;
pub mod ledger;
pub mod log;
pub mod pin;
pub mod sealed;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use attester::Attester;
pub use clock::{Clock, SystemClock};
pub use error::{Problem, ServiceError};
pub use genesis::Genesis;

/// `N` random bytes of the operating system.
///
/// # Errors
/// If it has none.
pub fn random<const N: usize>() -> Result<[u8; N], ServiceError> {
    let mut out = [0; N];
    aws_lc_rs::rand::fill(&mut out).map_err(|_| ServiceError::Crypto("randomness"))?;
    Ok(out)
}
