//! Who may sign, and whether a signature is theirs.
//!
//! The work is split in two: [`Keyring::verify`] does the cryptography and knows nothing of
//! time, so that commits can be verified in any order on all cores; [`Keyring::admit`] then
//! decides, in the order of history, whether that key was good at that time for that person.

use std::collections::HashMap;

use casemate_spec::trust::{Developer, DeveloperKey};
use casemate_statement::sshsig::{SshPublicKey, SshSignature};

use super::allowed_signers::NAMESPACE;
use super::commit::{Person, Signed};
use super::error::SourceError;
use super::openpgp::{self, Certificate, Made, ParsedSignature};
use super::principals;

/// First line of an armored SSH signature.
const SSH_SIGNATURE: &str = "-----BEGIN SSH SIGNATURE-----";

/// How far a developer's clock may run ahead, in seconds.
const CLOCK_SKEW: i64 = 3600;

/// All developers' keys.
pub(super) struct Keyring {
    keys: Vec<Key>,
    /// By SSH public key, as type and base64.
    ssh: HashMap<String, usize>,
    /// By OpenPGP key id of any component.
    openpgp: HashMap<String, Vec<usize>>,
}

struct Key {
    fingerprint: String,
    /// With its text as it was listed.
    certificate: Option<(Certificate, String)>,
    listings: Vec<Listing>,
}

/// One entry of the trust file for a key.
struct Listing {
    principals: Vec<String>,
    after: Option<i64>,
    before: Option<i64>,
}

/// A signature that is cryptographically a listed key's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signature {
    key: usize,
    made: Option<Made>,
}

/// What a signature is asked to vouch for.
pub(super) struct Claim<'a> {
    /// `commit …` or `tag …`.
    pub object: String,
    /// When, by its own word.
    pub time: i64,
    /// When at the earliest, by the word of everything it builds on.
    pub earliest: i64,
    /// The people it names, with their role.
    pub people: &'a [(&'static str, &'a Person)],
}

impl Keyring {
    /// Reads all keys.
    pub(super) fn new(developers: &[Developer]) -> Result<Self, SourceError> {
        let mut ring = Self { keys: Vec::new(), ssh: HashMap::new(), openpgp: HashMap::new() };
        for developer in developers {
            let index = ring.key(&developer.key).map_err(|problem| SourceError::DeveloperKey {
                who: developer.principals.join(","),
                problem,
            })?;
            ring.keys[index].listings.push(Listing {
                principals: developer.principals.clone(),
                after: developer.valid_after.map(|t| t.as_second()),
                before: developer.valid_before.map(|t| t.as_second()),
            });
        }
        Ok(ring)
    }

    /// The index of a key, new or met before.
    fn key(&mut self, key: &DeveloperKey) -> Result<usize, String> {
        let next = self.keys.len();
        match key {
            DeveloperKey::Ssh(line) => {
                let key = SshPublicKey::parse(line).map_err(|e| e.to_string())?;
                let fingerprint = key.fingerprint();
                let index = *self.ssh.entry(key.to_line()).or_insert(next);
                if index == next {
                    self.keys.push(Key { fingerprint, certificate: None, listings: Vec::new() });
                }
                Ok(index)
            }
            DeveloperKey::Openpgp(armored) => {
                let certificate = Certificate::parse(armored)?;
                if let Some(index) = self.listed(&certificate.fingerprint, armored)? {
                    return Ok(index);
                }
                for id in certificate.key_ids() {
                    self.openpgp.entry(id).or_default().push(next);
                }
                let fingerprint = certificate.fingerprint.clone();
                let certificate = Some((certificate, armored.clone()));
                self.keys.push(Key { fingerprint, certificate, listings: Vec::new() });
                Ok(next)
            }
            _ => Err("a kind of key this version does not know".into()),
        }
    }

    /// The index of a certificate that was met before. Two texts of one certificate may differ
    /// in a revocation, and it must not depend on their order which of them counts.
    fn listed(&self, fingerprint: &str, armored: &str) -> Result<Option<usize>, String> {
        let same = |key: &Key| key.certificate.is_some() && key.fingerprint == fingerprint;
        let Some(index) = self.keys.iter().position(same) else { return Ok(None) };
        match &self.keys[index].certificate {
            Some((_, text)) if text == armored => Ok(Some(index)),
            _ => Err(format!("OpenPGP key {fingerprint} is listed twice with different content")),
        }
    }

    /// The fingerprint of the key that made a signature.
    pub(super) fn fingerprint(&self, signature: Signature) -> &str {
        &self.keys[signature.key].fingerprint
    }

    /// Finds the listed key that made the signature; only cryptography, no time.
    pub(super) fn verify(
        &self,
        object: impl Fn() -> String,
        signed: &Signed,
    ) -> Result<Signature, SourceError> {
        if signed.armor.starts_with(SSH_SIGNATURE) {
            self.verify_ssh(&object, signed)
        } else if signed.armor.starts_with(openpgp::SIGNATURE) {
            self.verify_openpgp(&object, signed)
        } else {
            let first = signed.armor.lines().next().unwrap_or_default();
            let first: String = first.chars().take(60).collect();
            Err(SourceError::SignatureKind {
                object: object(),
                problem: format!("begins {first:?}"),
            })
        }
    }

