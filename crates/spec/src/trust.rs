//! The trust file: whom an installation believes, versioned like a TUF root.
//!
//! `trust.json` holds a `signed` part and signatures of approvers over its canonical JSON
//! (SSHSIG, namespace [`NAMESPACE`]). Version 1 is the anchor and needs no signature: it is
//! pinned by its digest. Every later version names the digests of all its ancestors and is
//! signed by the threshold of its predecessor *and* of itself; `casemate-verify` checks that.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::canonical::{self, CanonicalError};
use crate::digest::{Sha256, Sha384};
use crate::error::Coded;

/// SSHSIG namespace of signatures over a trust file.
pub const NAMESPACE: &str = "casemate-trust";

/// Largest trust file that is read, in bytes.
pub const MAX_SIZE: usize = 4 << 20;

/// A trust file that can not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Not JSON, or a field this version does not know.
    #[error("trust file: {0}")]
    Syntax(String),
    /// A value that makes no sense.
    #[error("trust file: {field}: {problem}")]
    Value {
        /// Dotted name of the field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl Coded for TrustError {
    fn code(&self) -> &'static str {
        match self {
            Self::Syntax(_) => "CM-TRUST-0001",
            Self::Value { .. } => "CM-TRUST-0002",
        }
    }
    fn fix(&self) -> Option<String> {
        Some("get the trust file again from the approvers and compare its digest".into())
    }
}

/// A trust file with its signatures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustFile {
    /// What is believed.
    pub signed: Trust,
    /// Approvers' signatures over the canonical JSON of `signed`.
    pub signatures: Vec<TrustSignature>,
}

/// One approver's signature over the `signed` part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustSignature {
    /// Armored SSH signature (`ssh-keygen -Y sign`), namespace [`NAMESPACE`].
    pub sshsig: String,
}

/// The signed part of a trust file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Always `casemate-trust-v1`.
    #[serde(rename = "type")]
    pub format: String,
    /// 1, 2, 3, …
    pub version: u64,
    /// When it was made.
    pub created: Timestamp,
    /// Digests of versions 1 to `version - 1`, in that order.
    pub ancestors: Vec<Sha256>,
    /// The people who approve releases and administrative acts.
    pub approvers: Vec<Approver>,
    /// How many different approvers each kind of act needs.
    pub thresholds: Thresholds,
    /// The people whose commits are source.
    pub developers: Vec<Developer>,
    /// The log every statement is recorded in.
    pub ledger: LedgerTrust,
    /// The service that releases secrets.
    pub broker: BrokerTrust,
    /// The service that signs releases.
    pub signer: ServiceTrust,
    /// The workloads that may build: their measurements.
    pub builders: Vec<Sha384>,
    /// The TEEs whose evidence is accepted.
    pub tees: Vec<AcceptedTee>,
}

/// A person who approves. Several keys of one person count once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approver {
    /// The person.
    pub name: String,
    /// Their OpenSSH public keys (`ssh-ed25519 AAAA…`, without comment).
    pub keys: Vec<String>,
}

/// How many different approvers an act needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// To sign a release.
    pub release: usize,
    /// To put, grant or revoke a secret.
    pub admin: usize,
    /// To change the trust file.
    pub trust: usize,
}

/// A developer's key and when it is good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Developer {
    /// Who: an e-mail address as commits carry it, or a pattern with `*` and `?`.
    pub principals: Vec<String>,
    /// The key.
    pub key: DeveloperKey,
    /// Good from (inclusive).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_after: Option<Timestamp>,
    /// Good until (exclusive).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_before: Option<Timestamp>,
}

/// A key that signs commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum DeveloperKey {
    /// An OpenSSH public key without comment.
    Ssh(String),
    /// An armored OpenPGP certificate (RFC 9580).
    Openpgp(String),
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerTrust {
    /// Checkpoint origin (C2SP tlog-checkpoint).
    pub origin: String,
    /// Verifier key of the log (C2SP signed-note: `name+hash+base64`).
    pub vkey: String,
    /// Measurement of the log's enclave.
    pub measurement: Sha384,
}

