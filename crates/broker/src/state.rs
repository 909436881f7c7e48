//! What the broker remembers: secrets, grants, and which acts it has applied.
//!
//! A [`State`] never changes in place. Each act makes the next one, whose digest goes into the
//! ledger before it takes effect. The digest is over a fresh salt too, so that it tells nothing
//! about a secret that could be guessed.

use std::collections::BTreeMap;
use std::io::Write;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_service::ServiceError;
use casemate_spec::Sha256;
use casemate_spec::trust::TrustFile;
use casemate_statement::act::{Act, Action, Grantee};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::BrokerError;

/// Largest value of a secret, in bytes.
pub const MAX_VALUE: usize = 64 * 1024;

/// How old an act may be when it is applied, in seconds; also how long its id is remembered.
pub const ACT_LIFETIME_SECONDS: i64 = 3600;

/// How far an act's time may be ahead of the broker's clock, in seconds.
pub const CLOCK_SKEW_SECONDS: i64 = 60;

const MAX_SECRETS: usize = 4096;
const MAX_GRANTS: usize = 256;
const MAX_TOTAL: usize = 64 << 20;
const FORMAT: &str = "casemate-broker-state-v1";

/// Everything the broker remembers, at one epoch.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    format: String,
    /// Random, new in each state.
    salt: String,
    /// The latest time any applied act was made: the clock never goes behind it.
    floor: i64,
    /// The trust file in force.
    pub(crate) trust: TrustFile,
    secrets: BTreeMap<String, Secret>,
    /// Applied acts by id, as long as they could be sent again.
    acts: BTreeMap<String, Applied>,
}

/// A secret with its grants.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Secret {
    value: Value,
    /// Epoch at which the value was stored.
    stored: u64,
    /// Epoch at which value or grants last changed.
    changed: u64,
    grants: Vec<Grantee>,
}

/// An act that was applied.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Applied {
    digest: Sha256,
    created: i64,
}

/// A secret as it may be shown: everything but its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Epoch at which its value was stored.
    pub stored: u64,
    /// Epoch at which value or grants last changed.
    pub changed: u64,
    /// Who may have it.
    pub grants: Vec<Grantee>,
}

impl State {
    /// The first state: nothing but whom to trust.
    pub(crate) fn first(trust: TrustFile) -> Result<Self, BrokerError> {
        Ok(Self {
            format: FORMAT.into(),
            salt: salt()?,
            floor: 0,
            trust,
            secrets: BTreeMap::new(),
            acts: BTreeMap::new(),
        })
    }

    /// The same under the next version of the trust file.
    pub(crate) fn under(&self, trust: TrustFile) -> Result<Self, BrokerError> {
        Ok(Self { salt: salt()?, trust, ..self.clone() })
    }

    /// The time to judge acts by: the host's clock, but never before an act that was applied. So
    /// setting the clock back does not make an old act good again.
    pub(crate) fn now(&self, clock: i64) -> i64 {
        clock.max(self.floor)
    }

    /// Whether this act was applied before; an error if another act had its id.
    pub(crate) fn applied(&self, act: &Act, digest: &Sha256) -> Result<bool, BrokerError> {
        match self.acts.get(&act.id) {
            None => Ok(false),
            Some(known) if known.digest == *digest => Ok(true),
            Some(_) => Err(BrokerError::Reused { id: act.id.clone() }),
        }
    }

    /// Whether an act made at `created` may be applied at `now`.
    pub(crate) fn check_time(act: &Act, now: i64) -> Result<(), BrokerError> {
        let age = now.saturating_sub(act.created.as_second());
        let id = || act.id.clone();
        if age < -CLOCK_SKEW_SECONDS {
            return Err(BrokerError::Future { id: id(), ahead: age.saturating_neg() });
        }
        if age > ACT_LIFETIME_SECONDS {
            return Err(BrokerError::Stale { id: id(), age, limit: ACT_LIFETIME_SECONDS });
        }
        act.check_time(now).map_err(BrokerError::other)
    }

    /// The state after an act, at `epoch`. `value` is the opened value of a put.
    ///
    /// Everything about the act but its effect has been checked before.
    pub(crate) fn after(
        &self,
        act: &Act,
        digest: Sha256,
        value: Option<Zeroizing<Vec<u8>>>,
        epoch: u64,
    ) -> Result<Self, BrokerError> {
        let mut next = Self { salt: salt()?, ..self.clone() };
        let created = act.created.as_second();
        next.floor = self.floor.max(created);
        let floor = next.floor;
        next.acts.retain(|_, a| a.created.saturating_add(ACT_LIFETIME_SECONDS) >= floor);
        next.acts.insert(act.id.clone(), Applied { digest, created });
        match &act.action {
            Action::Put { name, .. } => next.put(name, value, epoch)?,
            Action::Grant { name, to } => next.grant(name, to, epoch)?,
            Action::Revoke { name, from } => next.revoke(name, from.as_ref(), epoch)?,
            Action::Delete { name } => {
                next.secrets.remove(name).ok_or_else(|| unknown(name))?;
            }
            _ => return Err(BrokerError::Request("an act of an unknown kind".into())),
        }
        Ok(next)
    }

