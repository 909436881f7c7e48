//! OpenPGP certificates of developers, and what they were good for at a given time.
//!
//! The `pgp` crate checks each signature; what it leaves to its caller is policy: which
//! self-signature holds at which time, expiry, revocation, which sub-key may sign. A certificate
//! stands in the trust file whole, so its self-signatures are believed even if their hash is
//! SHA-1 (old keys have no other); signatures over commits are not.

use pgp::composed::{ArmorOptions, Deserializable as _, DetachedSignature, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{
    PublicKey, PublicSubkey, RevocationCode, Signature, SignatureType, SubpacketData,
};
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails as _, KeyVersion, PublicParams, Tag};

/// First line of an armored signature.
pub(super) const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";

/// First line of an armored certificate.
const CERTIFICATE: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";

/// Largest armored text that is read, in bytes.
const MAX_ARMOR: usize = 4 << 20;

/// Smallest RSA key that is accepted, in bits.
const MIN_RSA_BITS: u16 = 2048;

/// A certificate whose self-signatures have been verified.
#[derive(Debug)]
pub(super) struct Certificate {
    /// Hexadecimal fingerprint of the primary key.
    pub fingerprint: String,
    /// The primary key first, then the sub-keys.
    components: Vec<Component>,
}

/// A signature that fits one component of a certificate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    component: usize,
    /// When, by the signer's word.
    pub at: i64,
}

#[derive(Debug)]
struct Component {
    key: Key,
    created: i64,
    /// Verified self-signatures that say what the key may do, oldest first.
    bindings: Vec<Binding>,
    revocations: Vec<Revocation>,
}

#[derive(Debug)]
enum Key {
    Primary(PublicKey),
    Sub(PublicSubkey),
}

#[derive(Debug)]
struct Binding {
    created: i64,
    expires: Option<i64>,
    may_sign: bool,
}

#[derive(Debug)]
struct Revocation {
    created: i64,
    /// The key may have been in other hands at any time: its past signatures fall as well.
    hard: bool,
}

impl Certificate {
    /// Reads one armored certificate.
    pub(super) fn parse(armored: &str) -> Result<Self, String> {
        let mut all = parse_certificates(armored)?;
        match (all.pop(), all.len()) {
            (Some(one), 0) => Self::new(&one),
            (_, n) => Err(format!("expected one OpenPGP certificate, found {}", n + 1)),
        }
    }

    fn new(cert: &SignedPublicKey) -> Result<Self, String> {
        let primary = &cert.primary_key;
        let fingerprint = cert.primary_key.fingerprint().to_string().to_uppercase();
        let mut components = vec![Component {
            created: i64::from(primary.created_at().as_secs()),
            bindings: primary_bindings(cert),
            revocations: cert
                .details
                .revocation_signatures
                .iter()
                .filter(|s| s.typ() == Some(SignatureType::KeyRevocation))
                .filter(|s| s.verify_key(primary).is_ok())
                .filter_map(Revocation::new)
                .collect(),
            key: Key::Primary(primary.clone()),
        }];
        if components[0].bindings.is_empty() {
            return Err(format!("OpenPGP key {fingerprint} has no valid self-signature"));
        }
        for sub in &cert.public_subkeys {
            let valid = sub
                .signatures
                .iter()
                .filter(|s| s.verify_subkey_binding(primary, &sub.key).is_ok());
            let (binding, revoking): (Vec<_>, Vec<_>) =
                valid.partition(|s| s.typ() == Some(SignatureType::SubkeyBinding));
            let created = i64::from(sub.key.created_at().as_secs());
            let back_signed = |s: &Signature| {
                s.embedded_signature()
                    .is_some_and(|back| back.verify_primary_key_binding(&sub.key, primary).is_ok())
            };
            let mut bindings: Vec<_> = binding
                .iter()
                .filter_map(|s| Binding::new(s, created, s.key_flags().sign() && back_signed(s)))
                .collect();
            bindings.sort_by_key(|b| b.created);
            components.push(Component {
                created,
                bindings,
                revocations: revoking.into_iter().filter_map(Revocation::new).collect(),
                key: Key::Sub(sub.key.clone()),
            });
        }
        Ok(Self { fingerprint, components })
    }