/// The broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerTrust {
    /// SubjectPublicKeyInfo of the P-256 key that signs receipts and answers (base64 DER).
    pub key: String,
    /// SubjectPublicKeyInfo of the X25519 key to which secrets are sealed (base64 DER, RFC 8410).
    pub envelope_key: String,
    /// Measurement of the broker's enclave.
    pub measurement: Sha384,
}

/// A service with one P-256 signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceTrust {
    /// SubjectPublicKeyInfo (base64 DER).
    pub key: String,
    /// Measurement of its enclave.
    pub measurement: Sha384,
}

/// What kind of TEE evidence comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TeeKind {
    /// AMD SEV-SNP under AMD's own root.
    Snp,
    /// The simulated TEE: SEV-SNP format under an installation's own root. Hides nothing from
    /// whoever owns the machine.
    SimSnp,
}

impl TeeKind {
    /// Whether it is simulated.
    pub const fn is_simulated(self) -> bool {
        matches!(self, Self::SimSnp)
    }

    /// The name in files and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::SimSnp => "sim-snp",
        }
    }
}

/// A TEE whose evidence is accepted, under exactly one root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptedTee {
    /// The kind.
    pub kind: TeeKind,
    /// The only root certificate that is accepted (PEM): AMD's ARK of one product, or the
    /// simulated ARK of one installation.
    pub root: String,
    /// Which launch measurements are accepted.
    pub launch: LaunchRule,
    /// Lowest security version of each component that is accepted.
    pub min_tcb: SnpTcbFloor,
}

/// Which launch measurements are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum LaunchRule {
    /// The TEE measured the agent and nothing else: the launch measurement is the agent digest.
    Agent,
    /// The TEE measured a whole image: one of these.
    Images(Vec<Sha384>),
}

/// Lowest accepted security versions of SEV-SNP firmware (AMD 56860, TCB_VERSION).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpTcbFloor {
    /// FMC (Turin and later; 0 elsewhere).
    pub fmc: u8,
    /// PSP boot loader.
    pub bootloader: u8,
    /// PSP operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode patch level.
    pub microcode: u8,
}

impl TrustFile {
    /// Parses and validates a trust file. Its signatures are checked by `casemate-verify`.
    ///
    /// # Errors
    /// [`TrustError`] with the field at fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, TrustError> {
        if bytes.len() > MAX_SIZE {
            return Err(TrustError::Syntax(format!("larger than {MAX_SIZE} bytes")));
        }
        let file: Self =
            serde_json::from_slice(bytes).map_err(|e| TrustError::Syntax(e.to_string()))?;
        file.signed.check()?;
        Ok(file)
    }
}

impl Trust {
    /// The value of the `type` field.
    pub const FORMAT: &str = "casemate-trust-v1";

    /// SHA-256 over the canonical JSON of the signed part: how a version is named everywhere.
    ///
    /// # Errors
    /// If `version` is above 2^53.
    pub fn digest(&self) -> Result<Sha256, CanonicalError> {
        canonical::sha256(self)
    }

    /// Digest of version 1: the name of the installation.
    ///
    /// # Errors
    /// As [`Self::digest`].
    pub fn root_digest(&self) -> Result<Sha256, CanonicalError> {
        self.ancestors.first().map_or_else(|| self.digest(), |d| Ok(*d))
    }

    /// Whether `digest` is this version or one of its ancestors.
    pub fn descends_from(&self, digest: &Sha256) -> bool {
        self.ancestors.contains(digest) || self.digest().is_ok_and(|own| own == *digest)
    }

    /// The approver who holds `key`, an OpenSSH public key as `TYPE BASE64` (a comment is ignored).
    pub fn approver_of(&self, key: &str) -> Option<&Approver> {
        let wanted = key_words(key)?;
        self.approvers.iter().find(|a| a.keys.iter().any(|k| key_words(k) == Some(wanted)))
    }

