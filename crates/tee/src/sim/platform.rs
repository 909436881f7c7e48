//! The simulated machine: root, chip, endorsement key and platform secret, in one file.
//!
//! The keys of the root and of the intermediate are used once, to make the chain, and forgotten.
//! What remains is what a chip would hold: its endorsement key and its secret.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_evidence::snp::{
    CertKind, CertTable, Certificate, Product, REPORT_SIZE, Report, ReportBuilder, SigningKey,
    TcbVersion, endorse,
};
use casemate_spec::Sha384;
use casemate_spec::trust::{AcceptedTee, LaunchRule, SnpTcbFloor, TeeKind};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, date_time_ymd,
};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::TeeError;
use crate::sealing;

const FILE: &str = "platform.json";
const FORMAT: &str = "casemate-sim-platform-v1";
const MAX_SIZE: u64 = 64 << 10;
const DERIVED_KEY_DOMAIN: &[u8] = b"casemate-sim-derived-key-v1\0";

/// The chip poses as a Genoa (family 19h, model 11h, stepping 1).
const CPUID: [u8; 3] = [0x19, 0x11, 0x01];
const PRODUCT: Product = Product::Genoa;
const PRODUCT_NAME: &str = "Genoa-Simulated";
const TCB: TcbVersion = TcbVersion { fmc: None, bootloader: 10, tee: 0, snp: 23, microcode: 84 };
/// Build 40, minor 55, major 1.
const FIRMWARE: [u8; 3] = [40, 55, 1];
/// Bit 17, which is always set, and multithreading allowed.
const POLICY: u64 = 1 << 17 | 1 << 16;
const POLICY_DEBUG: u64 = 1 << 19;
/// Multithreading on, error correction on, alias check complete.
const PLATFORM_INFO: u64 = 0x25;
const DAY: u64 = 24 * 60 * 60;
const LIFETIME_DAYS: u64 = 25 * 365;

/// A simulated machine with its keys.
pub struct Platform {
    root_pem: String,
    table: CertTable,
    key: EcdsaKeyPair,
    secret: Zeroizing<[u8; 32]>,
    chip_id: [u8; 64],
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform")
            .field("chip_id", &hex::encode(self.chip_id))
            .finish_non_exhaustive()
    }
}

/// What the file holds. Keys are wiped on drop.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: String,
    /// PEM.
    ark: String,
    /// PEM.
    ask: String,
    /// PEM.
    vcek: String,
    /// PKCS #8, base64.
    vcek_key: String,
    /// 32 bytes, base64.
    secret: String,
}

