//! The service and its client, honest and not.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use casemate_ledger::client::Client;
use casemate_ledger::store::Log;
use casemate_ledger::{LedgerError, service};
use casemate_spec::{Coded as _, Sha256};
use casemate_statement::dsse::Envelope;
use casemate_statement::rekor::HashedRekord;
use casemate_statement::{SigningKey, sshsig};
use casemate_tlog::note::Signer;
use common::{copy, signer};
use tempfile::TempDir;

/// The address of a service over `log`, which runs until the test ends.
fn serve(log: Log) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    std::thread::spawn(move || service::serve(listener, Arc::new(log)));
    url
}

fn client(url: &str) -> Client {
    Client::new(url, signer().verifier().clone())
}

fn started() -> (TempDir, Client) {
    let dir = tempfile::tempdir().expect("dir");
    let url = serve(Log::create(dir.path(), signer()).expect("log"));
    (dir, client(&url))
}

fn key() -> SigningKey {
    SigningKey::generate().expect("key").0
}

fn add(client: &Client, key: &SigningKey, message: &[u8]) -> u64 {
    let signature = key.sign(message).expect("signing");
    let scheme = key.public().scheme();
    let record = HashedRekord::new(message, signature, key.public().clone(), scheme);
    client.add(&record, &[message]).expect("added").log_index
}

#[test]
fn logs_an_envelope_and_returns_it_with_a_proof_that_verifies_offline() {
    let (_dir, client) = started();
    let key = key();
    let envelope = Envelope::sign(&key, br#"{"a":1}"#.to_vec()).expect("envelope");
    let entry = client.add_dsse(&envelope, key.public()).expect("added");
    let logged = entry.verify(client.key()).expect("offline");
    assert_eq!((logged.index, logged.size), (0, 1));
    logged.record.verify(&envelope.pae()).expect("signature");
    let digest = Sha256::of(&envelope.pae());
    assert_eq!(client.blob(&digest).expect("blob"), envelope.pae());
    let again = client.add_dsse(&envelope, key.public()).expect("again");
    assert_eq!(again.log_index, 0);
    assert_eq!(client.checkpoint().expect("checkpoint").checkpoint.size, 1);
    let proved = client.entry(0).expect("entry");
    assert_eq!(proved.canonicalized_body, entry.canonicalized_body);
}

#[test]
fn logs_a_persons_signature_with_the_bytes_that_it_covers() {
    let (_dir, client) = started();
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&[5; 32]);
    let pem = ssh_key::PrivateKey::from(pair).to_openssh(ssh_key::LineEnding::LF).expect("key");
    let signature = sshsig::sign(pem.as_bytes(), None, "casemate-test", b"yes").expect("signature");
    let entry = client.add_sshsig(&signature, b"yes").expect("added");
    let logged = entry.verify_record(client.key(), &signature.record(b"yes")).expect("offline");
    let covered = client.blob(&Sha256::of(&signature.covered(b"yes"))).expect("covered bytes");
    logged.record.verify(&covered).expect("signature");
    assert_eq!(client.blob(&Sha256::of(b"yes")).expect("message"), b"yes");
    let refusal = client.add_sshsig(&signature, b"no").expect_err("another message");
    assert!(refusal.to_string().contains("does not verify"), "{refusal}");
    let bare = client.add(&signature.record(b"yes"), &[]).expect_err("ed25519 without its bytes");
    assert!(bare.to_string().contains("ed25519"), "{bare}");
}

#[test]
fn reads_every_leaf_with_proof_and_the_growth_of_the_log() {
    let (_dir, client) = started();
    let key = key();
    let before = client.checkpoint().expect("checkpoint").checkpoint;
    for number in 0..3u8 {
        assert_eq!(add(&client, &key, &[number]), u64::from(number));
    }
    let middle = client.checkpoint().expect("checkpoint").checkpoint;
    assert_eq!(add(&client, &key, &[3]), 3);
    let after = client.verify_all().expect("all").checkpoint;
    assert_eq!((before.size, middle.size, after.size), (0, 3, 4));
    assert!(client.consistency(&before, &after).expect("proof").is_empty());
    assert_eq!(client.consistency(&middle, &after).expect("proof").len(), 3);
    let leaves = client.entries(1, 100).expect("entries");
    assert_eq!(leaves.len(), 3);
    for (leaf, number) in leaves.iter().zip(1u8..) {
        HashedRekord::parse(leaf).expect("leaf").verify(&[number]).expect("signature");
    }
    let missing = client.entry(4).expect_err("no such leaf");
    assert_eq!(missing.code(), "CM-TLOG-0001");
    assert_eq!(client.known(), Some(after));
}

