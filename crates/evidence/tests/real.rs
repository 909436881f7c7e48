//! Real reports of real processors, each with the verdict it must get: `data/cases.json`.
//!
//! `CASEMATE_SNP_CASES` may name another folder of the same form, to be tried as well.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use casemate_evidence::snp::{
    CertKind, CertTable, Certificate, ChainError, Endorsement, Product, REPORT_SIZE, Report,
    SIGNED_SIZE, SigningKey, amd, endorse,
};
use serde_json::Value;

#[test]
fn every_real_report_gets_its_verdict() {
    for folder in folders() {
        let folder = Folder::open(folder);
        assert!(!folder.cases().is_empty());
        for case in folder.cases() {
            let sample = Sample::read(&folder, case);
            let verdict = sample.verdict();
            match text(&case["expect"]["signature"]) {
                "valid" => assert!(verdict.is_ok(), "{}: {verdict:?}", sample.id),
                "unverifiable" => assert!(verdict.is_err(), "{} was accepted", sample.id),
                other => panic!("unknown expectation {other}"),
            }
        }
    }
}

#[test]
fn every_real_report_says_what_it_should() {
    for folder in folders() {
        let folder = Folder::open(folder);
        for case in folder.cases() {
            let report = Report::parse(&Sample::read(&folder, case).report).expect("report");
            let (fields, said) = (report.fields(), &case["fields"]);
            let number = |name: &str| said[name].as_u64().expect("number");
            let hexed = |name: &str| text(&said[name]).to_owned();
            assert_eq!(u64::from(fields.version), number("version"));
            assert_eq!(u64::from(fields.guest_svn), number("guest_svn"));
            assert_eq!(u64::from(fields.vmpl), number("vmpl"));
            assert_eq!(format!("{:#x}", fields.policy.0), hexed("policy"));
            assert_eq!(fields.policy.debug(), said["debug"].as_bool().expect("flag"));
            assert_eq!(hex::encode(fields.current_tcb.to_bytes()), hexed("current_tcb"));
            assert_eq!(hex::encode(fields.reported_tcb.to_bytes()), hexed("reported_tcb"));
            assert_eq!(hex::encode(fields.report_data), hexed("report_data"));
            assert_eq!(fields.measurement.to_string(), hexed("measurement"));
            assert_eq!(hex::encode(fields.host_data), hexed("host_data"));
            assert_eq!(fields.id_key_digest.to_string(), hexed("id_key_digest"));
            assert_eq!(fields.author_key_digest.to_string(), hexed("author_key_digest"));
            assert_eq!(hex::encode(fields.report_id), hexed("report_id"));
            assert_eq!(hex::encode(fields.chip_id), hexed("chip_id"));
            assert_eq!(fields.cpuid.map(hex::encode).as_deref(), said["cpuid_fms"].as_str());
        }
    }
}

#[test]
fn every_derived_negative_is_refused() {
    for folder in folders() {
        let folder = Folder::open(folder);
        for negative in folder.json["negative"].as_array().expect("list") {
            let base = folder.cases().iter().find(|c| c["id"] == negative["base"]).expect("base");
            let mut sample = Sample::read(&folder, base);
            sample.change(&folder, negative);
            let verdict = sample.verdict();
            assert!(verdict.is_err(), "{} was accepted", text(&negative["id"]));
        }
    }
}

#[test]
fn every_flipped_byte_of_a_report_is_refused() {
    let folder = Folder::open(data());
    for id in ["milan-v2-vcek-120d77b2", "turin-v5-vcek-85da705e"] {
        let sample = Sample::find(&folder, id);
        let key = sample.endorsement().expect("chain");
        for at in 0..REPORT_SIZE {
            let mut bytes = sample.report.clone();
            bytes[at] ^= 1;
            let accepted = Report::parse(&bytes).is_ok_and(|report| key.signed(&report));
            assert!(!accepted, "{id}: byte {at:#x} may be changed");
        }
        assert!(key.signed(&Report::parse(&sample.report).expect("report")), "the honest twin");
    }
}

#[test]
fn every_flipped_byte_of_a_chip_certificate_is_refused() {
    let folder = Folder::open(data());
    let mut sample = Sample::find(&folder, "genoa-v5-vcek-7ea4daeb");
    let honest = sample.key.clone().expect("certificate");
    for at in 0..honest.len() {
        let mut altered = honest.clone();
        altered[at] ^= 1;
        sample.key = Some(altered);
        assert!(sample.endorsement().is_err(), "byte {at} may be changed");
    }
    sample.key = Some(honest);
    assert!(sample.endorsement().is_ok());
}

#[test]
fn the_table_of_a_real_guest_is_read_with_its_pem_certificates() {
    let table = std::fs::read(data().join("genoa-auxblob.bin")).expect("table");
    let table = CertTable::parse(&table).expect("table");
    let root = Certificate::parse(amd::ark(Product::Genoa)).expect("root");
    let key = endorse(&root, &table, SigningKey::Vcek).expect("chain");
    let report = std::fs::read(data().join("reports/genoa-v3-vcek-8d8bfb3e.bin")).expect("report");
    assert!(key.signed(&Report::parse(&report).expect("report")));
    let milan = Certificate::parse(amd::ark(Product::Milan)).expect("root");
    assert!(matches!(endorse(&milan, &table, SigningKey::Vcek), Err(ChainError::Root { .. })));
}

#[test]
fn an_intermediate_the_host_left_out_is_amds_own() {
    let folder = Folder::open(data());
    for case in folder.cases().iter().filter(|c| c["endorsement_key"].is_string()) {
        let mut sample = Sample::read(&folder, case);
        sample.intermediate = None;
        assert!(sample.verdict().is_ok(), "{}", sample.id);
    }
}