impl Platform {
    /// Makes a platform in `dir`, which is made if absent. Its file is readable by its owner only,
    /// and is there whole or not at all.
    ///
    /// # Errors
    /// [`TeeError::PlatformExists`] if there is one already: its root may be trusted somewhere.
    pub fn create(dir: &Path) -> Result<Self, TeeError> {
        let path = dir.join(FILE);
        if std::fs::symlink_metadata(&path).is_ok() {
            return Err(TeeError::PlatformExists(path));
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(TeeError::platform_file("making the directory of", &path))?;
        let stored = Stored::generate().map_err(|e| problem(&path, e.to_string()))?;
        let platform = Self::from_stored(&stored, &path)?;
        let json = serde_json::to_vec_pretty(&stored).map_err(|e| problem(&path, e.to_string()))?;
        write_new(&path, &Zeroizing::new(json))?;
        Ok(platform)
    }

    /// Reads the platform in `dir`.
    ///
    /// # Errors
    /// If the file is absent, readable by others, malformed, or its parts do not fit together.
    pub fn load(dir: &Path) -> Result<Self, TeeError> {
        let path = dir.join(FILE);
        let json = read_private(&path)?;
        let stored: Stored =
            serde_json::from_slice(&json).map_err(|e| problem(&path, e.to_string()))?;
        if stored.format != FORMAT {
            return Err(problem(&path, format!("format {:?}, expected {FORMAT:?}", stored.format)));
        }
        Self::from_stored(&stored, &path)
    }

    /// Its root certificate, PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// What a trust file says to accept exactly this platform.
    pub fn accepted_tee(&self) -> AcceptedTee {
        AcceptedTee {
            kind: TeeKind::SimSnp,
            root: self.root_pem.clone(),
            launch: LaunchRule::Agent,
            min_tcb: SnpTcbFloor {
                fmc: 0,
                bootloader: TCB.bootloader,
                tee: TCB.tee,
                snp: TCB.snp,
                microcode: TCB.microcode,
            },
        }
    }

    /// The certificate table it hands to guests.
    pub fn certificates(&self) -> &[u8] {
        self.table.as_bytes()
    }

    /// A signed report of a guest.
    pub(super) fn report(
        &self,
        launch: &super::Launch,
        report_id: &[u8; 32],
        report_data: &[u8; 64],
    ) -> Result<[u8; REPORT_SIZE], TeeError> {
        let failed = |_| TeeError::Crypto("signing a report");
        let mut report = ReportBuilder {
            version: 5,
            policy: policy(launch.debug),
            vmpl: 0,
            platform_info: PLATFORM_INFO,
            key_info: 0,
            report_data: *report_data,
            measurement: launch.agent,
            report_id: *report_id,
            tcb: TCB,
            cpuid: CPUID,
            chip_id: self.chip_id,
            firmware: FIRMWARE,
        }
        .build();
        let signed = self
            .key
            .sign(&SystemRandom::new(), ReportBuilder::signed_part(&report))
            .map_err(failed)?;
        let mut signature = [0; 96];
        signature.copy_from_slice(signed.as_ref().get(..96).ok_or(TeeError::Crypto("signing"))?);
        ReportBuilder::put_signature(&mut report, &signature);
        Ok(report)
    }

    /// The sealing key of a guest: another for another platform, agent or policy.
    pub(super) fn derived_key(
        &self,
        launch: &super::Launch,
    ) -> Result<Zeroizing<[u8; 32]>, TeeError> {
        let policy = policy(launch.debug).to_le_bytes();
        sealing::hkdf(&self.secret, &[DERIVED_KEY_DOMAIN, launch.agent.as_bytes(), &policy])
    }

    fn from_stored(stored: &Stored, path: &Path) -> Result<Self, TeeError> {
        let bad = |text: String| problem(path, text);
        let root = Certificate::parse(stored.ark.as_bytes()).map_err(|e| bad(e.to_string()))?;
        let der = |pem: &str| Certificate::parse(pem.as_bytes()).map(|c| c.as_der().to_vec());
        let ask = der(&stored.ask).map_err(|e| bad(e.to_string()))?;
        let vcek = der(&stored.vcek).map_err(|e| bad(e.to_string()))?;
        let table = CertTable::build(&[
            (CertKind::Ark, root.as_der()),
            (CertKind::Ask, &ask),
            (CertKind::Vcek, &vcek),
        ])
        .map_err(|e| bad(e.to_string()))?;
        let key = Zeroizing::new(
            BASE64_STANDARD.decode(&stored.vcek_key).map_err(|e| bad(format!("key: {e}")))?,
        );
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &key)
            .map_err(|e| bad(format!("key: {e}")))?;
        let bytes = Zeroizing::new(
            BASE64_STANDARD.decode(&stored.secret).map_err(|e| bad(format!("secret: {e}")))?,
        );
        let mut secret = Zeroizing::new([0; 32]);
        if bytes.len() != secret.len() {
            return Err(bad(format!("secret of {} bytes, expected 32", bytes.len())));
        }
        secret.copy_from_slice(&bytes);
        let endorsement =
            endorse(&root, &table, SigningKey::Vcek).map_err(|e| bad(e.to_string()))?;
        let mut chip_id = [0; 64];
        match endorsement.hardware_id() {
            Some(id) if id.len() == chip_id.len() => chip_id.copy_from_slice(id),
            _ => return Err(bad("its certificate names no chip".into())),
        }
        let platform = Self { root_pem: stored.ark.clone(), table, key, secret, chip_id };
        let launch = super::Launch { agent: Sha384([0; 48]), debug: false };
        let trial = platform.report(&launch, &[0; 32], &[0; 64])?;
        let trial = Report::parse(&trial).map_err(|e| bad(e.to_string()))?;
        let fits = endorsement.tcb() == TCB && endorsement.product() == PRODUCT;
        if !fits || !endorsement.signed(&trial) {
            return Err(bad("its key and its certificate do not belong together".into()));
        }
        Ok(platform)
    }
}