#[test]
fn takes_many_clients_at_once_and_gives_each_leaf_one_position() {
    let (_dir, client) = started();
    let (client, key) = (Arc::new(client), Arc::new(key()));
    let threads: Vec<_> = (0..8u8)
        .map(|thread| {
            let (client, key) = (Arc::clone(&client), Arc::clone(&key));
            std::thread::spawn(move || {
                (0..10).map(|i| add(&client, &key, &[thread, i])).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut positions: Vec<u64> =
        threads.into_iter().flat_map(|t| t.join().expect("thread")).collect();
    positions.sort_unstable();
    assert_eq!(positions, (0..80).collect::<Vec<_>>());
    client.verify_all().expect("all");
}

#[test]
fn refuses_an_entry_whose_signature_is_not_over_its_artifact() {
    let (_dir, client) = started();
    let key = key();
    let signature = key.sign(b"one").expect("signing");
    let scheme = key.public().scheme();
    let honest = HashedRekord::new(b"one", signature.clone(), key.public().clone(), scheme);
    let other = HashedRekord::new(b"two", signature, key.public().clone(), scheme);
    for blobs in [&[&b"two"[..]][..], &[]] {
        let refusal = client.add(&other, blobs).expect_err("another artifact");
        assert!(refusal.to_string().contains("does not verify"), "{refusal}");
    }
    assert_eq!(client.checkpoint().expect("checkpoint").checkpoint.size, 0);
    client.add(&honest, &[b"one"]).expect("honest twin");
    client.add(&honest, &[]).expect("by its digest");
}

#[test]
fn refuses_what_is_too_large_or_too_much_and_takes_what_just_fits() {
    let (_dir, client) = started();
    let key = key();
    let large = vec![1; 16 * 1024 * 1024];
    assert_eq!(add(&client, &key, &large), 0);
    let over = vec![1; 16 * 1024 * 1024 + 1];
    let signature = key.sign(&over).expect("signing");
    let record = HashedRekord::new(&over, signature, key.public().clone(), key.public().scheme());
    for blobs in [&[&over[..]][..], &[&large, &large]] {
        let refusal = client.add(&record, blobs).expect_err("too large");
        assert_eq!(refusal.code(), "CM-LEDG-0015", "{refusal}");
    }
    let refusal = client.add(&record, &[b"1", b"2", b"3", b"4", b"5"]).expect_err("too many");
    assert!(
        matches!(&refusal, LedgerError::Refused { code, .. } if code == "CM-LEDG-0016"),
        "{refusal}"
    );
}

#[test]
fn answers_requests_that_make_no_sense_with_a_code_and_stays_up() {
    let dir = tempfile::tempdir().expect("dir");
    let url = serve(Log::create(dir.path(), signer()).expect("log"));
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).build().into();
    for (path, status) in [
        ("/nothing", 404),
        ("/tile/0/000", 404),
        ("/tile/entries/0", 400),
        ("/tile/0/../../checkpoint", 400),
        ("/v1/blob/..%2f..%2fcheckpoint", 400),
        (&format!("/v1/blob/{}", Sha256::of(b"")), 404),
        ("/v1/proof", 400),
        ("/v1/proof?index=-1&size=0", 400),
        ("/v1/proof?index=0&size=18446744073709551615", 400),
        ("/v1/consistency?from=2&to=1", 400),
        ("/v1/entries", 404),
    ] {
        let mut answer = agent.get(format!("{url}{path}")).call().expect("answer");
        let body = answer.body_mut().read_to_string().expect("body");
        assert_eq!(answer.status().as_u16(), status, "{path}: {body}");
        assert!(body.contains("\"code\":\"CM-"), "{path}: {body}");
    }
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"entry":1}"#,
        r#"{"entry":{},"blobs":[],"x":1}"#,
        r#"{"entry":{},"blobs":["*"]}"#,
    ] {
        let mut answer = agent.post(format!("{url}/v1/entries")).send(body).expect("answer");
        let text = answer.body_mut().read_to_string().expect("body");
        assert_eq!(answer.status().as_u16(), 422, "{body}: {text}");
        assert!(text.contains("\"code\":\"CM-STMT-"), "{body}: {text}");
    }
    let answer = announce(&url, 24 * 1024 * 1024);
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("CM-LEDG-0015"), "{answer}");
    let mut health = agent.get(format!("{url}/healthz")).call().expect("health");
    assert_eq!(health.body_mut().read_to_string().expect("body"), "ok\n");
}

/// The answer to a request that announces `length` bytes and sends none.
fn announce(url: &str, length: usize) -> String {
    let address = url.strip_prefix("http://").expect("url");
    let mut stream = std::net::TcpStream::connect(address).expect("connection");
    write!(stream, "POST /v1/entries HTTP/1.1\r\nhost: log\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n").expect("sending");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    answer
}

#[test]
fn client_refuses_a_log_of_another_key() {
    let dir = tempfile::tempdir().expect("dir");
    let stranger = Signer::from_seed("log.example/test", &[9; 32]).expect("key");
    let url = serve(Log::create(dir.path(), stranger).expect("log"));
    let refusal = client(&url).checkpoint().expect_err("another key");
    assert_eq!(refusal.code(), "CM-TLOG-0012");
    let key = key();
    let envelope = Envelope::sign(&key, b"{}".to_vec()).expect("envelope");
    let client = client(&url);
    client.add_dsse(&envelope, key.public()).expect_err("another key");
    assert_eq!(client.known(), None, "it remembered what it had not verified");
}