#[test]
fn a_providers_key_signs_only_what_says_so() {
    let folder = Folder::open(data());
    let provider = Sample::find(&folder, "milan-v3-vlek-decdab94");
    let key = provider.endorsement().expect("chain");
    assert_eq!(key.provider(), Some("CN=cc-us-east-2.amazonaws.com"));
    assert_eq!(key.hardware_id(), None);
    // The same certificate in the place of a chip's.
    let root = Certificate::parse(&provider.root).expect("root");
    let certificate = provider.key.as_deref().expect("certificate");
    let posing = CertTable::build(&[(CertKind::Vcek, certificate)]).expect("table");
    let refused = endorse(&root, &posing, SigningKey::Vcek);
    assert!(matches!(refused, Err(ChainError::Certificate { .. })), "{refused:?}");
}

/// One real report with its certificates.
struct Sample {
    id: String,
    report: Vec<u8>,
    key: Option<Vec<u8>>,
    intermediate: Option<Vec<u8>>,
    root: Vec<u8>,
}

impl Sample {
    fn find(folder: &Folder, id: &str) -> Self {
        let case = folder.cases().iter().find(|c| c["id"] == id).expect("case");
        Self::read(folder, case)
    }

    fn read(folder: &Folder, case: &Value) -> Self {
        let chain = &case["chain"];
        let file = |v: &Value| v.as_str().map(|name| folder.file(name));
        Self {
            id: text(&case["id"]).into(),
            report: folder.file(text(&case["report"])),
            key: file(&case["endorsement_key"]),
            intermediate: file(&chain["intermediate"]),
            root: file(&chain["ark"]).unwrap_or_else(|| amd::ark(Product::Milan).to_vec()),
        }
    }

    fn change(&mut self, folder: &Folder, negative: &Value) {
        for mutation in negative["mutate"].as_array().into_iter().flatten() {
            if let Some(count) = mutation["truncate_by"].as_u64() {
                let left = self.report.len() - usize::try_from(count).expect("size");
                self.report.truncate(left);
            } else {
                let at = usize::try_from(mutation["offset"].as_u64().expect("offset"));
                let mask = hex::decode(text(&mutation["xor"])).expect("mask");
                for (byte, bits) in self.report[at.expect("offset")..].iter_mut().zip(mask) {
                    *byte ^= bits;
                }
            }
        }
        let replace = &negative["replace"];
        if let Some(name) = replace["endorsement_key"].as_str() {
            self.key = Some(folder.file(name));
        }
        if let Some(name) = replace["chain"]["ark"].as_str() {
            self.root = folder.file(name);
            self.intermediate = Some(folder.file(text(&replace["chain"]["intermediate"])));
        }
    }

    fn endorsement(&self) -> Result<Endorsement, String> {
        let root = Certificate::parse(&self.root).map_err(|e| e.to_string())?;
        let report = Report::parse(&self.report).map_err(|e| e.to_string())?;
        let signing_key = report.fields().key_info.signing_key;
        let kind = match signing_key {
            SigningKey::Vlek => CertKind::Vlek,
            _ => CertKind::Vcek,
        };
        let entries: Vec<(CertKind, &[u8])> =
            [(kind, &self.key), (CertKind::Ask, &self.intermediate)]
                .into_iter()
                .filter_map(|(kind, bytes)| Some((kind, bytes.as_deref()?)))
                .collect();
        let table = CertTable::build(&entries).map_err(|e| e.to_string())?;
        endorse(&root, &table, signing_key).map_err(|e| e.to_string())
    }

    /// Signature, chain and what the certificate says; nothing of policy.
    fn verdict(&self) -> Result<(), String> {
        let key = self.endorsement()?;
        let report = Report::parse(&self.report).map_err(|e| e.to_string())?;
        let fields = report.fields();
        let check = |ok: bool, what: &str| if ok { Ok(()) } else { Err(what.to_owned()) };
        check(key.signed(&report), "signature")?;
        check(key.tcb() == fields.reported_tcb, "firmware")?;
        check(fields.product.is_none_or(|p| p == key.product()), "product")?;
        check(key.hardware_id().is_none() || key.is_chip(&fields.chip_id), "chip")
    }
}

struct Folder {
    path: PathBuf,
    json: Value,
}

impl Folder {
    fn open(path: PathBuf) -> Self {
        let json = std::fs::read(path.join("cases.json")).expect("cases.json");
        Self { json: serde_json::from_slice(&json).expect("JSON"), path }
    }

    fn cases(&self) -> &Vec<Value> {
        self.json["cases"].as_array().expect("list")
    }

    /// A file of the folder; AMD's own certificates are those of the crate.
    fn file(&self, name: &str) -> Vec<u8> {
        for (product, family) in amd::PRODUCTS.into_iter().zip(["milan", "genoa", "turin"]) {
            for (kind, der) in [
                ("ark", amd::ark(product)),
                ("ask", amd::ask(product)),
                ("asvk", amd::asvk(product)),
            ] {
                if name == format!("certs/{family}-{kind}.der") {
                    return der.to_vec();
                }
            }
        }
        std::fs::read(self.path.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

fn folders() -> Vec<PathBuf> {
    let other = std::env::var_os("CASEMATE_SNP_CASES").map(PathBuf::from);
    [Some(data()), other].into_iter().flatten().collect()
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

#[test]
fn the_signed_part_ends_where_the_signature_begins() {
    let report = Sample::find(&Folder::open(data()), "milan-v2-vcek-120d77b2").report;
    assert_eq!(Report::parse(&report).expect("report").signed_bytes(), &report[..SIGNED_SIZE]);
}