    /// Key ids of all components: the hint a signature carries.
    pub(super) fn key_ids(&self) -> impl Iterator<Item = String> + '_ {
        self.components.iter().map(|c| c.key.id())
    }

    /// Whether `signature` over `payload` was made by a component of this certificate.
    pub(super) fn verify(
        &self,
        signature: &ParsedSignature,
        payload: &[u8],
    ) -> Result<Made, String> {
        let mut problem = "no key of the certificate made it".to_owned();
        for (component, c) in self.components.iter().enumerate() {
            if !signature.issuers.contains(&c.key.id()) {
                continue;
            }
            match c.key.verify(&signature.inner, payload) {
                Ok(()) => return Ok(Made { component, at: signature.created }),
                Err(e) => problem = e,
            }
        }
        Err(problem)
    }

    /// Why a signature made then can not count, if so. `latest` is the earliest time at which the
    /// signed commit can have existed, never before the signature itself.
    pub(super) fn problem(&self, made: Made, latest: i64) -> Option<String> {
        let latest = latest.max(made.at);
        let primary = self.components.first()?;
        let component = self.components.get(made.component)?;
        let role = if made.component == 0 { "the key" } else { "the sub-key" };
        if made.at < component.created {
            return Some(format!("the signature is older than {role}"));
        }
        for (name, c) in [("the key", primary), (role, component)] {
            if let Some(revoked) = c.revocations.iter().find(|r| r.hard || r.created <= latest) {
                let since = super::rfc3339(revoked.created);
                let why = if revoked.hard { " as compromised" } else { "" };
                return Some(format!("{name} was revoked{why} at {since}"));
            }
            match c.binding_at(latest) {
                None => return Some(format!("{name} is not bound to the certificate")),
                Some(Binding { expires: Some(end), .. }) if *end <= latest => {
                    return Some(format!("{name} expired at {}", super::rfc3339(*end)));
                }
                Some(_) => {}
            }
        }
        let may_sign = component.binding_at(latest).is_some_and(|b| b.may_sign);
        (!may_sign).then(|| format!("{role} is not for signing"))
    }
}

impl Component {
    /// The newest binding made by then. Certificates are often passed on with their newest
    /// self-signature only; then the oldest one there is stands for the time before it.
    fn binding_at(&self, time: i64) -> Option<&Binding> {
        self.bindings.iter().rev().find(|b| b.created <= time).or(self.bindings.first())
    }
}

impl Binding {
    fn new(signature: &Signature, key_created: i64, may_sign: bool) -> Option<Self> {
        let lifetime = signature.key_expiration_time().map_or(0, |d| i64::from(d.as_secs()));
        Some(Self {
            created: i64::from(signature.created()?.as_secs()),
            expires: (lifetime > 0).then(|| key_created + lifetime),
            may_sign,
        })
    }
}

impl Revocation {
    fn new(signature: &Signature) -> Option<Self> {
        let soft = matches!(
            signature.revocation_reason_code(),
            Some(RevocationCode::KeySuperseded | RevocationCode::KeyRetired)
        );
        Some(Self { created: i64::from(signature.created()?.as_secs()), hard: !soft })
    }
}

impl Key {
    fn id(&self) -> String {
        match self {
            Self::Primary(key) => key.legacy_key_id().to_string(),
            Self::Sub(key) => key.legacy_key_id().to_string(),
        }
    }

    fn verify(&self, signature: &Signature, payload: &[u8]) -> Result<(), String> {
        let (params, result) = match self {
            Self::Primary(key) => (key.public_params(), signature.verify(key, payload)),
            Self::Sub(key) => (key.public_params(), signature.verify(key, payload)),
        };
        match params {
            PublicParams::RSA(rsa) => {
                let bytes = rsa.to_bytes().map_err(|e| e.to_string())?;
                let bits = bytes.first_chunk().map_or(0, |b: &[u8; 2]| u16::from_be_bytes(*b));
                if bits < MIN_RSA_BITS {
                    return Err(format!("RSA key of {bits} bits, at least {MIN_RSA_BITS} needed"));
                }
            }
            PublicParams::ECDSA(_)
            | PublicParams::EdDSALegacy(_)
            | PublicParams::Ed25519(_)
            | PublicParams::Ed448(_) => {}
            _ => return Err("a key algorithm that is not accepted".into()),
        }
        result.map_err(|e| e.to_string())
    }
}

/// A signature taken out of its armor, whose form is acceptable.
#[derive(Debug)]
pub(super) struct ParsedSignature {
    inner: Signature,
    created: i64,
    /// Key ids of those who claim to have made it.
    pub issuers: Vec<String>,
}

impl ParsedSignature {
    /// Reads exactly one armored signature of binary data, by a hash that resists collisions.
    pub(super) fn parse(armored: &str) -> Result<Self, String> {
        if armored.len() > MAX_ARMOR || !armored.starts_with(SIGNATURE) {
            return Err("not an armored OpenPGP signature".into());
        }
        let (mut all, _) =
            DetachedSignature::from_armor_many(armored.as_bytes()).map_err(|e| e.to_string())?;
        let inner = match (all.next(), all.next()) {
            (Some(Ok(one)), None) => one.signature,
            (Some(Err(e)), _) => return Err(e.to_string()),
            (None, _) => return Err("an empty signature".into()),
            (Some(_), Some(_)) => return Err("more than one signature".into()),
        };
        if inner.typ() != Some(SignatureType::Binary) {
            return Err("not a signature of binary data".into());
        }
        use HashAlgorithm::{Sha3_256, Sha3_512, Sha256, Sha384, Sha512};
        let hash = inner.hash_alg();
        if !hash.is_some_and(|h| matches!(h, Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512)) {
            let name = hash.map_or_else(|| "unknown".into(), |h| h.to_string());
            return Err(format!("hash algorithm {name} is not accepted"));
        }
        let config = inner.config().ok_or("an unknown version")?;
        let strange = |data: &SubpacketData| {
            use SubpacketData::{Experimental, Notation, Other};
            matches!(data, Experimental(..) | Other(..) | Notation(_))
        };
        if config.hashed_subpackets().any(|p| p.is_critical && strange(&p.data)) {
            return Err("a critical condition that is not understood".into());
        }
        if inner.signature_expiration_time().is_some_and(|d| d.as_secs() > 0) {
            return Err("it expires, so it can not vouch for history".into());
        }
        let created = inner.created().ok_or("no creation time")?;
        let mut issuers: Vec<_> = inner.issuer_key_id().iter().map(|id| id.to_string()).collect();
        for fingerprint in inner.issuer_fingerprint() {
            issuers.extend(key_id_of(fingerprint));
        }
        issuers.sort();
        issuers.dedup();
        if issuers.is_empty() || issuers.len() > 8 {
            return Err("it names no issuer, or too many".into());
        }
        let created = i64::from(created.as_secs());
        Ok(Self { inner, created, issuers })
    }
}

