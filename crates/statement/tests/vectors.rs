//! Entries and envelopes that others made: read as they meant them, refused where they are broken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_spec::Sha256;
use casemate_statement::StatementError;
use casemate_statement::dsse::{Envelope, pae};
use casemate_statement::rekor::{DataDigest, HashedRekord, LogEntry, Verifier};
use casemate_statement::sigstore;
use casemate_tlog::note::VerifierKey;
use serde_json::Value;

/// The two Rekor v2 logs of Sigstore's staging instance, from its trusted root.
const LOGS: [(&str, &str); 2] = [
    ("log2025-alpha1.rekor.sigstage.dev", "Pn+AREHoBaZ7wgS1zBqpxmLSGnyhxXj4lFxSdWVB8o8="),
    ("log2025-alpha3.rekor.sigstage.dev", "lD3dVc8yaP25mPtT/sJ59D3LLxGBgW/qYrM6x6KmOqk="),
];

fn log(at: usize) -> VerifierKey {
    let (name, key) = LOGS[at];
    let key = BASE64_STANDARD.decode(key).unwrap().try_into().unwrap();
    VerifierKey::ed25519(name, key).unwrap()
}

fn bundle(name: &str) -> Value {
    let path = format!("{}/tests/data/rekor/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn entry(bundle: &Value) -> LogEntry {
    serde_json::from_value(bundle["verificationMaterial"]["tlogEntries"][0].clone()).unwrap()
}

#[test]
fn proves_entries_of_sigstores_own_logs() {
    for (name, at) in [
        ("rekor2-happy-path", 0),
        ("rekor2-checkpoint-cosigned", 0),
        ("rekor2-checkpoint-two-sigs-from-origin", 0),
        ("rekor2-dsse-happy-path", 1),
    ] {
        let entry = entry(&bundle(name));
        let logged = entry.verify(&log(at)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(logged.record.to_leaf().unwrap(), *entry.canonicalized_body);
        assert!(matches!(logged.record.verifier, Verifier::Certificate { .. }));
        assert!(entry.verify(&log(1 - at)).is_err(), "{name} under another log's key");
    }
}

#[test]
fn refuses_checkpoints_without_the_logs_signature() {
    for name in [
        "rekor2-checkpoint-missing-log-signature_fail",
        "rekor2-checkpoint-no-matching-signature_fail",
    ] {
        let refused = entry(&bundle(name)).verify(&log(0)).expect_err(name);
        assert!(matches!(refused, StatementError::Inclusion(_)), "{refused}");
    }
}

#[test]
fn a_dsse_entry_is_about_its_pae_and_its_signature() {
    let read = |name: &str| {
        let bundle = bundle(name);
        let envelope: Envelope = serde_json::from_value(bundle["dsseEnvelope"].clone()).unwrap();
        (envelope, entry(&bundle).verify(&log(1)).unwrap().record)
    };
    let about = |envelope: &Envelope, record: &HashedRekord| {
        let digest = record.digest == DataDigest::Sha256(envelope.digest());
        (digest, *envelope.signature().unwrap().sig == *record.signature)
    };
    let (envelope, record) = read("rekor2-dsse-happy-path");
    assert_eq!(about(&envelope, &record), (true, true));
    let (envelope, record) = read("rekor2-dsse-mismatch-envelope_fail");
    assert!(!about(&envelope, &record).0);
    let (envelope, record) = read("rekor2-dsse-mismatch-sig_fail");
    assert_eq!(about(&envelope, &record), (true, false));
}

#[test]
fn refuses_entries_of_other_kinds_and_bundles_without_a_bare_key() {
    let old = bundle("managed-key-happy-path");
    assert!(
        serde_json::from_value::<LogEntry>(old["verificationMaterial"]["tlogEntries"][0].clone())
            .is_err_and(|e| e.to_string().contains("inclusionPromise"))
    );
    let keyless = serde_json::to_vec(&bundle("rekor2-happy-path")).unwrap();
    assert!(sigstore::Bundle::parse(&keyless).is_err());
}

#[test]
fn pae_is_that_of_the_specification() {
    let vector: Value = serde_json::from_str(include_str!("data/dsse/helloworld.json")).unwrap();
    let payload = BASE64_STANDARD.decode(vector["payload"].as_str().unwrap()).unwrap();
    let encoded = pae(vector["payloadType"].as_str().unwrap(), &payload);
    assert_eq!(encoded, vector["pae"].as_str().unwrap().as_bytes());
    assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    assert_ne!(Sha256::of(&pae("a", b"b")), Sha256::of(&pae("", b"a b")));
}