    /// The ids of acts that are still remembered.
    pub(crate) fn remembers(&self, id: &str) -> bool {
        self.acts.contains_key(id)
    }

    /// A secret.
    pub(crate) fn secret(&self, name: &str) -> Result<&Secret, BrokerError> {
        self.secrets.get(name).ok_or_else(|| unknown(name))
    }

    /// Every secret, without its value.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let listed = |(name, s): (&String, &Secret)| Listed {
            name: name.clone(),
            stored: s.stored,
            changed: s.changed,
            grants: s.grants.clone(),
        };
        self.secrets.iter().map(listed).collect()
    }

    /// SHA-256 over the state, salt included.
    pub(crate) fn digest(&self) -> Result<Sha256, BrokerError> {
        Ok(Sha256::of(&to_bytes(self)?))
    }

    /// Whether this is a state that this version wrote.
    pub(crate) fn is_known(&self) -> bool {
        self.format == FORMAT
    }

    fn put(
        &mut self,
        name: &str,
        value: Option<Zeroizing<Vec<u8>>>,
        epoch: u64,
    ) -> Result<(), BrokerError> {
        let value = value.ok_or_else(|| BrokerError::Request("a put without a value".into()))?;
        let total: usize = self.secrets.values().map(|s| s.value.0.len()).sum();
        if total.saturating_add(value.len()) > MAX_TOTAL {
            return Err(BrokerError::Limit { what: "bytes of secrets", limit: MAX_TOTAL });
        }
        if self.secrets.len() >= MAX_SECRETS && !self.secrets.contains_key(name) {
            return Err(BrokerError::Limit { what: "secrets", limit: MAX_SECRETS });
        }
        let grants = self.secrets.remove(name).map(|s| s.grants).unwrap_or_default();
        let secret = Secret { value: Value(value), stored: epoch, changed: epoch, grants };
        self.secrets.insert(name.into(), secret);
        Ok(())
    }

    fn grant(&mut self, name: &str, to: &Grantee, epoch: u64) -> Result<(), BrokerError> {
        let secret = self.secrets.get_mut(name).ok_or_else(|| unknown(name))?;
        if !secret.grants.contains(to) {
            if secret.grants.len() >= MAX_GRANTS {
                return Err(BrokerError::Limit { what: "grants of a secret", limit: MAX_GRANTS });
            }
            secret.grants.push(to.clone());
        }
        secret.changed = epoch;
        Ok(())
    }

    fn revoke(
        &mut self,
        name: &str,
        from: Option<&Grantee>,
        epoch: u64,
    ) -> Result<(), BrokerError> {
        let secret = self.secrets.get_mut(name).ok_or_else(|| unknown(name))?;
        match from {
            None => secret.grants.clear(),
            Some(grantee) => {
                let before = secret.grants.len();
                secret.grants.retain(|g| !same_grantee(g, grantee));
                if secret.grants.len() == before {
                    return Err(BrokerError::NoGrant { name: name.into() });
                }
            }
        }
        secret.changed = epoch;
        Ok(())
    }
}

impl Secret {
    /// The value.
    pub(crate) fn value(&self) -> &[u8] {
        &self.value.0
    }

    /// Who may have it.
    pub(crate) fn grants(&self) -> &[Grantee] {
        &self.grants
    }
}

/// A grant to a release is taken back by naming the release, whatever the frame around it.
fn same_grantee(a: &Grantee, b: &Grantee) -> bool {
    match (a, b) {
        (Grantee::Release { bundle: a, .. }, Grantee::Release { bundle: b, .. }) => a == b,
        (a, b) => a == b,
    }
}

fn unknown(name: &str) -> BrokerError {
    BrokerError::Unknown { name: name.into() }
}

fn salt() -> Result<String, BrokerError> {
    Ok(hex::encode(casemate_service::random::<32>()?))
}

/// JSON of something with secrets in it, without leaving copies behind.
pub(crate) fn to_bytes<T: Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>, BrokerError> {
    let mut out = Wiping(Zeroizing::new(Vec::with_capacity(4096)));
    serde_json::to_writer(&mut out, value).map_err(|e| {
        BrokerError::Service(ServiceError::Content {
            file: "state".into(),
            problem: format!("writing: {e}"),
        })
    })?;
    Ok(out.0)
}

/// A buffer that wipes what it leaves behind when it grows.
struct Wiping(Zeroizing<Vec<u8>>);

impl Write for Wiping {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.saturating_mul(2)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The bytes of a secret: base64 in JSON, wiped on drop.
#[derive(Clone)]
struct Value(Zeroizing<Vec<u8>>);

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64_STANDARD.encode(&*self.0)))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        let value = BASE64_STANDARD.decode(&text).map(|v| Self(Zeroizing::new(v)));
        text.zeroize();
        value.map_err(|_| de::Error::custom("a value that is not base64"))
    }
}
