//! The verdict: evidence compared with what the verifier knows and whom it trusts.
//!
//! Every check has a name and a code and says what was expected and what was found. All checks
//! that can be made are made, so that a verdict names everything wrong, not only the first thing.
//! Claims come out only if every check passed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use casemate_spec::binding::{Purpose, report_data};
use casemate_spec::trust::{AcceptedTee, LaunchRule, SnpTcbFloor, TeeKind};
use casemate_spec::workload::Workload;
use casemate_spec::{Sha256, Sha384};
use serde::Serialize;

use crate::error::EvidenceError;
use crate::record::{Evidence, Record};
use crate::snp::{
    CertTable, Certificate, ChainError, Endorsement, Product, Report, ReportFields, SigningKey,
    TcbVersion, amd, endorse,
};

/// What the verifier knows by itself: for what, with which nonce and for which key it wants
/// evidence.
#[derive(Debug, Clone, Copy)]
pub struct Expect<'a> {
    /// What the key is for.
    pub purpose: Purpose,
    /// The verifier's own nonce, if it gave one.
    pub nonce: Option<&'a [u8; 32]>,
    /// SubjectPublicKeyInfo (DER) of the key; empty if none (only for [`Purpose::Attest`]).
    pub spki: &'a [u8],
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether it passed.
    pub passed: bool,
    /// The stable code of its failure.
    pub code: &'static str,
    /// What passes.
    pub expected: String,
    /// What was there.
    pub found: String,
}

/// A verdict with every check that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Appraisal {
    /// What is now known, if every check passed.
    pub claims: Option<Claims>,
    /// The checks, in the order they decide.
    pub checks: Vec<Check>,
}

impl Appraisal {
    /// The claims, or the first check that failed.
    ///
    /// # Errors
    /// [`EvidenceError::Refused`] with that check.
    pub fn result(&self) -> Result<&Claims, EvidenceError> {
        match (&self.claims, self.checks.iter().find(|c| !c.passed)) {
            (Some(claims), None) => Ok(claims),
            (_, Some(check)) => Err(EvidenceError::Refused {
                check: check.name,
                code: check.code,
                expected: check.expected.clone(),
                found: check.found.clone(),
            }),
            (None, None) => Err(EvidenceError::Record("nothing was checked".into())),
        }
    }
}

/// What is known of an enclave after its evidence was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// Which TEE.
    pub tee: TeeKind,
    /// Whether it is simulated, and hides nothing from whoever owns the machine.
    pub simulated: bool,
    /// The workload measurement.
    pub measurement: Sha384,
    /// Its four inputs.
    pub workload: Workload,
    /// The TEE's own launch measurement.
    pub launch: Sha384,
    /// Whether it can be debugged. Always false: such evidence is refused.
    pub debug: bool,
    /// What only this kind of TEE says.
    pub platform: Platform,
}

/// What only one kind of TEE says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Platform {
    /// AMD SEV-SNP, real or simulated.
    Snp(Box<SnpClaims>),
}

/// What an SEV-SNP report and the certificate of its key say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnpClaims {
    /// Processor family.
    pub product: Product,
    /// Which kind of key signed.
    pub signing_key: SigningKey,
    /// The cloud provider that holds the key, for a VLEK.
    pub provider: Option<String>,
    /// SHA-256 of the root certificate.
    pub root: Sha256,
    /// SHA-256 of the certificate of the key.
    pub certificate: Sha256,
    /// Everything the report says.
    pub report: ReportFields,
}

/// Appraises one record at `now` (Unix seconds). To appraise many, keep a [`Verifier`].
pub fn appraise(record: &Record, expect: &Expect<'_>, tees: &[AcceptedTee], now: i64) -> Appraisal {
    Verifier::new().appraise(record, expect, tees, now)
}

/// Appraises records and remembers the certificate chains it has verified.
///
/// Only verified chains are kept, named by the digest of root and certificate table; everything
/// that depends on the report, the policy or the time is checked each time.
#[derive(Debug, Default)]
pub struct Verifier {
    chains: Mutex<HashMap<Sha256, Arc<Endorsement>>>,
}

/// How many chains a [`Verifier`] keeps.
const MAX_CHAINS: usize = 4096;

