//! Our own formats: round trips, refusals, and golden bytes that must never change.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use casemate_spec::trust::{Approver, TrustFile};
use casemate_spec::{Coded as _, Sha256, Sha384};
use casemate_statement::act::{Act, Action, Frame, Grantee, MAX_LIFETIME_SECONDS, SealedValue};
use casemate_statement::approval::{self, Approval};
use casemate_statement::bundle::Artifact;
use casemate_statement::dsse::{Envelope, Signature};
use casemate_statement::intoto::Statement;
use casemate_statement::quorum;
use casemate_statement::receipt::Receipt;
use casemate_statement::rekor::{HashedRekord, LogEntry};
use casemate_statement::sshsig::{SshSignature, sign};
use casemate_statement::{PublicKey, SigningKey, StatementError, sigstore};
use casemate_tlog::note::Signer;
use casemate_tlog::{Checkpoint, merkle};
use jiff::Timestamp;
use proptest::prelude::*;
use ssh_key::LineEnding;
use ssh_key::private::{Ed25519Keypair, PrivateKey};

const TRUST: &[u8] = include_bytes!("../../spec/golden/trust-v1.json");
/// A P-256 key of no importance.
const KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEDODRU688UYGuy54mNUlaEBiQdTE9nYLr0lg6RXowI/\
                   QV/RE1azBn4Eg5/2uTOMbhB1/gfcHzijzFi9Tk+g1Prg==";

fn approval_statement() -> Statement<Approval> {
    let artifact = Artifact { name: "hello".into(), sha256: Sha256([1; 32]), size: 5 };
    let (provenance, source, trust) = (Sha256([2; 32]), Sha256([3; 32]), Sha256([4; 32]));
    approval::statement(&[artifact], Approval { provenance, source, trust })
}

fn act(action: Action) -> Act {
    Act {
        format: Act::FORMAT.into(),
        trust: Sha256([1; 32]),
        id: "0123456789abcdef0123456789abcdef".into(),
        created: Timestamp::from_second(1_000_000).unwrap(),
        expires: Timestamp::from_second(1_003_600).unwrap(),
        action,
    }
}

fn put() -> Act {
    let value = SealedValue { enc: vec![1].into(), ciphertext: vec![2].into() };
    act(Action::Put { name: "db/password".into(), value })
}

fn release(artifacts: Vec<Sha256>) -> Grantee {
    let (agent, settings, runtime) = (Sha384([7; 48]), Sha256([8; 32]), Sha256([9; 32]));
    let frame = Frame { agent, settings, runtime };
    Grantee::Release { bundle: Sha256([1; 32]), artifacts, frame }
}

/// A log of one leaf, and the entry for `record` in it.
fn logged(record: &HashedRekord, seed: u8) -> (Signer, LogEntry) {
    let signer = Signer::from_seed("casemate.test/log", &[seed; 32]).unwrap();
    let leaf = record.to_leaf().unwrap();
    let root = merkle::leaf_hash(&leaf);
    let checkpoint = Checkpoint::sign(&signer, 1, root).unwrap();
    let entry = LogEntry::new(signer.verifier(), 0, leaf, (1, &root), &[], checkpoint);
    (signer, entry)
}

