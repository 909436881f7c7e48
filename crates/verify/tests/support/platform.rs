//! A simulated SEV-SNP platform: an ARK, ASK and VCEK of its own, and genuine reports.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use casemate_evidence::Record;
use casemate_evidence::snp::{CertKind, CertTable, ReportBuilder, TcbVersion};
use casemate_spec::binding::{Purpose, report_data};
use casemate_spec::trust::{AcceptedTee, LaunchRule, SnpTcbFloor, TeeKind};
use casemate_spec::workload::Workload;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P384_SHA384,
};

const TCB: TcbVersion = TcbVersion { fmc: None, bootloader: 3, tee: 0, snp: 20, microcode: 209 };
const CHIP: [u8; 64] = [0x5a; 64];

pub struct Platform {
    root: String,
    table: Vec<u8>,
    key: EcdsaKeyPair,
}

impl Platform {
    pub fn new(name: &str) -> Self {
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let (ark_key, ask_key, vcek_key) = (key(), key(), key());
        let ark_params = authority(name, 1);
        let ark = ark_params.self_signed(&ark_key).unwrap();
        let ark_issuer = Issuer::new(ark_params, ark_key);
        let ask_params = authority("SEV-Milan", 0);
        let ask = ask_params.signed_by(&ask_key, &ark_issuer).unwrap();
        let ask_issuer = Issuer::new(ask_params, ask_key);
        let vcek = vcek_params().signed_by(&vcek_key, &ask_issuer).unwrap();
        let table = CertTable::build(&[
            (CertKind::Ark, ark.der()),
            (CertKind::Ask, ask.der()),
            (CertKind::Vcek, vcek.der()),
        ])
        .unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, vcek_key.serialized_der())
                .unwrap();
        Self { root: ark.pem(), table: table.as_bytes().to_vec(), key }
    }

    pub fn accepted_tee(&self) -> AcceptedTee {
        AcceptedTee {
            kind: TeeKind::SimSnp,
            root: self.root.clone(),
            launch: LaunchRule::Agent,
            min_tcb: SnpTcbFloor::default(),
        }
    }

    pub fn record(
        &self,
        purpose: Purpose,
        nonce: Option<&[u8; 32]>,
        spki: &[u8],
        workload: &Workload,
        debug: bool,
    ) -> Record {
        let nonce = nonce.map_or(&[][..], |n| n.as_slice());
        let measurement = workload.measurement().unwrap();
        let builder = ReportBuilder {
            version: 3,
            policy: 0x3_0000 | if debug { 1 << 19 } else { 0 },
            vmpl: 0,
            platform_info: 0,
            key_info: 0,
            report_data: report_data(purpose, nonce, spki, &measurement),
            measurement: workload.agent,
            report_id: [7; 32],
            tcb: TCB,
            cpuid: [0x19, 0x01, 0x01],
            chip_id: CHIP,
            firmware: [1, 55, 1],
        };
        let mut report = builder.build();
        let signature =
            self.key.sign(&SystemRandom::new(), ReportBuilder::signed_part(&report)).unwrap();
        ReportBuilder::put_signature(&mut report, signature.as_ref().try_into().unwrap());
        Record::snp(&report, &self.table, workload).unwrap()
    }
}

fn authority(name: &str, below: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn vcek_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "SEV-VCEK");
    let oid = |tail: &[u64]| [&[1, 3, 6, 1, 4, 1, 3704, 1], tail].concat();
    let mut add = |tail: &[u64], content: Vec<u8>| {
        let extension = CustomExtension::from_oid_content(&oid(tail), content);
        params.custom_extensions.push(extension);
    };
    let name = b"Milan-B1";
    add(&[2], [&[0x16, name.len() as u8], name.as_slice()].concat());
    let order = [1, 2, 4, 5, 6, 7, 3, 8];
    for (number, byte) in order.into_iter().zip(TCB.to_bytes()) {
        let integer = if byte < 0x80 { vec![2, 1, byte] } else { vec![2, 2, 0, byte] };
        add(&[3, number], integer);
    }
    add(&[4], CHIP.to_vec());
    params
}
