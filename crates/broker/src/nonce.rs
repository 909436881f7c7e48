//! Nonces: random, single use, short-lived, and never more than a bounded number outstanding.

use std::collections::HashMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_spec::binding::{NONCE_LIFETIME_SECONDS, NONCE_SIZE};

use crate::error::BrokerError;

/// How many nonces wait for an answer at a time. Whoever asks for more than that in a minute is
/// turned away, so that the table can not be made to grow.
pub const MAX_OUTSTANDING: usize = 16_384;

/// The nonces that were given out and not yet answered. They live in memory: after a restart none
/// of the old ones is good.
#[derive(Debug, Default)]
pub struct Nonces(HashMap<[u8; NONCE_SIZE], i64>);

impl Nonces {
    /// A new nonce at `now`.
    ///
    /// # Errors
    /// [`BrokerError::Crowded`] if too many are outstanding.
    pub fn issue(&mut self, now: i64) -> Result<[u8; NONCE_SIZE], BrokerError> {
        if self.0.len() >= MAX_OUTSTANDING {
            self.0.retain(|_, issued| fresh(*issued, now));
        }
        if self.0.len() >= MAX_OUTSTANDING {
            return Err(BrokerError::Crowded);
        }
        let nonce = casemate_service::random::<NONCE_SIZE>()?;
        self.0.insert(nonce, now);
        Ok(nonce)
    }

    /// Uses up a nonce, given as base64. It is gone afterwards, whatever comes of the request.
    ///
    /// # Errors
    /// [`BrokerError::Nonce`] if it was never given out or already used,
    /// [`BrokerError::Expired`] if it is too old.
    pub fn take(&mut self, text: &str, now: i64) -> Result<[u8; NONCE_SIZE], BrokerError> {
        let nonce = BASE64_STANDARD
            .decode(text)
            .ok()
            .and_then(|bytes| <[u8; NONCE_SIZE]>::try_from(bytes).ok())
            .ok_or(BrokerError::Nonce)?;
        match self.0.remove(&nonce) {
            None => Err(BrokerError::Nonce),
            Some(issued) if !fresh(issued, now) => {
                Err(BrokerError::Expired { age: now.saturating_sub(issued) })
            }
            Some(_) => Ok(nonce),
        }
    }
}

/// A nonce "from the future" means the clock was set back; it is as bad as an old one.
fn fresh(issued: i64, now: i64) -> bool {
    now.checked_sub(issued)
        .and_then(|age| u64::try_from(age).ok())
        .is_some_and(|age| age < NONCE_LIFETIME_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once() {
        let mut nonces = Nonces::default();
        let nonce = nonces.issue(100).expect("issue");
        let text = BASE64_STANDARD.encode(nonce);
        assert_eq!(nonces.take(&text, 159).expect("take"), nonce);
        assert!(matches!(nonces.take(&text, 159), Err(BrokerError::Nonce)));
    }

    #[test]
    fn a_nonce_is_good_for_a_minute_and_not_before_it_was_given_out() {
        let mut nonces = Nonces::default();
        for now in [160, 1_000, 99, i64::MIN] {
            let text = BASE64_STANDARD.encode(nonces.issue(100).expect("issue"));
            assert!(matches!(nonces.take(&text, now), Err(BrokerError::Expired { .. })), "{now}");
        }
    }

    #[test]
    fn a_stranger_s_nonce_is_refused() {
        let mut nonces = Nonces::default();
        nonces.issue(0).expect("issue");
        for text in ["", "AA==", "!", &BASE64_STANDARD.encode([7; 32])] {
            assert!(matches!(nonces.take(text, 0), Err(BrokerError::Nonce)), "{text:?}");
        }
    }

    #[test]
    fn the_table_is_bounded_and_old_nonces_make_room() {
        let mut nonces = Nonces::default();
        for _ in 0..MAX_OUTSTANDING {
            nonces.issue(0).expect("issue");
        }
        assert!(matches!(nonces.issue(59), Err(BrokerError::Crowded)));
        assert!(nonces.issue(60).is_ok());
    }
}