impl Verifier {
    /// A verifier that remembers nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appraises one record at `now` (Unix seconds).
    pub fn appraise(
        &self,
        record: &Record,
        expect: &Expect<'_>,
        tees: &[AcceptedTee],
        now: i64,
    ) -> Appraisal {
        let Evidence::Snp { report, certificates } = record.evidence();
        let mut refused: Option<Appraisal> = None;
        let mut failures = Vec::new();
        for tee in tees {
            match self.endorsement(tee, report, certificates) {
                Ok(endorsement) => {
                    let subject = Subject { record, report, expect, tee, now };
                    let appraisal = subject.appraise(&endorsement);
                    if appraisal.claims.is_some() {
                        return appraisal;
                    }
                    refused.get_or_insert(appraisal);
                }
                Err(check) => failures.push(check),
            }
        }
        refused.unwrap_or_else(|| Appraisal { claims: None, checks: vec![decisive(failures)] })
    }

    fn endorsement(
        &self,
        tee: &AcceptedTee,
        report: &Report,
        table: &CertTable,
    ) -> Result<Arc<Endorsement>, Check> {
        let signing_key = report.fields().key_info.signing_key;
        let name = chain_name(tee, table, signing_key);
        if let Some(known) = self.lock().get(&name) {
            return Ok(Arc::clone(known));
        }
        let root = Certificate::parse(tee.root.as_bytes()).map_err(|e| {
            failed("chain", "CM-EVID-0007", "a root certificate in the trust file", &e.to_string())
        })?;
        let is_amds = amd::product_of_root(root.as_der()).is_some();
        if is_amds == tee.kind.is_simulated() {
            let found = format!("{} of {}", tee.kind.as_str(), root.subject());
            let expected = "a trust file that gives AMD's roots, and only those, to the kind snp";
            return Err(failed("root", "CM-EVID-0019", expected, &found));
        }
        let chain = endorse(&root, table, signing_key).map_err(|e| chain_check(&e, &root))?;
        let chain = Arc::new(chain);
        let mut chains = self.lock();
        if chains.len() >= MAX_CHAINS {
            chains.clear();
        }
        chains.insert(name, Arc::clone(&chain));
        Ok(chain)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Sha256, Arc<Endorsement>>> {
        // A panic elsewhere cannot leave the map half-written.
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything one appraisal compares.
struct Subject<'a> {
    record: &'a Record,
    report: &'a Report,
    expect: &'a Expect<'a>,
    tee: &'a AcceptedTee,
    now: i64,
}

impl Subject<'_> {
    fn appraise(&self, key: &Endorsement) -> Appraisal {
        let mut checks = vec![check(
            "root",
            "CM-EVID-0010",
            true,
            "a root of the trust file",
            &format!("{} root, sha256 {}", self.tee.kind.as_str(), key.root()),
        )];
        self.endorsement_checks(key, &mut checks);
        self.policy_checks(&mut checks);
        let measurement = self.binding_checks(&mut checks);
        let claims = match measurement {
            Some(measurement) if checks.iter().all(|c| c.passed) => {
                Some(self.claims(key, measurement))
            }
            _ => None,
        };
        Appraisal { claims, checks }
    }

    /// Whether the key is good now, was made for this very firmware and chip, and signed this.
    fn endorsement_checks(&self, key: &Endorsement, checks: &mut Vec<Check>) {
        let fields = self.report.fields();
        for (kind, from, to) in key.validity() {
            checks.push(check(
                "validity",
                "CM-EVID-0013",
                (*from..=*to).contains(&self.now),
                &format!("{} valid at {}", kind.as_str(), self.now),
                &format!("valid from {from} to {to} (Unix seconds)"),
            ));
        }
        let info = fields.key_info;
        checks.push(check(
            "signing key",
            "CM-EVID-0014",
            info.signing_key == key.signing_key() && !info.mask_chip_key,
            &format!("{}, not masked", key.signing_key().as_str()),
            if info.mask_chip_key { "masked" } else { info.signing_key.as_str() },
        ));
        // Version 2 does not tell the product; its layout is that of Milan and Genoa.
        let product_fits = match fields.product {
            Some(product) => product == key.product(),
            None => key.product() != Product::Turin,
        };
        checks.push(check(
            "product",
            "CM-EVID-0015",
            product_fits,
            key.product().as_str(),
            fields.product.map_or("none (version 2)", Product::as_str),
        ));
        checks.push(check(
            "certificate's firmware",
            "CM-EVID-0016",
            fields.reported_tcb == key.tcb(),
            &key.tcb().to_string(),
            &fields.reported_tcb.to_string(),
        ));
        checks.push(chip_check(key, &fields.chip_id));
        checks.push(check(
            "signature",
            "CM-EVID-0018",
            key.signed(self.report),
            "a signature of the report by the certified key",
            "the report's signature",
        ));
    }

    /// Whether the TEE is set up as the trust file demands.
    fn policy_checks(&self, checks: &mut Vec<Check>) {
        let fields = self.report.fields();
        let policy = fields.policy;
        checks.push(check(
            "debug",
            "CM-EVID-0020",
            !policy.debug(),
            "debugging not allowed",
            if policy.debug() { "debugging allowed" } else { "debugging not allowed" },
        ));
        let vmpl = fields.vmpl;
        checks.push(check("privilege level", "CM-EVID-0021", vmpl == 0, "0", &vmpl.to_string()));
        checks.push(check(
            "guest policy",
            "CM-EVID-0022",
            !policy.is_unknown() && !policy.migration_agent() && !fields.has_migration_agent(),
            "bit 17 set, no migration agent, no bits of unknown meaning",
            &format!(
                "policy {:#x}, migration agent {}",
                policy.0,
                if fields.has_migration_agent() { "present" } else { "absent" }
            ),
        ));
        for (name, tcb) in [("reported", fields.reported_tcb), ("launch", fields.launch_tcb)] {
            let floor = self.tee.min_tcb;
            checks.push(check(
                "firmware floor",
                "CM-EVID-0023",
                reaches(&tcb, &floor),
                &format!("at least {}", floor_text(&floor)),
                &format!("{name} {tcb}"),
            ));
        }
    }

    /// Whether it is this workload's, for this purpose, nonce and key.
    fn binding_checks(&self, checks: &mut Vec<Check>) -> Option<Sha384> {
        let (expect, workload) = (self.expect, self.record.workload());
        let launch = self.report.fields().measurement;
        let (expected, passed) = match &self.tee.launch {
            LaunchRule::Agent => {
                (format!("the agent {}", workload.agent), launch == workload.agent)
            }
            LaunchRule::Images(images) => (
                format!("one of {} images of the trust file", images.len()),
                images.contains(&launch),
            ),
            _ => ("a launch rule this program knows".into(), false),
        };
        checks.push(check("launch", "CM-EVID-0030", passed, &expected, &launch.to_string()));
        let purpose = expect.purpose;
        checks.push(check(
            "nonce",
            "CM-EVID-0031",
            expect.nonce.is_some() || !purpose.needs_nonce(),
            &format!("a nonce, if {} needs one", purpose.as_str()),
            if expect.nonce.is_some() { "a nonce" } else { "none" },
        ));
        checks.push(check(
            "production",
            "CM-EVID-0033",
            workload.production || purpose != Purpose::SecretRelease,
            "a production workload, if it is to receive secrets",
            if workload.production { "production" } else { "not production" },
        ));
        checks.push(check(
            "key",
            "CM-EVID-0034",
            !expect.spki.is_empty() || purpose == Purpose::Attest,
            &format!("a key, if {} needs one", purpose.as_str()),
            if expect.spki.is_empty() { "none" } else { "a key" },
        ));
        // A workload always has a measurement; if it had not, nothing would be claimed.
        let measurement = workload.measurement().ok()?;
        let nonce = expect.nonce.map_or(&[][..], <[u8; 32]>::as_slice);
        let wanted = report_data(purpose, nonce, expect.spki, &measurement);
        let found = self.report.fields().report_data;
        checks.push(check(
            "report data",
            "CM-EVID-0032",
            found == wanted,
            &hex::encode(wanted),
            &if found == wanted {
                hex::encode(found)
            } else {
                format!("{} ({})", hex::encode(found), explain(&found, expect, nonce, &measurement))
            },
        ));
        Some(measurement)
    }

    fn claims(&self, key: &Endorsement, measurement: Sha384) -> Claims {
        let fields = self.report.fields().clone();
        Claims {
            tee: self.tee.kind,
            simulated: self.tee.kind.is_simulated(),
            measurement,
            workload: self.record.workload().clone(),
            launch: fields.measurement,
            debug: fields.policy.debug(),
            platform: Platform::Snp(Box::new(SnpClaims {
                product: key.product(),
                signing_key: key.signing_key(),
                provider: key.provider().map(Into::into),
                root: key.root(),
                certificate: key.certificate(),
                report: fields,
            })),
        }
    }
}

/// A chip key must be of the very chip; a provider's key is of any chip of the provider.
fn chip_check(key: &Endorsement, chip_id: &[u8; 64]) -> Check {
    let hidden = chip_id.iter().all(|b| *b == 0);
    let found = if hidden { "hidden (all zero)".into() } else { hex::encode(chip_id) };
    let (expected, passed) = match (key.hardware_id(), key.provider()) {
        (Some(id), _) => (hex::encode(id), key.is_chip(chip_id)),
        (None, Some(provider)) => (format!("any chip of {provider}"), true),
        (None, None) => ("a certified chip".into(), false),
    };
    check("chip", "CM-EVID-0017", passed, &expected, &found)
}

/// Which of the inputs are wrong, as far as it can be told.
fn explain(found: &[u8; 64], expect: &Expect<'_>, nonce: &[u8], workload: &Sha384) -> &'static str {
    let is =
        |purpose, nonce: &[u8], spki: &[u8]| report_data(purpose, nonce, spki, workload) == *found;
    let purposes =
        [Purpose::SecretRelease, Purpose::StatementKey, Purpose::ServiceKey, Purpose::Attest];
    if purposes.into_iter().any(|p| is(p, nonce, expect.spki)) {
        "made for another purpose"
    } else if is(expect.purpose, b"", expect.spki) {
        "made without a nonce"
    } else if is(expect.purpose, nonce, b"") {
        "made for no key"
    } else {
        "made with another nonce, for another key or for another workload"
    }
}

/// Of the reasons why no accepted TEE fits, the one that tells most: a chain that is wrong under a
/// root it belongs to, before a chain of another root.
fn decisive(failures: Vec<Check>) -> Check {
    let of_other_root = |c: &Check| c.code == "CM-EVID-0010";
    let mut failures = failures;
    let at = failures.iter().position(|c| !of_other_root(c)).unwrap_or(0);
    if failures.is_empty() {
        return failed("root", "CM-EVID-0010", "a root of the trust file", "no accepted TEE in it");
    }
    failures.swap_remove(at)
}

fn chain_check(error: &ChainError, root: &Certificate) -> Check {
    let found = error.to_string();
    match error {
        ChainError::Root { .. } => {
            let expected =
                format!("a chain to {} (sha256 {})", root.subject(), Sha256::of(root.as_der()));
            failed("root", "CM-EVID-0010", &expected, &found)
        }
        ChainError::Missing { kind } => {
            failed("chain", "CM-EVID-0011", &format!("a {}", kind.as_str()), &found)
        }
        ChainError::Unsigned => failed("signing key", "CM-EVID-0014", "VCEK or VLEK", &found),
        ChainError::Certificate { .. } => {
            let expected = format!("a valid chain to {}", root.subject());
            failed("chain", "CM-EVID-0012", &expected, &found)
        }
    }
}

fn chain_name(tee: &AcceptedTee, table: &CertTable, key: SigningKey) -> Sha256 {
    let mut name = Vec::with_capacity(tee.root.len() + table.as_bytes().len() + 24);
    name.extend_from_slice(tee.kind.as_str().as_bytes());
    name.push(0);
    name.extend_from_slice(key.as_str().as_bytes());
    name.push(0);
    name.extend_from_slice(&tee.root.len().to_be_bytes());
    name.extend_from_slice(tee.root.as_bytes());
    name.extend_from_slice(table.as_bytes());
    Sha256::of(&name)
}

fn reaches(tcb: &TcbVersion, floor: &SnpTcbFloor) -> bool {
    tcb.fmc.unwrap_or(0) >= floor.fmc
        && tcb.bootloader >= floor.bootloader
        && tcb.tee >= floor.tee
        && tcb.snp >= floor.snp
        && tcb.microcode >= floor.microcode
}

fn floor_text(floor: &SnpTcbFloor) -> String {
    let SnpTcbFloor { fmc, bootloader, tee, snp, microcode } = floor;
    format!("fmc {fmc} bootloader {bootloader} tee {tee} snp {snp} microcode {microcode}")
}

fn check(
    name: &'static str,
    code: &'static str,
    passed: bool,
    expected: &str,
    found: &str,
) -> Check {
    Check { name, passed, code, expected: expected.into(), found: found.into() }
}

fn failed(name: &'static str, code: &'static str, expected: &str, found: &str) -> Check {
    check(name, code, false, expected, found)
}
