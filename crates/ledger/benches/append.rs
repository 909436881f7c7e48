//! How many leaves a second become durable, deduplicated and proved, and how long each one waits.
//!
//! Run with `cargo bench -p casemate-ledger`; `LEDGER_BENCH_DIR` names a folder on the disk to be
//! measured, `LEDGER_BENCH_LEAVES` how many leaves to append.
#![allow(clippy::expect_used, clippy::print_stdout)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use casemate_ledger::LedgerError;
use casemate_ledger::audit::verify_dir;
use casemate_ledger::store::Log;
use casemate_tlog::merkle::{leaf_hash, verify_inclusion};
use casemate_tlog::note::Signer;

/// As large as a `hashedrekord` entry with a P-256 key and signature.
const LEAF: usize = 560;
const CLIENTS: u64 = 8;
/// How many answers each client waits for at a time.
const WINDOW: u64 = 512;

fn main() {
    let leaves: u64 =
        setting("LEDGER_BENCH_LEAVES").and_then(|n| n.parse().ok()).unwrap_or(500_000);
    let base =
        setting("LEDGER_BENCH_DIR").map_or(env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let dir = tempfile::tempdir_in(base).expect("folder");
    let log = Arc::new(Log::create(dir.path(), signer()).expect("log"));
    println!(
        "{leaves} leaves of {LEAF} bytes, every tenth sent twice, {CLIENTS} clients, {WINDOW} in flight each"
    );

    let start = Instant::now();
    let each = leaves / CLIENTS;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || append_all(&log, client * each..(client + 1) * each))
        })
        .collect();
    let mut waits: Vec<Duration> =
        clients.into_iter().flat_map(|c| c.join().expect("client")).collect();
    let took = start.elapsed().as_secs_f64();
    let size = log.published().checkpoint.size;
    assert_eq!(size, each * CLIENTS, "a leaf was lost or doubled");
    println!("durable new leaves   {:>10.0} /s", size as f64 / took);
    println!("receipts with proof  {:>10.0} /s", waits.len() as f64 / took);
    report("receipt", &mut waits);

    let mut waits: Vec<Duration> = (0..300)
        .map(|number| {
            let start = Instant::now();
            log.append(leaf(u64::MAX - number)).expect("append");
            start.elapsed()
        })
        .collect();
    report("receipt, one alone", &mut waits);

    drop(log);
    let start = Instant::now();
    let audited = verify_dir(dir.path(), signer().verifier(), None).expect("audit");
    let rate = audited.checkpoint.size as f64 / start.elapsed().as_secs_f64();
    println!("leaves audited       {rate:>10.0} /s");
}

/// Appends leaves with a window of them in flight, and checks every receipt.
fn append_all(log: &Log, numbers: std::ops::Range<u64>) -> Vec<Duration> {
    let (done, answers) = sync_channel(WINDOW as usize * 2);
    let (mut waits, mut flying) = (Vec::new(), 0);
    let take = |waits: &mut Vec<Duration>| {
        let (number, start, ticket): (u64, Instant, Result<_, LedgerError>) =
            answers.recv().expect("answer");
        let receipt = log.receipt(&ticket.expect("appended")).expect("receipt");
        waits.push(start.elapsed());
        if number % 1000 == 0 {
            let state = &receipt.published.checkpoint;
            verify_inclusion(
                receipt.index,
                state.size,
                &leaf_hash(&leaf(number)),
                &receipt.proof,
                &state.root,
            )
            .expect("proof");
        }
    };
    for number in numbers {
        let copies = if number % 10 == 0 { 2 } else { 1 };
        for _ in 0..copies {
            let (done, start) = (done.clone(), Instant::now());
            let tell = move |ticket| drop(done.send((number, start, ticket)));
            log.submit(leaf(number), tell).expect("room for what is in flight");
            flying += 1;
        }
        while flying >= WINDOW {
            take(&mut waits);
            flying -= 1;
        }
    }
    (0..flying).for_each(|_| take(&mut waits));
    waits
}

fn leaf(number: u64) -> Vec<u8> {
    let mut leaf = vec![b'.'; LEAF];
    leaf[..8].copy_from_slice(&number.to_be_bytes());
    leaf
}

fn report(what: &str, waits: &mut [Duration]) {
    waits.sort_unstable();
    let at = |part: usize| waits[(waits.len() - 1) * part / 1000].as_secs_f64() * 1000.0;
    println!("{what:<20} p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms", at(500), at(990), at(999));
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn signer() -> Signer {
    Signer::from_seed("log.example/bench", &[1; 32]).expect("key")
}