const fn policy(debug: bool) -> u64 {
    if debug { POLICY | POLICY_DEBUG } else { POLICY }
}

impl Stored {
    /// A new chip under a new root.
    fn generate() -> Result<Self, rcgen::Error> {
        let mut chip_id = [0; 64];
        let mut secret = Zeroizing::new([0; 32]);
        let random = aws_lc_rs::rand::fill(&mut chip_id)
            .and_then(|()| aws_lc_rs::rand::fill(secret.as_mut_slice()));
        random.map_err(|_| rcgen::Error::RingUnspecified)?;
        // A name of its own, so that a verdict can say whose root it is.
        let name = hex::encode(&chip_id[..4]);
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384);
        let (ark_key, ask_key, vcek_key) = (key()?, key()?, key()?);
        let ark_params = issuer_params(&format!("ARK-Simulated-{name}"), None);
        let ark = ark_params.self_signed(&ark_key)?;
        let ark_issuer = Issuer::from_params(&ark_params, &ark_key);
        let ask_params = issuer_params(&format!("SEV-Simulated-{name}"), Some(0));
        let ask = ask_params.signed_by(&ask_key, &ark_issuer)?;
        let ask_issuer = Issuer::from_params(&ask_params, &ask_key);
        let mut vcek_params = params("SEV-VCEK");
        vcek_params.custom_extensions = statement(&chip_id);
        let vcek = vcek_params.signed_by(&vcek_key, &ask_issuer)?;
        let vcek_der = Zeroizing::new(vcek_key.serialize_der());
        Ok(Self {
            format: FORMAT.into(),
            ark: ark.pem(),
            ask: ask.pem(),
            vcek: vcek.pem(),
            vcek_key: BASE64_STANDARD.encode(&*vcek_der),
            secret: BASE64_STANDARD.encode(*secret),
        })
    }
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Casemate simulated TEE");
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    // A day back, for machines whose clocks differ.
    let from = date_time_ymd(1970, 1, 1) + Duration::from_secs(now.saturating_sub(DAY));
    params.not_before = from;
    params.not_after = from + Duration::from_secs(LIFETIME_DAYS * DAY);
    params
}

fn issuer_params(common_name: &str, path_length: Option<u8>) -> CertificateParams {
    let mut params = params(common_name);
    params.is_ca = IsCa::Ca(
        path_length.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained),
    );
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// What a VCEK says about its key (57230, section 3).
fn statement(chip_id: &[u8; 64]) -> Vec<CustomExtension> {
    let extension = |arcs: &[u64], value: Vec<u8>| {
        let id = [&[1, 3, 6, 1, 4, 1, 3704, 1], arcs].concat();
        CustomExtension::from_oid_content(&id, value)
    };
    let mut name = vec![0x16, PRODUCT_NAME.len().to_le_bytes()[0]];
    name.extend_from_slice(PRODUCT_NAME.as_bytes());
    let mut out = vec![extension(&[1], integer(0)), extension(&[2], name)];
    for (number, value) in [1, 2, 4, 5, 6, 7, 3, 8].into_iter().zip(TCB.to_bytes()) {
        out.push(extension(&[3, number], integer(value)));
    }
    out.push(extension(&[4], chip_id.to_vec()));
    out
}

/// A DER INTEGER of one byte; the high bit would be the sign.
fn integer(value: u8) -> Vec<u8> {
    if value < 0x80 { vec![2, 1, value] } else { vec![2, 2, 0, value] }
}

/// Writes a file that is not there yet: whole, owner only, durable, or not at all.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), TeeError> {
    let fail = |e: io::Error| match e.kind() {
        io::ErrorKind::AlreadyExists => TeeError::PlatformExists(path.into()),
        _ => TeeError::platform_file("writing", path)(e),
    };
    let temporary = temporary_beside(path)?;
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // A link, not a rename: it never replaces a platform that came meanwhile.
        std::fs::hard_link(&temporary, path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    let written = write();
    let _ = std::fs::remove_file(&temporary);
    written.map_err(fail)
}