    fn verify_ssh(
        &self,
        object: &impl Fn() -> String,
        signed: &Signed,
    ) -> Result<Signature, SourceError> {
        let bad = |e: &dyn std::fmt::Display| SourceError::BadSignature {
            object: object(),
            problem: e.to_string(),
        };
        let signature = SshSignature::parse(&signed.armor).map_err(|e| bad(&e))?;
        let Some(key) = self.ssh.get(&signature.key().to_line()).copied() else {
            let key = signature.key().fingerprint();
            return Err(SourceError::Stranger { object: object(), key });
        };
        if signature.namespace() != NAMESPACE {
            let found: String = signature.namespace().chars().take(100).collect();
            return Err(bad(&format!("made for {found:?}, expected {NAMESPACE:?}")));
        }
        // As git has it, a security key may be set up to sign commits without a touch; approvals
        // ask for the touch. So this is the signature check alone.
        let record = signature.record(&signed.payload);
        record.verify(&signature.covered(&signed.payload)).map_err(|e| bad(&e))?;
        Ok(Signature { key, made: None })
    }

    fn verify_openpgp(
        &self,
        object: &impl Fn() -> String,
        signed: &Signed,
    ) -> Result<Signature, SourceError> {
        let bad = |problem| SourceError::BadSignature { object: object(), problem };
        let signature = ParsedSignature::parse(&signed.armor).map_err(bad)?;
        let mut problem = None;
        for id in &signature.issuers {
            for &key in self.openpgp.get(id).map_or(&[][..], Vec::as_slice) {
                let Some((certificate, _)) = &self.keys[key].certificate else { continue };
                match certificate.verify(&signature, &signed.payload) {
                    Ok(made) => return Ok(Signature { key, made: Some(made) }),
                    Err(e) => problem = Some(e),
                }
            }
        }
        Err(match problem {
            Some(problem) => bad(problem),
            None => SourceError::Stranger {
                object: object(),
                key: format!("OpenPGP key {}", signature.issuers.join(" or ").to_uppercase()),
            },
        })
    }

    /// Decides whether the signature vouches for the claim: the key listed and good at that time,
    /// every person named its holder.
    ///
    /// A developer dates a commit as they like. But a commit can not be older than what it builds
    /// on, so a key must still be valid at `earliest`: a key that was taken out can not extend
    /// later history by back-dating.
    pub(super) fn admit(
        &self,
        signature: Signature,
        claim: &Claim<'_>,
        now: i64,
    ) -> Result<(), SourceError> {
        let Claim { object, time, earliest, people } = claim;
        let key = &self.keys[signature.key];
        let latest = (*time).max(*earliest);
        if *time > now.saturating_add(CLOCK_SKEW) {
            return Err(SourceError::Future { object: object.clone(), at: super::rfc3339(*time) });
        }
        if let (Some((certificate, _)), Some(made)) = (&key.certificate, signature.made) {
            if made.at > now.saturating_add(CLOCK_SKEW) {
                return Err(SourceError::Future {
                    object: object.clone(),
                    at: super::rfc3339(made.at),
                });
            }
            if let Some(problem) = certificate.problem(made, latest) {
                return Err(SourceError::KeyState {
                    object: object.clone(),
                    key: key.fingerprint.clone(),
                    problem,
                });
            }
        }
        let valid: Vec<&Listing> =
            key.listings.iter().filter(|l| l.covers(*time) && l.covers(latest)).collect();
        if valid.is_empty() {
            let at = if key.listings.iter().any(|l| l.covers(*time)) { latest } else { *time };
            return Err(SourceError::OutsideValidity {
                object: object.clone(),
                key: key.fingerprint.clone(),
                at: super::rfc3339(at),
                problem: key.listings.iter().map(Listing::window).collect::<Vec<_>>().join("; "),
            });
        }
        for (role, person) in *people {
            if !valid.iter().any(|l| principals::matches(&l.principals, &person.email)) {
                return Err(SourceError::ForgedIdentity {
                    object: object.clone(),
                    role,
                    email: person.email.clone(),
                    key: key.fingerprint.clone(),
                    principals: valid
                        .iter()
                        .map(|l| l.principals.join(","))
                        .collect::<Vec<_>>()
                        .join(","),
                });
            }
        }
        Ok(())
    }
}

impl Listing {
    fn covers(&self, time: i64) -> bool {
        self.after.is_none_or(|after| time >= after)
            && self.before.is_none_or(|before| time < before)
    }

    fn window(&self) -> String {
        match (self.after, self.before) {
            (None, None) => "always valid".into(),
            (Some(after), None) => format!("valid from {}", super::rfc3339(after)),
            (None, Some(before)) => format!("valid until {}", super::rfc3339(before)),
            (Some(after), Some(before)) => {
                format!("valid from {} until {}", super::rfc3339(after), super::rfc3339(before))
            }
        }
    }
}
