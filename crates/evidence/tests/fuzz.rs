//! No bytes make a parser panic, and no changed bytes are accepted.
#![allow(clippy::expect_used)]

mod common;

use std::sync::OnceLock;

use casemate_evidence::record::Evidence;
use casemate_evidence::snp::{CertKind, Certificate, REPORT_SIZE, Report};
use casemate_evidence::{Record, Verifier, inspect};
use casemate_spec::trust::AcceptedTee;
use common::{Chip, NOW, expect};
use proptest::prelude::*;

const REAL: &[u8] = include_bytes!("data/reports/genoa-v5-vcek-7ea4daeb.bin");
const CERTIFICATE: &[u8] = include_bytes!("data/certs/vlek-296a7c99.der");

struct Honest {
    json: Vec<u8>,
    report: [u8; REPORT_SIZE],
    table: Vec<u8>,
    tee: AcceptedTee,
}

fn honest() -> &'static Honest {
    static HONEST: OnceLock<Honest> = OnceLock::new();
    HONEST.get_or_init(|| {
        let chip = Chip::honest();
        let (report, table, tee) = chip.bytes();
        let json = Record::snp(&report, &table, &chip.workload).expect("record").to_json();
        Honest { json, report, table, tee }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        let _ = Record::parse(&bytes);
        let _ = Report::parse(&bytes);
        let _ = Certificate::parse(&bytes);
        let _ = inspect(&bytes);
    }

    #[test]
    fn any_bytes_of_the_size_of_a_report(bytes in proptest::collection::vec(any::<u8>(), REPORT_SIZE)) {
        let _ = Report::parse(&bytes);
    }

    #[test]
    fn a_real_report_with_changed_bytes(changes in changes(REPORT_SIZE)) {
        let _ = Report::parse(&changed(REAL, &changes));
        let _ = inspect(&changed(REAL, &changes));
    }

    #[test]
    fn a_real_certificate_with_changed_bytes(changes in changes(CERTIFICATE.len()), cut in 0usize..2000) {
        let mut bytes = changed(CERTIFICATE, &changes);
        bytes.truncate(cut.max(100));
        let _ = Certificate::parse(&bytes);
    }

    #[test]
    fn a_record_with_changed_bytes_is_never_accepted_as_another(at: prop::sample::Index, byte: u8) {
        let honest = honest();
        let mut json = honest.json.clone();
        json[at.index(honest.json.len())] = byte;
        prop_assume!(json != honest.json);
        if let Ok(record) = Record::parse(&json) {
            prop_assert!(!is_accepted(&record) || says_the_same(&record));
        }
    }

    #[test]
    fn a_table_with_changed_bytes_is_never_accepted_with_other_certificates(changes in changes(3000)) {
        let honest = honest();
        let table = changed(&honest.table, &changes);
        prop_assume!(table != honest.table);
        if let Ok(record) = Record::snp(&honest.report, &table, &Chip::honest().workload) {
            prop_assert!(!is_accepted(&record) || says_the_same(&record));
        }
    }
}

fn is_accepted(record: &Record) -> bool {
    let tees = std::slice::from_ref(&honest().tee);
    Verifier::new().appraise(record, &expect(), tees, NOW).result().is_ok()
}

/// The list at the head of a table is not signed, and hosts may add entries of their own. So the
/// root's entry, which is not needed, may become an unknown one; nothing else may change.
fn says_the_same(record: &Record) -> bool {
    let chip = Chip::honest();
    let honest = Record::snp(&honest().report, &honest().table, &chip.workload).expect("record");
    let Evidence::Snp { report, certificates } = record.evidence() else { return false };
    let Evidence::Snp { report: signed, certificates: table } = honest.evidence() else {
        return false;
    };
    let root = certificates.find(CertKind::Ark);
    report == signed
        && record.workload() == honest.workload()
        && [CertKind::Ask, CertKind::Vcek].iter().all(|k| certificates.find(*k) == table.find(*k))
        && (root.is_none() || root == table.find(CertKind::Ark))
}

fn changes(size: usize) -> impl Strategy<Value = Vec<(usize, u8)>> {
    proptest::collection::vec((0..size, any::<u8>()), 1..8)
}

fn changed(bytes: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for (at, byte) in changes {
        if let Some(place) = out.get_mut(*at) {
            *place = *byte;
        }
    }
    out
}
