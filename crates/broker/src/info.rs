//! What the broker says about itself and its secrets: names, grants and epochs, never values.

use casemate_service::answer::Answer;
use casemate_spec::Sha256;
use serde::{Deserialize, Serialize};

use crate::broker::Broker;
use crate::error::BrokerError;
use crate::state::Listed;

/// Domain of the signature over [`Info`].
pub const INFO_DOMAIN: &[u8] = b"casemate-broker-info-v1\0";

/// Domain of the signature over [`List`].
pub const LIST_DOMAIN: &[u8] = b"casemate-broker-list-v1\0";

/// Who the broker is and in which state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Info {
    /// The asker's nonce.
    pub nonce: String,
    /// Digest of the trust file in force.
    pub trust: Sha256,
    /// Its version.
    pub version: u64,
    /// Number of the state.
    pub epoch: u64,
    /// SubjectPublicKeyInfo of the X25519 key to which secrets are sealed, base64.
    pub envelope_key: String,
}

/// Every secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The asker's nonce.
    pub nonce: String,
    /// Digest of the trust file in force.
    pub trust: Sha256,
    /// Number of the state.
    pub epoch: u64,
    /// The secrets, by name.
    pub secrets: Vec<Listed>,
}

impl Broker {
    /// Who this is, signed for the asker's nonce.
    ///
    /// # Errors
    /// If the nonce is not 64 hexadecimal digits.
    pub fn info(&self, nonce: &str) -> Result<Answer, BrokerError> {
        check_nonce(nonce)?;
        let current = self.current();
        let info = Info {
            nonce: nonce.into(),
            trust: current.trust,
            version: current.state.trust.signed.version,
            epoch: current.epoch,
            envelope_key: crate::base64(self.envelope.spki()),
        };
        Ok(Answer::sign(INFO_DOMAIN, &self.signing, &info)?)
    }

    /// The secrets, signed for the asker's nonce.
    ///
    /// # Errors
    /// As [`Self::info`].
    pub fn list(&self, nonce: &str) -> Result<Answer, BrokerError> {
        check_nonce(nonce)?;
        let current = self.current();
        let list = List {
            nonce: nonce.into(),
            trust: current.trust,
            epoch: current.epoch,
            secrets: current.state.list(),
        };
        Ok(Answer::sign(LIST_DOMAIN, &self.signing, &list)?)
    }
}

fn check_nonce(nonce: &str) -> Result<(), BrokerError> {
    if nonce.len() == 64 && nonce.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(BrokerError::Request("nonce: expected 64 hexadecimal digits".into()))
}
