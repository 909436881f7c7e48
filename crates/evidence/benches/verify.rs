//! Appraisals a second on one core: `cargo bench -p casemate-evidence --bench verify`.
//!
//! The peer is the least that any verifier must do: one P-384 signature check over a report, with
//! nothing parsed, bound or compared.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a benchmark prints and gives up")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use casemate_evidence::snp::{CertKind, CertTable, Certificate, Product, SigningKey, amd, endorse};
use casemate_evidence::{Record, Verifier, appraise};
use common::{Chip, NOW, expect};

fn main() {
    let bare = bare_signature();
    let (record, tee) = Chip::honest().evidence();
    let (json, tees) = (record.to_json(), [tee]);
    let verifier = Verifier::new();
    let warm = rate(|| {
        let record = Record::parse(&json).expect("record");
        assert!(verifier.appraise(&record, &expect(), &tees, NOW).result().is_ok());
    });
    let cold = rate(|| {
        let record = Record::parse(&json).expect("record");
        assert!(appraise(&record, &expect(), &tees, NOW).result().is_ok());
    });
    let vcek: &[u8] = include_bytes!("../tests/data/certs/vcek-a267ef49.der");
    let table =
        CertTable::build(&[(CertKind::Ask, amd::ask(Product::Genoa)), (CertKind::Vcek, vcek)])
            .expect("table");
    let amd_chain = rate(|| {
        let root = Certificate::parse(amd::ark(Product::Genoa)).expect("root");
        endorse(&root, &table, SigningKey::Vcek).expect("chain");
    });
    row("evidence, chain remembered", bare, warm);
    row("evidence, chain of P-384 anew", bare, cold);
    println!("AMD chain (RSA-4096) anew {amd_chain:.0} /s");
    println!("The peer of the evidence rows is one bare P-384 signature check.");
}

fn row(what: &str, peer: f64, ours: f64) {
    println!("| {what} | {peer:.0} /s | {ours:.0} /s | {:.3} |", ours / peer);
}

/// How many P-384 signatures a second this core checks at all.
fn bare_signature() -> f64 {
    let (random, message) = (SystemRandom::new(), [7; 672]);
    let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("key");
    let signature = key.sign(&random, &message).expect("signature");
    let public = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key.public_key().as_ref());
    rate(|| public.verify(&message, signature.as_ref()).expect("valid"))
}

fn rate(mut work: impl FnMut()) -> f64 {
    work();
    let (start, mut count) = (Instant::now(), 0u32);
    while start.elapsed().as_millis() < 2000 {
        work();
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}
