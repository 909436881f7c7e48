//! A log whose process dies, at any moment and at any byte.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use casemate_ledger::audit::verify_dir;
use casemate_ledger::store::Log;
use casemate_tlog::Tile;
use common::{copy, files, fill, leaf, signer};

const DIR: &str = "CASEMATE_TEST_LOG_DIR";
const FIRST: &str = "CASEMATE_TEST_FIRST_LEAF";
const THREADS: u64 = 8;

/// Not a test of its own: the process that the next test kills. Every line it prints is a leaf
/// and the position that the log promised for it.
#[test]
#[ignore = "run by `loses_and_doubles_nothing_when_killed_at_random_moments`"]
fn appends_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let first: u64 = std::env::var(FIRST).expect("first").parse().expect("number");
    let log = Arc::new(Log::open(Path::new(&dir), signer(), None).expect("opening"));
    println!("ready");
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for number in 0.. {
                    let number = first + number * THREADS + thread;
                    let index = log.append(leaf(number)).expect("append").index;
                    let line = format!("{number} {index}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).expect("pipe");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("thread"));
}

#[test]
fn loses_and_doubles_nothing_when_killed_at_random_moments() {
    let dir = tempfile::tempdir().expect("dir");
    drop(Log::create(dir.path(), signer()).expect("log"));
    let mut promised: BTreeMap<u64, u64> = BTreeMap::new();
    let mut known = None;
    for round in 0..25 {
        // begins again with leaves that the killed process may or may not have appended
        let first = promised.len().saturating_sub(40) as u64;
        for (number, index) in run_and_kill(dir.path(), first, round) {
            let before = promised.insert(number, index);
            assert!(before.is_none_or(|before| before == index), "leaf {number} moved");
        }
        let audited = verify_dir(dir.path(), signer().verifier(), known.as_ref()).expect("audit");
        assert!(audited.checkpoint.size >= promised.len() as u64);
        for (number, index) in &promised {
            let expected = casemate_tlog::merkle::leaf_hash(&leaf(*number));
            assert_eq!(audited.tree.leaf(*index), Some(&expected), "leaf {number} was lost");
        }
        let distinct: HashSet<_> =
            (0..audited.checkpoint.size).map(|i| audited.tree.leaf(i)).collect();
        assert_eq!(distinct.len() as u64, audited.checkpoint.size, "a leaf is there twice");
        known = Some(audited.checkpoint);
    }
    assert!(promised.len() > 100, "only {} leaves were ever appended", promised.len());
}

/// What a process promised before it was killed.
fn run_and_kill(dir: &Path, first: u64, round: u32) -> Vec<(u64, u64)> {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "appends_until_it_is_killed", "--ignored", "--nocapture", "--quiet"])
        .env(DIR, dir)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("child");
    let mut output = BufReader::new(child.stdout.take().expect("stdout"));
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert_ne!(output.read_line(&mut line).expect("pipe"), 0, "the child ended by itself");
    }
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).expect("pipe");
        text
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").subsec_nanos();
    let until = Instant::now() + Duration::from_micros(u64::from((now ^ (round * 7919)) % 60_000));
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
    child.kill().expect("kill -9");
    child.wait().expect("wait");
    let text = reader.join().expect("reader");
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let promise = |line: &str| {
        let (number, index) = line.split_once(' ')?;
        Some((number.parse().ok()?, index.parse().ok()?))
    };
    whole.lines().filter_map(promise).collect()
}

/// Builds, file by file and byte by byte, every state in which a crash can leave the directory
/// while a group is written, and opens each of them.
#[test]
fn opens_after_a_crash_at_any_byte_of_a_group() {
    let (before, after) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let log = Log::create(before.path(), signer()).expect("log");
    fill(&log, 0, 250);
    drop(log);
    copy(before.path(), after.path());
    let log = Log::open(after.path(), signer(), None).expect("log");
    fill(&log, 250, 520);
    drop(log);
    let old = verify_dir(before.path(), signer().verifier(), None).expect("old");
    let is_new = |tile: &Tile| !before.path().join(tile.to_string()).exists();
    let new: Vec<Tile> = Tile::added(250, 520).filter(is_new).collect();
    let scratch = tempfile::tempdir().expect("dir");
    let state = scratch.path().join("log");
    for torn in 0..new.len() {
        let name = |tile: &Tile| tile.to_string();
        let content = fs::read(after.path().join(name(&new[torn]))).expect("tile");
        for cut in [0, 1, 31, content.len() / 2, content.len() - 1, content.len()] {
            let _ = fs::remove_dir_all(&state);
            copy(before.path(), &state);
            for tile in &new[..=torn] {
                let target = state.join(name(tile));
                fs::create_dir_all(target.parent().expect("parent")).expect("folder");
                fs::copy(after.path().join(name(tile)), target).expect("copy");
            }
            fs::write(state.join(name(&new[torn])), &content[..cut]).expect("tearing");
            let note = fs::read(after.path().join("checkpoint")).expect("note");
            fs::write(state.join("checkpoint.new"), &note[..note.len() / 2]).expect("tearing");
            let log = Log::open(&state, signer(), Some(&old.checkpoint)).expect("after the crash");
            assert_eq!(log.published().checkpoint, old.checkpoint);
            fill(&log, 240, 520);
            assert_eq!(log.published().checkpoint.size, 520);
            drop(log);
            verify_dir(&state, signer().verifier(), Some(&old.checkpoint)).expect("audit");
        }
    }
}

#[test]
fn keeps_no_partial_tile_that_the_checkpoint_does_not_need() {
    let dir = tempfile::tempdir().expect("dir");
    let log = Log::create(dir.path(), signer()).expect("log");
    for number in 0..300 {
        log.append(leaf(number)).expect("append");
    }
    drop(log);
    let found = files(&dir.path().join("tile"));
    let mut expected: Vec<_> =
        Tile::all(300).map(|tile| dir.path().join(tile.to_string())).collect();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn stops_when_a_write_fails_and_says_so_and_continues_after_opening_again() {
    let dir = tempfile::tempdir().expect("dir");
    let log = Log::create(dir.path(), signer()).expect("log");
    fill(&log, 0, 3);
    let entries = dir.path().join("tile/entries");
    fs::rename(&entries, dir.path().join("aside")).expect("moving");
    fs::write(&entries, b"in the way").expect("blocking");
    let refusal = log.append(leaf(3)).expect_err("no folder to write in");
    assert!(refusal.to_string().contains("tile/entries"), "{refusal}");
    assert_eq!(casemate_spec::Coded::code(&refusal), "CM-LEDG-0013");
    assert!(log.check_running().is_err());
    assert_eq!(log.append(leaf(1)).expect("a leaf it has").published.checkpoint.size, 3);
    assert!(log.append(leaf(3)).is_err(), "nothing may be built on a failed write");
    drop(log);
    fs::remove_file(&entries).expect("clearing");
    fs::rename(dir.path().join("aside"), &entries).expect("moving back");
    let log = Log::open(dir.path(), signer(), None).expect("opening");
    assert_eq!(log.append(leaf(3)).expect("append").index, 3);
}