/// What the golden files must hold.
fn golden() -> [(&'static str, Vec<u8>); 5] {
    let key = PublicKey::from_spki_base64(KEY).unwrap();
    let record = HashedRekord::of_digest(Sha256([1; 32]), vec![0x30, 0], key);
    let (_, entry) = logged(&record, 1);
    let receipt = Receipt {
        trust: Sha256([1; 32]),
        nonce: Sha256([2; 32]),
        evidence: Sha256([3; 32]),
        envelope_key: Sha256([4; 32]),
        secrets: vec!["db/password".into()],
        time: Timestamp::from_second(1_000_000).unwrap(),
    };
    [
        ("approval", approval_statement().to_bytes().unwrap()),
        ("act", put().to_bytes().unwrap()),
        ("leaf", record.to_leaf().unwrap()),
        ("entry", serde_json::to_vec(&entry).unwrap()),
        ("receipt", receipt.statement(&Sha384([5; 48])).to_bytes().unwrap()),
    ]
}

fn golden_file(name: &str) -> std::path::PathBuf {
    format!("{}/tests/data/golden/{name}.json", env!("CARGO_MANIFEST_DIR")).into()
}

#[test]
fn golden_bytes_do_not_change() {
    for (name, bytes) in golden() {
        let file = std::fs::read(golden_file(name)).unwrap();
        assert_eq!(file.trim_ascii_end(), bytes, "{name}");
    }
}

#[test]
#[ignore = "writes the golden files; only for a new format"]
fn write_golden_files() {
    for (name, mut bytes) in golden() {
        bytes.push(b'\n');
        std::fs::write(golden_file(name), bytes).unwrap();
    }
}

#[test]
fn an_entry_at_index_zero_of_a_log_of_one_shows_every_field() {
    let key = PublicKey::from_spki_base64(KEY).unwrap();
    let record = HashedRekord::of_digest(Sha256([1; 32]), vec![0x30, 0], key);
    let (signer, entry) = logged(&record, 1);
    let json = serde_json::to_value(&entry).unwrap();
    assert_eq!(json["logIndex"], "0");
    assert_eq!(json["integratedTime"], "0");
    assert_eq!(json["inclusionProof"]["logIndex"], "0");
    assert_eq!(json["inclusionProof"]["hashes"], serde_json::json!([]));
    let read: LogEntry = serde_json::from_value(json).unwrap();
    assert_eq!(read.verify_record(signer.verifier(), &record).unwrap().index, 0);
}

#[test]
fn an_envelope_is_its_signers_and_nobody_elses() {
    let (key, _) = SigningKey::generate().unwrap();
    let (other, _) = SigningKey::generate().unwrap();
    let envelope = approval_statement().sign(&key).unwrap();
    let read = Envelope::parse(&serde_json::to_vec(&envelope).unwrap()).unwrap();
    assert_eq!(Statement::parse(read.verify(key.public()).unwrap()).unwrap(), approval_statement());
    assert_eq!(read.verify(other.public()).unwrap_err().code(), "CM-STMT-0007");
    type Break = fn(&mut Envelope);
    let breaks: [(Break, &str); 6] = [
        (|e| e.payload_type.push('x'), "CM-STMT-0003"),
        (|e| e.payload.0[5] ^= 1, "CM-STMT-0006"),
        (|e| e.signatures[0].sig.0[9] ^= 1, "CM-STMT-0006"),
        (|e| e.signatures[0].keyid.clear(), "CM-STMT-0007"),
        (|e| e.signatures.clear(), "CM-STMT-0004"),
        (|e| e.signatures.push(e.signatures[0].clone()), "CM-STMT-0004"),
    ];
    for (break_it, code) in breaks {
        let mut altered = envelope.clone();
        break_it(&mut altered);
        assert_eq!(altered.verify(key.public()).unwrap_err().code(), code);
    }
    // the other key with its own id, but the first key's signature
    let mut renamed = envelope.clone();
    let sig = envelope.signatures[0].sig.clone();
    renamed.signatures = vec![Signature { keyid: other.public().keyid(), sig }];
    assert_eq!(renamed.verify(other.public()).unwrap_err().code(), "CM-STMT-0006");
}

#[test]
fn refuses_statements_of_another_type_or_about_nothing() {
    let honest = approval_statement();
    let parse = |s: &Statement<Approval>| Statement::<Approval>::parse(&s.to_bytes().unwrap());
    assert_eq!(parse(&honest).unwrap(), honest);
    let other = Statement { predicate_type: "x".into(), ..honest.clone() };
    assert_eq!(parse(&other).unwrap_err().code(), "CM-STMT-0003");
    let other = Statement { format: "x".into(), ..honest.clone() };
    assert_eq!(parse(&other).unwrap_err().code(), "CM-STMT-0003");
    let other = Statement { subject: Vec::new(), ..honest.clone() };
    assert_eq!(parse(&other).unwrap_err().code(), "CM-STMT-0004");
    let bytes = honest.to_bytes().unwrap();
    let extra = String::from_utf8(bytes).unwrap().replacen("\"trust\"", "\"x\":1,\"trust\"", 1);
    let refused = Statement::<Approval>::parse(extra.as_bytes()).unwrap_err();
    assert_eq!(refused.code(), "CM-STMT-0001");
}

#[test]
fn refuses_an_entry_altered_in_any_field() {
    let (key, _) = SigningKey::generate().unwrap();
    let envelope = approval_statement().sign(&key).unwrap();
    let record = HashedRekord::of_dsse(&envelope, key.public()).unwrap();
    let (signer, entry) = logged(&record, 1);
    let log = signer.verifier();
    assert!(entry.verify_record(log, &record).is_ok());
    assert!(record.verify(&envelope.pae()).is_ok() && record.verify_digest().is_ok());
    type Break = fn(&mut LogEntry);
    let breaks: [(Break, &str); 10] = [
        (|e| e.log_index = 1, "CM-STMT-0021"),
        (|e| e.log_id.key_id.0[0] ^= 1, "CM-STMT-0021"),
        (|e| e.kind_version.version = "0.0.1".into(), "CM-STMT-0003"),
        (|e| e.kind_version.kind = "dsse".into(), "CM-STMT-0003"),
        (|e| e.integrated_time = 1, "CM-STMT-0021"),
        (|e| e.inclusion_proof.tree_size = 2, "CM-STMT-0021"),
        (|e| e.inclusion_proof.root_hash.0[0] ^= 1, "CM-STMT-0021"),
        (|e| e.inclusion_proof.hashes.push(vec![0; 32].into()), "CM-STMT-0022"),
        (|e| e.inclusion_proof.hashes.push(vec![0; 31].into()), "CM-STMT-0022"),
        (|e| e.inclusion_proof.checkpoint.envelope.push('x'), "CM-STMT-0022"),
    ];
    for (at, (break_it, code)) in breaks.into_iter().enumerate() {
        let mut altered = entry.clone();
        break_it(&mut altered);
        assert_eq!(altered.verify(log).unwrap_err().code(), code, "case {at}");
    }
    let (_, elsewhere) = logged(&record, 2);
    assert!(elsewhere.verify(log).is_err(), "an entry of another log of the same name");
    let other = approval_statement().sign(&key).unwrap();
    let other = HashedRekord::of_dsse(&other, key.public()).unwrap();
    assert_eq!(entry.verify_record(log, &other).unwrap_err().code(), "CM-STMT-0021");
}

#[test]
fn a_sigstore_bundle_survives_its_file_and_refuses_other_keys_and_contents() {
    let (key, _) = SigningKey::generate().unwrap();
    let (other, _) = SigningKey::generate().unwrap();
    let digest = Sha256::of(b"file");
    let signature = key.sign_digest(&digest).unwrap();
    let record = HashedRekord::of_digest(digest, signature.clone(), key.public().clone());
    let (log, entry) = logged(&record, 1);
    let bundle = sigstore::Bundle::message(key.public(), digest, signature, entry);
    let read = sigstore::Bundle::parse(&bundle.to_bytes().unwrap()).unwrap();
    assert_eq!(read, bundle);
    assert!(read.verify_message(key.public(), &digest).is_ok());
    assert!(read.verify_logged(key.public(), log.verifier()).is_ok());
    assert!(read.verify_message(key.public(), &Sha256::of(b"other")).is_err());
    assert!(read.verify_message(other.public(), &digest).is_err());
    assert!(read.verify_dsse(key.public()).is_err());
    let edits: [fn(&mut serde_json::Value); 5] = [
        |j| j["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.2+json".into(),
        |j| j["verificationMaterial"]["tlogEntries"] = serde_json::json!([]),
        |j| j["verificationMaterial"]["certificate"] = serde_json::json!({"rawBytes": ""}),
        |j| j["messageSignature"]["messageDigest"]["algorithm"] = "SHA2_512".into(),
        |j| j["messageSignature"] = serde_json::Value::Null,
    ];
    for edit in edits {
        let mut json = serde_json::to_value(&bundle).unwrap();
        edit(&mut json);
        assert!(sigstore::Bundle::parse(&serde_json::to_vec(&json).unwrap()).is_err());
    }
}

#[test]
fn acts_are_canonical_expire_and_name_real_secrets() {
    let grant = |to: Grantee| act(Action::Grant { name: "db/password".into(), to });
    let granted = release(vec![Sha256([2; 32])]);
    let honest = [
        put(),
        grant(Grantee::Measurement(Sha384([1; 48]))),
        grant(granted.clone()),
        act(Action::Revoke { name: "s".into(), from: None }),
        act(Action::Revoke { name: "s".into(), from: Some(granted) }),
        act(Action::Delete { name: "s".into() }),
    ];
    for act in honest {
        assert_eq!(Act::parse(&act.to_bytes().unwrap()).unwrap(), act);
        assert!(act.check_time(1_003_599).is_ok());
        assert_eq!(act.check_time(1_003_600).unwrap_err().code(), "CM-STMT-0040");
    }
    let pretty = serde_json::to_vec_pretty(&put()).unwrap();
    assert_eq!(Act::parse(&pretty).unwrap_err().code(), "CM-STMT-0040");
    let breaks: [fn(&mut Act); 6] = [
        |a| a.format = "x".into(),
        |a| a.id = "0123".into(),
        |a| a.id = a.id.to_uppercase(),
        |a| a.expires = a.created,
        |a| a.expires = Timestamp::from_second(1_000_001 + MAX_LIFETIME_SECONDS).unwrap(),
        |a| a.action = Action::Delete { name: "../x".into() },
    ];
    for (at, break_it) in breaks.into_iter().enumerate() {
        let mut act = put();
        break_it(&mut act);
        let refused = Act::parse(&act.to_bytes().unwrap()).unwrap_err();
        assert_eq!(refused.code(), "CM-STMT-0040", "case {at}");
    }
    let nothing = grant(release(Vec::new()));
    assert!(Act::parse(&nothing.to_bytes().unwrap()).is_err());
}

#[test]
fn a_quorum_counts_people_not_keys() {
    let mut trust = TrustFile::parse(TRUST).unwrap().signed;
    let keys: Vec<PrivateKey> =
        (1..=4).map(|seed| PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))).collect();
    let line = |at: usize| keys[at].public_key().to_openssh().unwrap();
    trust.approvers = vec![
        Approver { name: "alice".into(), keys: vec![line(0), line(1)] },
        Approver { name: "bob".into(), keys: vec![line(2)] },
    ];
    trust.check().unwrap();
    let by = |at: usize| -> SshSignature {
        let pem = keys[at].to_openssh(LineEnding::LF).unwrap();
        sign(pem.as_bytes(), None, "casemate-act", b"act").unwrap()
    };
    let count = |signatures: &[SshSignature], message: &[u8]| {
        quorum::people(&trust, "casemate-act", message, signatures, 2)
    };
    let people = count(&[by(1), by(2)], b"act").unwrap();
    assert_eq!(people.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["alice", "bob"]);
    let code = |signatures: &[SshSignature]| count(signatures, b"act").unwrap_err().code();
    assert_eq!(code(&[by(0)]), "CM-STMT-0052");
    assert_eq!(code(&[by(0), by(0)]), "CM-STMT-0051");
    assert_eq!(code(&[by(0), by(1)]), "CM-STMT-0051");
    assert_eq!(code(&[by(0), by(3)]), "CM-STMT-0050");
    assert!(matches!(
        count(&[by(0), by(2)], b"another act"),
        Err(StatementError::Signature { .. })
    ));
    let namespace = quorum::people(&trust, "casemate-trust", b"act", &[by(0), by(2)], 2);
    assert!(matches!(namespace, Err(StatementError::Namespace { .. })));
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes: Vec<u8>) {
        let _ = HashedRekord::parse(&bytes);
        let _ = Envelope::parse(&bytes);
        let _ = Statement::<Approval>::parse(&bytes);
        let _ = sigstore::Bundle::parse(&bytes);
        let _ = Act::parse(&bytes);
        let _ = casemate_statement::bundle::ReleaseBundle::parse(&bytes);
    }

    #[test]
    fn no_altered_golden_file_panics_or_reads_as_the_same(
        at in 0usize..500, byte: u8, which in 0usize..3,
    ) {
        let files: [&[u8]; 3] = [
            include_bytes!("data/golden/leaf.json"),
            include_bytes!("data/golden/act.json"),
            include_bytes!("data/golden/entry.json"),
        ];
        let honest = files[which].trim_ascii_end();
        let mut altered = honest.to_vec();
        altered[at % honest.len()] = byte;
        if altered != honest {
            // leaves and acts have one encoding: another file is another leaf or act
            if let Ok(record) = HashedRekord::parse(&altered) {
                prop_assert_eq!(record.to_leaf().unwrap(), altered.clone());
            }
            if let Ok(act) = Act::parse(&altered) {
                prop_assert_eq!(act.to_bytes().unwrap(), altered.clone());
            }
            let _ = serde_json::from_slice::<LogEntry>(&altered);
        }
    }
}