    /// Checks every rule a trust file must obey by itself.
    ///
    /// # Errors
    /// [`TrustError::Value`] with the field at fault.
    pub fn check(&self) -> Result<(), TrustError> {
        let bad = |field: &'static str, problem: String| Err(TrustError::Value { field, problem });
        if self.format != Self::FORMAT {
            return bad("type", format!("{:?}, expected {:?}", self.format, Self::FORMAT));
        }
        if self.version == 0 || self.ancestors.len() as u64 != self.version - 1 {
            return bad(
                "ancestors",
                format!("{} for version {}", self.ancestors.len(), self.version),
            );
        }
        let mut names = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for approver in &self.approvers {
            if approver.name.trim().is_empty() || !names.insert(approver.name.to_lowercase()) {
                return bad("approvers", format!("name {:?} is empty or taken", approver.name));
            }
            if approver.keys.is_empty() {
                return bad("approvers", format!("{:?} has no key", approver.name));
            }
            for key in &approver.keys {
                match key_words(key) {
                    Some(words) if keys.insert(words) => {}
                    Some(_) => return bad("approvers", format!("a key is listed twice: {key}")),
                    None => return bad("approvers", format!("{key:?} is no OpenSSH public key")),
                }
            }
        }
        let Thresholds { release, admin, trust } = self.thresholds;
        for threshold in [release, admin, trust] {
            if threshold == 0 || threshold > self.approvers.len() {
                return bad(
                    "thresholds",
                    format!("{threshold} of {} approvers", self.approvers.len()),
                );
            }
        }
        if let Some(d) = self.developers.iter().find(|d| d.principals.is_empty()) {
            return bad("developers", format!("a key without a principal: {:?}", d.key));
        }
        if self.tees.is_empty() {
            return bad("tees", "none is accepted, so nothing can be verified".into());
        }
        if self.builders.is_empty() {
            return bad("builders", "none is accepted, so nothing can be built".into());
        }
        Ok(())
    }
}

/// The type and base64 words of an OpenSSH public key line.
fn key_words(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_ascii_whitespace();
    let (kind, body) = (words.next()?, words.next()?);
    (kind.starts_with("ssh-") || kind.starts_with("ecdsa-") || kind.starts_with("sk-"))
        .then_some((kind, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../golden/trust-v1.json");

    fn golden() -> TrustFile {
        TrustFile::parse(GOLDEN).expect("golden file")
    }

    #[test]
    fn reads_the_golden_file_and_keeps_its_digest() {
        let file = golden();
        assert_eq!(
            file.signed.digest().expect("digest").to_string(),
            include_str!("../golden/trust-v1.sha256").trim()
        );
        assert_eq!(
            file.signed.root_digest().expect("root digest"),
            file.signed.digest().expect("digest")
        );
    }

    #[test]
    fn finds_the_approver_whatever_the_comment() {
        let trust = golden().signed;
        let key = format!("{} someone@host", trust.approvers[0].keys[0]);
        assert_eq!(trust.approver_of(&key).map(|a| a.name.as_str()), Some("alice"));
        assert!(trust.approver_of("ssh-ed25519 AAAA").is_none());
    }

    #[test]
    fn refuses_rules_that_contradict_each_other() {
        let breaks: [fn(&mut Trust); 8] = [
            |t| t.format = "x".into(),
            |t| t.version = 2,
            |t| t.thresholds.release = 0,
            |t| t.thresholds.trust = 9,
            |t| t.approvers[1].name = "ALICE".into(),
            |t| t.approvers[1].keys = t.approvers[0].keys.clone(),
            |t| t.tees.clear(),
            |t| t.builders.clear(),
        ];
        assert!(golden().signed.check().is_ok());
        for (i, break_it) in breaks.iter().enumerate() {
            let mut trust = golden().signed;
            break_it(&mut trust);
            assert!(trust.check().is_err(), "case {i} was accepted");
        }
    }

    #[test]
    fn refuses_unknown_fields() {
        let text =
            String::from_utf8_lossy(GOLDEN).replacen("\"version\"", "\"x\":1,\"version\"", 1);
        assert!(matches!(TrustFile::parse(text.as_bytes()), Err(TrustError::Syntax(_))));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(at in 0usize..GOLDEN.len(), byte: u8) {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] = byte;
            let _ = TrustFile::parse(&bytes);
        }
    }
}
