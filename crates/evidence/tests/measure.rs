//! How many appraisals a second one core makes. A measurement, run by hand:
//! `cargo test --release -p casemate-evidence --test measure -- --ignored --nocapture`
#![allow(clippy::expect_used, clippy::print_stdout)]

mod common;

use std::time::Instant;

use casemate_evidence::snp::{CertKind, CertTable, Certificate, Product, SigningKey, amd, endorse};
use casemate_evidence::{Record, Verifier, appraise};
use common::{Chip, NOW, expect};

#[test]
#[ignore = "a measurement, not a test"]
fn appraisals_a_second() {
    let (record, tee) = Chip::honest().evidence();
    let json = record.to_json();
    let tees = [tee];
    let verifier = Verifier::new();
    rate("warm: parse and appraise, chain remembered", || {
        let record = Record::parse(&json).expect("record");
        assert!(verifier.appraise(&record, &expect(), &tees, NOW).result().is_ok());
    });
    rate("cold: parse and appraise, chain of P-384", || {
        let record = Record::parse(&json).expect("record");
        assert!(appraise(&record, &expect(), &tees, NOW).result().is_ok());
    });
    let vcek: &[u8] = include_bytes!("data/certs/vcek-a267ef49.der");
    let table =
        CertTable::build(&[(CertKind::Ask, amd::ask(Product::Genoa)), (CertKind::Vcek, vcek)])
            .expect("table");
    rate("cold: chain of AMD (RSA-4096)", || {
        let root = Certificate::parse(amd::ark(Product::Genoa)).expect("root");
        endorse(&root, &table, SigningKey::Vcek).expect("chain");
    });
}

fn rate(what: &str, mut work: impl FnMut()) {
    work();
    let (start, mut count) = (Instant::now(), 0u32);
    while start.elapsed().as_millis() < 2000 {
        work();
        count += 1;
    }
    println!("{what}: {:.0}/s", f64::from(count) / start.elapsed().as_secs_f64());
}