fn temporary_beside(path: &Path) -> Result<PathBuf, TeeError> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| TeeError::Crypto("naming a file"))?;
    Ok(path.with_extension(format!("{}.tmp", hex::encode(random))))
}

/// Reads a file that nobody but its owner may read.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, TeeError> {
    let fail = |e| TeeError::platform_file("reading", path)(e);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if !metadata.is_file() || metadata.len() > MAX_SIZE {
        return Err(problem(path, format!("not a file of at most {MAX_SIZE} bytes")));
    }
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(problem(path, format!("mode {mode:03o}, others may read the keys: chmod 600")));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SIZE as usize + 1));
    file.take(MAX_SIZE).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

fn problem(path: &Path, problem: String) -> TeeError {
    TeeError::Platform { path: path.into(), problem }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_platform_is_the_same_after_it_was_loaded() {
        let dir = tempfile::tempdir().expect("directory");
        let made = Platform::create(&dir.path().join("sim")).expect("platform");
        let loaded = Platform::load(&dir.path().join("sim")).expect("platform");
        assert_eq!(made.root_pem(), loaded.root_pem());
        assert_eq!(made.certificates(), loaded.certificates());
        assert_eq!(made.secret, loaded.secret);
        let mode = std::fs::metadata(dir.path().join("sim").join(FILE)).expect("file").mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = std::fs::read_dir(dir.path().join("sim")).expect("directory").count();
        assert_eq!(files, 1, "no temporary file is left");
    }

    #[test]
    fn refuses_to_replace_a_platform() {
        let dir = tempfile::tempdir().expect("directory");
        let root = Platform::create(dir.path()).expect("platform").root_pem().to_owned();
        let again = Platform::create(dir.path());
        assert!(matches!(again, Err(TeeError::PlatformExists(_))));
        let raced = write_new(&dir.path().join(FILE), b"{}");
        assert!(matches!(raced, Err(TeeError::PlatformExists(_))));
        assert_eq!(Platform::load(dir.path()).expect("platform").root_pem(), root);
    }

    #[test]
    fn refuses_a_file_others_may_read() {
        let dir = tempfile::tempdir().expect("directory");
        Platform::create(dir.path()).expect("platform");
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(dir.path().join(FILE), mode).expect("mode");
        assert!(matches!(Platform::load(dir.path()), Err(TeeError::Platform { .. })));
    }

    #[test]
    fn refuses_parts_of_two_platforms() {
        let (one, two) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        Platform::create(one.path()).expect("platform");
        Platform::create(two.path()).expect("platform");
        let read = |dir: &Path| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(dir.join(FILE)).expect("file")).expect("json")
        };
        let (honest, other) = (read(one.path()), read(two.path()));
        for part in ["ark", "ask", "vcek", "vcek_key"] {
            let mut mixed = honest.clone();
            mixed[part] = other[part].clone();
            std::fs::write(one.path().join(FILE), mixed.to_string()).expect("file");
            assert!(Platform::load(one.path()).is_err(), "{part} of another platform");
        }
        std::fs::write(one.path().join(FILE), honest.to_string()).expect("file");
        assert!(Platform::load(one.path()).is_ok());
    }

    #[test]
    fn sealing_keys_differ_by_platform_agent_and_debugging() {
        let dirs = [tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two")];
        let [one, two] = dirs.map(|d| Platform::create(d.path()).expect("platform"));
        let launch = |agent, debug| super::super::Launch { agent: Sha384([agent; 48]), debug };
        let key = |p: &Platform, l| p.derived_key(&l).expect("key");
        assert_eq!(key(&one, launch(1, false)), key(&one, launch(1, false)));
        assert_ne!(key(&one, launch(1, false)), key(&two, launch(1, false)));
        assert_ne!(key(&one, launch(1, false)), key(&one, launch(2, false)));
        assert_ne!(key(&one, launch(1, false)), key(&one, launch(1, true)));
    }
}
