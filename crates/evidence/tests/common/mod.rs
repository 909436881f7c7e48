//! A processor of the tests' own: a root, an intermediate and a chip key, honest unless told
//! otherwise.
#![allow(dead_code, clippy::expect_used)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use casemate_evidence::snp::{CertKind, CertTable, REPORT_SIZE, ReportBuilder, TcbVersion};
use casemate_evidence::{Appraisal, Expect, Record, appraise};
use casemate_spec::binding::{Purpose, report_data};
use casemate_spec::trust::{AcceptedTee, LaunchRule, SnpTcbFloor, TeeKind};
use casemate_spec::workload::Workload;
use casemate_spec::{Sha256, Sha384};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, date_time_ymd,
};

/// 2030-06-01, in the middle of every certificate's validity.
pub const NOW: i64 = 1_906_502_400;
pub const NONCE: [u8; 32] = [7; 32];
pub const SPKI: &[u8] = b"a public key";

/// Everything that can be made wrong.
pub struct Chip {
    pub ark: CertificateParams,
    pub ask: CertificateParams,
    pub vcek: CertificateParams,
    pub leaf_kind: CertKind,
    /// Signs the report with a key other than the certified one.
    pub other_key: bool,
    /// Puts another root into the table.
    pub table_root: Option<Vec<u8>>,
    pub report: ReportBuilder,
    pub workload: Workload,
    pub tee: AcceptedTee,
    /// Changes the signed report.
    pub change: fn(&mut [u8; REPORT_SIZE]),
}

impl Chip {
    pub fn honest() -> Self {
        let workload = Workload {
            spec: Sha256::of(b"spec"),
            root: Sha256::of(b"root"),
            agent: Sha384::of(b"agent"),
            production: true,
        };
        let tcb = TcbVersion { fmc: None, bootloader: 10, tee: 1, snp: 23, microcode: 200 };
        let measurement = workload.measurement().expect("measurement");
        let report = ReportBuilder {
            version: 5,
            policy: 0x30000,
            vmpl: 0,
            platform_info: 0x25,
            key_info: 0,
            report_data: report_data(Purpose::SecretRelease, &NONCE, SPKI, &measurement),
            measurement: workload.agent,
            report_id: [5; 32],
            tcb,
            cpuid: [0x19, 0x11, 1],
            chip_id: [9; 64],
            firmware: [40, 55, 1],
        };
        let tee = AcceptedTee {
            kind: TeeKind::SimSnp,
            root: String::new(),
            launch: LaunchRule::Agent,
            min_tcb: SnpTcbFloor { fmc: 0, bootloader: 10, tee: 1, snp: 23, microcode: 200 },
        };
        let mut vcek = params("SEV-VCEK");
        vcek.custom_extensions = statement("Genoa", tcb.to_bytes(), &[9; 64]);
        Self {
            ark: issuer("ARK-Test", None),
            ask: issuer("SEV-Test", Some(0)),
            vcek,
            leaf_kind: CertKind::Vcek,
            other_key: false,
            table_root: None,
            report,
            workload,
            tee,
            change: |_| {},
        }
    }

    /// Its evidence, and the accepted TEE of its root.
    pub fn evidence(&self) -> (Record, AcceptedTee) {
        let (report, table, tee) = self.bytes();
        (Record::snp(&report, &table, &self.workload).expect("record"), tee)
    }

    pub fn bytes(&self) -> ([u8; REPORT_SIZE], Vec<u8>, AcceptedTee) {
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("key");
        let (ark_key, ask_key, leaf_key) = (key(), key(), key());
        let ark = self.ark.self_signed(&ark_key).expect("root");
        let ark_issuer = Issuer::from_params(&self.ark, &ark_key);
        let ask = self.ask.signed_by(&ask_key, &ark_issuer).expect("intermediate");
        let ask_issuer = Issuer::from_params(&self.ask, &ask_key);
        let leaf = self.vcek.signed_by(&leaf_key, &ask_issuer).expect("chip");
        let root = self.table_root.as_deref().unwrap_or_else(|| ark.der());
        let table = CertTable::build(&[
            (CertKind::Ark, root),
            (CertKind::Ask, ask.der()),
            (self.leaf_kind, leaf.der()),
        ]);
        let signer = if self.other_key { key() } else { leaf_key };
        let mut report = self.report.build();
        sign(&mut report, &signer);
        (self.change)(&mut report);
        let tee = AcceptedTee { root: ark.pem(), ..self.tee.clone() };
        (report, table.expect("table").as_bytes().to_vec(), tee)
    }

    pub fn appraise(&self) -> Appraisal {
        self.appraise_as(&expect(), NOW)
    }

    pub fn appraise_as(&self, expect: &Expect<'_>, now: i64) -> Appraisal {
        let (record, tee) = self.evidence();
        appraise(&record, expect, &[tee], now)
    }
}

pub fn expect() -> Expect<'static> {
    Expect { purpose: Purpose::SecretRelease, nonce: Some(&NONCE), spki: SPKI }
}

pub fn sign(report: &mut [u8; REPORT_SIZE], key: &KeyPair) {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key.serialized_der())
        .expect("key");
    let signed = key.sign(&SystemRandom::new(), ReportBuilder::signed_part(report)).expect("sign");
    ReportBuilder::put_signature(report, signed.as_ref().try_into().expect("96 bytes"));
}

pub fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2035, 1, 1);
    params
}

pub fn issuer(name: &str, path_length: Option<u8>) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(
        path_length.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained),
    );
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// The extensions of a VCEK of Milan or Genoa.
pub fn statement(product: &str, tcb: [u8; 8], chip: &[u8]) -> Vec<CustomExtension> {
    let mut out = vec![amd(&[2], ia5(product))];
    for (number, value) in [1, 2, 4, 5, 6, 7, 3, 8].into_iter().zip(tcb) {
        out.push(amd(&[3, number], integer(value)));
    }
    out.push(amd(&[4], chip.to_vec()));
    out
}

pub fn amd(arcs: &[u64], value: Vec<u8>) -> CustomExtension {
    CustomExtension::from_oid_content(&[&[1, 3, 6, 1, 4, 1, 3704, 1], arcs].concat(), value)
}

pub fn ia5(text: &str) -> Vec<u8> {
    [&[0x16, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat()
}

pub fn integer(value: u8) -> Vec<u8> {
    if value < 0x80 { vec![2, 1, value] } else { vec![2, 2, 0, value] }
}