#[test]
fn client_refuses_a_log_that_was_rolled_back_or_forked_since() {
    let (dir, client) = started();
    let (key, earlier) = (key(), tempfile::tempdir().expect("dir"));
    add(&client, &key, b"1");
    copy(dir.path(), earlier.path());
    add(&client, &key, b"2");
    let known = client.known().expect("known");
    let reopen = |dir: &Path| {
        let log = Log::open(dir, signer(), None).expect("an honest earlier state");
        Client::new(&serve(log), signer().verifier().clone()).knowing(known.clone())
    };
    let later = reopen(earlier.path());
    let refusal = later.checkpoint().expect_err("rolled back");
    assert_eq!(refusal.code(), "CM-LEDG-0004", "{refusal}");
    let signature = key.sign(b"3").expect("signing");
    let record = HashedRekord::new(b"3", signature, key.public().clone(), key.public().scheme());
    let refusal = later.add(&record, &[b"3"]).expect_err("forked");
    assert_eq!(refusal.code(), "CM-LEDG-0005", "{refusal}");
    let refusal = later.checkpoint().expect_err("forked");
    assert_eq!(refusal.code(), "CM-LEDG-0005", "{refusal}");
    assert_eq!(later.known(), Some(known.clone()), "it forgot what it knew");
}

#[test]
fn service_refuses_to_hand_out_a_leaf_or_a_blob_edited_under_it() {
    let (dir, client) = started();
    let key = key();
    add(&client, &key, b"blob content");
    let bundle = dir.path().join("tile/entries/000.p/1");
    let honest = fs::read(&bundle).expect("bundle");
    let mut edited = honest.clone();
    let last = edited.len() - 20;
    edited[last] ^= 1;
    fs::write(&bundle, edited).expect("editing");
    let refusal = client.entries(0, 1).expect_err("edited leaf");
    assert!(
        matches!(&refusal, LedgerError::Refused { code, .. } if code == "CM-LEDG-0001"),
        "{refusal}"
    );
    fs::write(&bundle, honest).expect("restoring");
    assert_eq!(client.entries(0, 1).expect("honest twin").len(), 1);
    let digest = Sha256::of(b"blob content");
    let name = digest.to_string();
    let blob = dir.path().join("blob").join(&name[..2]).join(&name[2..]);
    fs::write(&blob, b"Blob content").expect("editing");
    let refusal = client.blob(&digest).expect_err("edited blob");
    assert!(
        matches!(&refusal, LedgerError::Refused { code, .. } if code == "CM-LEDG-0018"),
        "{refusal}"
    );
}

#[test]
fn client_says_that_nobody_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    drop(listener);
    let refusal = client(&url).checkpoint().expect_err("nobody there");
    assert_eq!(refusal.code(), "CM-LEDG-0019");
    assert!(refusal.fix().expect("fix").contains("casemate serve"));
}

/// The address of a service that gives one answer to every request.
fn answer_always(status: u16, body: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("connection");
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.read(&mut [0; 65_536]);
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
            let _ = stream.read(&mut [0; 1]);
        }
    });
    url
}

#[test]
fn client_refuses_the_receipt_of_another_entry() {
    let (_dir, honest) = started();
    let key = key();
    let record = |message: &[u8]| {
        let signature = key.sign(message).expect("signing");
        HashedRekord::new(message, signature, key.public().clone(), key.public().scheme())
    };
    let (one, two) = (record(b"one"), record(b"two"));
    let entry = honest.add(&one, &[b"one"]).expect("added");
    let body = serde_json::to_vec(&serde_json::json!({ "entry": entry })).expect("json");
    let url = answer_always(200, body);
    let refusal = client(&url).add(&two, &[b"two"]).expect_err("another entry");
    assert_eq!(refusal.code().get(..8), Some("CM-STMT-"), "{refusal}");
    assert_eq!(client(&url).add(&one, &[b"one"]).expect("honest twin"), entry);
}

#[test]
fn client_refuses_answers_that_are_none_and_remembers_nothing_of_them() {
    for (status, body) in [
        (200, b"".to_vec()),
        (200, vec![0xff; 100]),
        (200, vec![b'x'; 2 * 1024 * 1024]),
        (200, b"log.example/test\n1\nAAAA\n\n\xe2\x80\x94 x y\n".to_vec()),
        (302, b"elsewhere".to_vec()),
        (500, b"<html>".to_vec()),
    ] {
        let client = client(&answer_always(status, body));
        assert!(client.checkpoint().is_err());
        assert!(client.verify_all().is_err());
        assert!(client.entries(0, 1).is_err());
        assert!(client.blob(&Sha256::of(b"x")).is_err());
        assert_eq!(client.known(), None);
    }
}
