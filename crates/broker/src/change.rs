//! The statement about a change of the broker's state, which is in the ledger before the change
//! takes effect.

use casemate_spec::Sha256;
use casemate_spec::trust::Trust;
use casemate_statement::act::{Act, Action, Grantee};
use casemate_statement::intoto::{Predicate, Resource, Statement};
use casemate_statement::quorum::Person;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::BrokerError;

/// The predicate: the broker goes to this epoch, by this cause. Anyone who reads the ledger can
/// count the people behind it; the values of secrets are in no statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Number of the state: 1, 2, 3, …
    pub epoch: u64,
    /// Digest of the state, salted.
    pub state: Sha256,
    /// The trust file in force.
    pub trust: Sha256,
    /// When.
    pub time: Timestamp,
    /// Why.
    pub cause: Cause,
}

/// Why a state changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Cause {
    /// This trust file came into force.
    Trust {
        /// Its version.
        version: u64,
    },
    /// An act of the approvers.
    Act {
        /// Its id.
        id: String,
        /// `put`, `grant`, `revoke` or `delete`.
        action: String,
        /// The secret it is about.
        secret: String,
        /// Whose grant, if it is about one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grantee: Option<Box<Grantee>>,
        /// Who signed it.
        people: Vec<Signed>,
    },
}

/// A person who signed an act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// The approver's name in the trust file.
    pub name: String,
    /// Fingerprint of the key.
    pub fingerprint: String,
    /// The armored SSH signature over the act.
    pub sshsig: String,
}

impl Predicate for Change {
    const TYPE: &'static str = "https://casemate.dev/broker-state/v1";
}

/// What a change is about, and why it came.
pub(crate) struct Reason {
    subject: Resource,
    cause: Cause,
}

impl Reason {
    /// A trust file comes into force.
    pub(crate) fn trust(trust: &Trust) -> Result<Self, BrokerError> {
        let digest = trust.digest().map_err(BrokerError::other)?;
        Ok(Self {
            subject: Resource::named("trust.json", &digest),
            cause: Cause::Trust { version: trust.version },
        })
    }

    /// An act is applied.
    pub(crate) fn act(act: &Act, digest: &Sha256, people: &[Person], sshsigs: &[String]) -> Self {
        let (action, grantee) = match &act.action {
            Action::Put { .. } => ("put", None),
            Action::Grant { to, .. } => ("grant", Some(to.clone())),
            Action::Revoke { from, .. } => ("revoke", from.clone()),
            Action::Delete { .. } => ("delete", None),
            _ => ("other", None),
        };
        let signed = |(person, sshsig): (&Person, &String)| Signed {
            name: person.name.clone(),
            fingerprint: person.fingerprint.clone(),
            sshsig: sshsig.clone(),
        };
        Self {
            subject: Resource::named("act", digest),
            cause: Cause::Act {
                id: act.id.clone(),
                action: action.into(),
                secret: act.action.secret().into(),
                grantee: grantee.map(Box::new),
                people: people.iter().zip(sshsigs).map(signed).collect(),
            },
        }
    }

    /// The statement that the broker goes to `epoch` for this reason.
    pub(crate) fn statement(
        self,
        epoch: u64,
        state: Sha256,
        trust: Sha256,
        time: Timestamp,
    ) -> Statement<Change> {
        Statement::new(vec![self.subject], Change { epoch, state, trust, time, cause: self.cause })
    }
}

#[cfg(test)]
impl Change {
    pub(crate) fn example(epoch: u64, state: Sha256) -> Self {
        Self {
            epoch,
            state,
            trust: Sha256([0; 32]),
            time: Timestamp::UNIX_EPOCH,
            cause: Cause::Trust { version: 1 },
        }
    }
}