/// Each certificate of an armored text: its e-mail addresses and itself, armored on its own.
pub(super) fn identities(armored: &str) -> Result<Vec<(Vec<String>, String)>, String> {
    parse_certificates(armored)?
        .iter()
        .map(|cert| {
            let own = Certificate::new(cert)?;
            let mut emails: Vec<String> = Vec::new();
            for user in &cert.details.users {
                let valid: Vec<_> = user
                    .signatures
                    .iter()
                    .filter(|s| {
                        s.verify_certification(&cert.primary_key, Tag::UserId, &user.id).is_ok()
                    })
                    .collect();
                let revoked = valid.iter().any(|s| s.typ() == Some(SignatureType::CertRevocation));
                let email = user.id.as_str().and_then(email_of);
                if let Some(email) =
                    email.filter(|e| !revoked && !valid.is_empty() && !emails.contains(e))
                {
                    emails.push(email);
                }
            }
            if emails.is_empty() {
                return Err(format!("OpenPGP key {} names no e-mail address", own.fingerprint));
            }
            let text =
                cert.to_armored_string(ArmorOptions::default()).map_err(|e| e.to_string())?;
            Ok((emails, text))
        })
        .collect()
}

fn parse_certificates(armored: &str) -> Result<Vec<SignedPublicKey>, String> {
    let armored = armored.trim_start();
    if armored.len() > MAX_ARMOR || !armored.starts_with(CERTIFICATE) {
        return Err(format!("expected an armored OpenPGP certificate ({CERTIFICATE})"));
    }
    let (all, _) =
        SignedPublicKey::from_armor_many(armored.as_bytes()).map_err(|e| e.to_string())?;
    let all: Vec<_> = all.take(1000).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    if all.is_empty() { Err("no OpenPGP certificate in it".into()) } else { Ok(all) }
}

/// Bindings of the primary key: of its user ids, or the direct ones where those rule (version 6)
/// or where there are no user ids.
fn primary_bindings(cert: &SignedPublicKey) -> Vec<Binding> {
    let primary = &cert.primary_key;
    let created = i64::from(primary.created_at().as_secs());
    let bind = |s: &Signature| {
        let has_flags = s.config().is_some_and(|c| {
            c.hashed_subpackets().any(|p| matches!(p.data, SubpacketData::KeyFlags(_)))
        });
        // Keys from before key flags existed may do whatever their algorithm can.
        Binding::new(s, created, !has_flags || s.key_flags().sign())
    };
    let of_users = cert.details.users.iter().flat_map(|user| {
        user.signatures
            .iter()
            .filter(|s| s.typ() != Some(SignatureType::CertRevocation))
            .filter(|s| s.verify_certification(primary, Tag::UserId, &user.id).is_ok())
    });
    let direct = cert
        .details
        .direct_signatures
        .iter()
        .filter(|s| s.typ() == Some(SignatureType::Key) && s.verify_key(primary).is_ok());
    let mut of_users: Vec<_> = of_users.filter_map(bind).collect();
    let mut direct: Vec<_> = direct.filter_map(bind).collect();
    of_users.sort_by_key(|b| b.created);
    direct.sort_by_key(|b| b.created);
    let direct_rules = primary.version() == KeyVersion::V6 && !direct.is_empty();
    if of_users.is_empty() || direct_rules { direct } else { of_users }
}

/// The key id inside a fingerprint: its last 8 bytes in version 4, its first 8 in version 6.
fn key_id_of(fingerprint: &pgp::types::Fingerprint) -> Option<String> {
    let bytes = fingerprint.as_bytes();
    let id = match bytes.len() {
        20 => bytes.last_chunk::<8>()?,
        32 => bytes.first_chunk::<8>()?,
        _ => return None,
    };
    Some(hex::encode(id))
}

/// `Name (comment) <user@host>`, or the address alone.
fn email_of(user_id: &str) -> Option<String> {
    let inner = match user_id.rsplit_once('<') {
        Some((_, rest)) => rest.strip_suffix('>')?,
        None => user_id,
    };
    let plain = inner.contains('@') && !inner.contains([' ', ',', '*', '?', '!', '"', '<', '>']);
    (plain && !inner.chars().any(char::is_control)).then(|| inner.to_owned())
}
