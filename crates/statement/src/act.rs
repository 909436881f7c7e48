//! Administrative acts on the broker: what approvers sign instead of holding a password.

use casemate_spec::spec::check_secret_name;
use casemate_spec::{Sha256, Sha384};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::StatementError;
use crate::json::{self, Base64};

/// SSHSIG namespace of acts.
pub const NAMESPACE: &str = "casemate-act";

/// The largest act that is read, in bytes: a secret of one megabyte and what is around it.
pub const MAX_SIZE: usize = 2 << 20;

/// The longest time between making and applying an act, in seconds: signatures of several people
/// take a while, and the broker remembers ids for as long.
pub const MAX_LIFETIME_SECONDS: i64 = 7 * 24 * 3600;

/// One act. It is signed as its canonical JSON ([`Act::to_bytes`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Act {
    /// Always [`Act::FORMAT`].
    #[serde(rename = "type")]
    pub format: String,
    /// The trust file whose approvers count.
    pub trust: Sha256,
    /// 16 random bytes in hexadecimal; an act is applied once.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it can no longer be applied.
    pub expires: Timestamp,
    /// What is to be done.
    pub action: Action,
}

/// What an act does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Action {
    /// Stores a secret, replacing one of the same name.
    Put {
        /// Name of the secret.
        name: String,
        /// The value, sealed to the broker.
        value: SealedValue,
    },
    /// Lets a workload have a secret.
    Grant {
        /// Name of the secret.
        name: String,
        /// Who may have it.
        to: Grantee,
    },
    /// Takes back a grant, or all of them.
    Revoke {
        /// Name of the secret.
        name: String,
        /// Whose grant; none means everybody's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Grantee>,
    },
    /// Forgets a secret and all its grants.
    Delete {
        /// Name of the secret.
        name: String,
    },
}

impl Action {
    /// The secret it is about.
    pub fn secret(&self) -> &str {
        match self {
            Self::Put { name, .. }
            | Self::Grant { name, .. }
            | Self::Revoke { name, .. }
            | Self::Delete { name } => name,
        }
    }
}

/// Who may have a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Grantee {
    /// The workload with this measurement.
    Measurement(Sha384),
    /// Any workload that runs an artifact of this release.
    Release {
        /// SHA-256 of the release bundle's canonical JSON.
        bundle: Sha256,
        /// SHA-256 of each artifact of the release.
        artifacts: Vec<Sha256>,
        /// What else the workload must be.
        frame: Frame,
    },
}

/// A workload without the program it runs. A release says what the program is; agent, arguments,
/// environment and libraries decide what becomes of a secret just as much, so approvers sign them
/// too. Only where the program lies is left open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// SHA-384 of the agent.
    pub agent: Sha384,
    /// SHA-256 of the canonical JSON of the effective spec, its program path made empty.
    pub settings: Sha256,
    /// SHA-256 of the canonical JSON of the root manifest without directories and the program.
    pub runtime: Sha256,
}

/// An HPKE envelope (`casemate-envelope`), carried as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedValue {
    /// Encapsulated key.
    pub enc: Base64,
    /// Ciphertext and tag.
    pub ciphertext: Base64,
}

impl Act {
    /// The value of the `type` field.
    pub const FORMAT: &'static str = "casemate-act-v1";

    /// Parses an act; only its canonical JSON is accepted, so that what is signed, logged and
    /// applied are the same bytes.
    ///
    /// # Errors
    /// [`StatementError::Syntax`], [`StatementError::Size`] or [`StatementError::Act`].
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        let act: Self = json::from_slice(bytes, "act", MAX_SIZE)?;
        act.check()?;
        if act.to_bytes()? != bytes {
            return Err(act_error("json", "not canonical (RFC 8785)".into()));
        }
        Ok(act)
    }

    /// The bytes that approvers sign.
    ///
    /// # Errors
    /// Never in practice: an act holds text only.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StatementError> {
        json::canonical(self)
    }

    /// Whether it can be applied at `now` (unix seconds).
    ///
    /// # Errors
    /// [`StatementError::Act`] if it has expired.
    pub fn check_time(&self, now: i64) -> Result<(), StatementError> {
        if now >= self.expires.as_second() {
            return Err(act_error("expires", format!("{} is past", self.expires)));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), StatementError> {
        if self.format != Self::FORMAT {
            return Err(act_error(
                "type",
                format!("{:?}, expected {:?}", self.format, Self::FORMAT),
            ));
        }
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if self.id.len() != 32 || !self.id.bytes().all(lower_hex) {
            return Err(act_error("id", "expected 32 hexadecimal digits".into()));
        }
        let lifetime = self.expires.as_second().saturating_sub(self.created.as_second());
        if !(1..=MAX_LIFETIME_SECONDS).contains(&lifetime) {
            return Err(act_error("expires", format!("{lifetime} s after it was made")));
        }
        check_secret_name(self.action.secret()).map_err(|p| act_error("name", p))?;
        match &self.action {
            Action::Grant { to: Grantee::Release { artifacts, .. }, .. }
                if artifacts.is_empty() =>
            {
                Err(act_error("artifacts", "none, so the grant would be for nothing".into()))
            }
            _ => Ok(()),
        }
    }
}

fn act_error(field: &'static str, problem: String) -> StatementError {
    StatementError::Act { field, problem }
}
