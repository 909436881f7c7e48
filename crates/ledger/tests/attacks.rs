//! What somebody who can write to the log's directory can do, and what is said about it.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::fs;
use std::path::Path;

use casemate_ledger::LedgerError;
use casemate_ledger::audit::{Audited, verify_dir};
use casemate_ledger::store::Log;
use casemate_spec::Coded as _;
use casemate_tlog::Checkpoint;
use casemate_tlog::note::Signer;
use common::{copy, files, fill, leaf, signer};
use proptest::prelude::*;
use tempfile::TempDir;

/// A log of 600 leaves: two full bundles and one of 88.
fn log_of_600() -> TempDir {
    let dir = tempfile::tempdir().expect("dir");
    let log = Log::create(dir.path(), signer()).expect("log");
    fill(&log, 0, 600);
    drop(log);
    judge(dir.path(), None).expect("honest twin");
    dir
}

fn judge(dir: &Path, known: Option<&Checkpoint>) -> Result<Audited, LedgerError> {
    verify_dir(dir, signer().verifier(), known)
}

/// The same refusal from the audit and from opening the log, by code and by text.
fn refused(dir: &Path, known: Option<&Checkpoint>, code: &str, says: &str) {
    let audit = judge(dir, known).expect_err("audit accepted it");
    let open = Log::open(dir, signer(), known).err().expect("opening accepted it");
    for error in [audit, open] {
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn names_the_leaf_that_was_edited() {
    let dir = log_of_600();
    let path = dir.path().join("tile/entries/001");
    let text = fs::read(&path).expect("bundle");
    let at = text.windows(8).position(|w| w == b"leaf 300").expect("leaf 300");
    let mut edited = text.clone();
    edited[at] = b'L';
    fs::write(&path, edited).expect("editing");
    refused(dir.path(), None, "CM-LEDG-0001", "leaf 300 in tile/entries/001 was edited");
    fs::write(&path, text).expect("restoring");
    judge(dir.path(), None).expect("honest twin");
}

#[test]
fn tells_an_edited_hash_from_an_edited_leaf() {
    for path in ["tile/0/001", "tile/1/000.p/2"] {
        let dir = log_of_600();
        let path_on_disk = dir.path().join(path);
        let mut hashes = fs::read(&path_on_disk).expect("tile");
        hashes[40] ^= 1;
        fs::write(&path_on_disk, hashes).expect("editing");
        refused(dir.path(), None, "CM-LEDG-0006", path);
    }
}

#[test]
fn refuses_leaves_and_hashes_edited_to_agree_with_each_other() {
    let (dir, other) = (log_of_600(), tempfile::tempdir().expect("dir"));
    let log = Log::create(other.path(), signer()).expect("log");
    fill(&log, 1000, 1600);
    drop(log);
    fs::copy(other.path().join("tile/entries/000"), dir.path().join("tile/entries/000"))
        .expect("copy");
    fs::copy(other.path().join("tile/0/000"), dir.path().join("tile/0/000")).expect("copy");
    refused(dir.path(), None, "CM-LEDG-0007", "of another tree");
}

#[test]
fn names_the_tile_that_was_removed() {
    for path in ["tile/entries/000", "tile/0/000", "tile/0/002.p/88", "tile/1/000.p/2"] {
        let dir = log_of_600();
        fs::remove_file(dir.path().join(path)).expect("removing");
        refused(dir.path(), None, "CM-LEDG-0002", &format!("{path} was removed"));
    }
}

#[test]
fn says_where_a_truncated_log_ends() {
    let dir = log_of_600();
    fs::remove_dir_all(dir.path().join("tile/entries/002.p")).expect("removing");
    refused(dir.path(), None, "CM-LEDG-0003", "says 600 leaves, its entries end after 512");
    let dir = log_of_600();
    let last = dir.path().join("tile/entries/002.p");
    fs::rename(last.join("88"), last.join("80")).expect("renaming");
    refused(dir.path(), None, "CM-LEDG-0003", "says 600 leaves, its entries end after 592");
    let dir = log_of_600();
    let path = dir.path().join("tile/entries/002.p/88");
    let content = fs::read(&path).expect("bundle");
    fs::write(&path, &content[..content.len() - 3]).expect("cutting");
    refused(dir.path(), None, "CM-LEDG-0006", "expected 88 leaves, it ends in leaf 87");
}

#[test]
fn refuses_a_log_that_was_rolled_back_to_an_honest_earlier_state() {
    let (dir, earlier) = (log_of_600(), tempfile::tempdir().expect("dir"));
    copy(dir.path(), earlier.path());
    let log = Log::open(dir.path(), signer(), None).expect("log");
    fill(&log, 600, 700);
    let known = log.published().checkpoint.clone();
    drop(log);
    judge(dir.path(), Some(&known)).expect("honest twin");
    refused(
        earlier.path(),
        Some(&known),
        "CM-LEDG-0004",
        "had 700 leaves or more, its checkpoint says 600",
    );
    // nobody can see this without knowing the later checkpoint
    judge(earlier.path(), None).expect("an honest earlier state");
}

#[test]
fn refuses_an_old_checkpoint_beside_newer_tiles_even_when_nothing_is_known() {
    let dir = log_of_600();
    let old = fs::read(dir.path().join("checkpoint")).expect("checkpoint");
    let log = Log::open(dir.path(), signer(), None).expect("log");
    fill(&log, 600, 700);
    drop(log);
    fs::write(dir.path().join("checkpoint"), &old).expect("rolling back");
    refused(dir.path(), None, "CM-LEDG-0004", "had 700 leaves or more, its checkpoint says 600");
}

#[test]
fn refuses_to_append_after_a_checkpoint_that_is_older_than_one_crash_explains() {
    let dir = tempfile::tempdir().expect("dir");
    let log = Log::create(dir.path(), signer()).expect("log");
    fill(&log, 0, 256);
    let earlier = tempfile::tempdir().expect("dir");
    copy(dir.path(), earlier.path());
    fill(&log, 256, 12_000);
    drop(log);
    Log::open(dir.path(), signer(), None).expect("honest twin");
    copy(earlier.path(), dir.path());
    judge(dir.path(), None).expect("all tiles of the earlier state are there");
    let refusal = Log::open(dir.path(), signer(), None).err().expect("opening accepted it");
    assert_eq!(refusal.code(), "CM-LEDG-0004", "{refusal}");
}

#[test]
fn refuses_a_fork_that_the_log_itself_signed() {
    let (dir, fork) = (log_of_600(), tempfile::tempdir().expect("dir"));
    let log = Log::create(fork.path(), signer()).expect("log");
    fill(&log, 0, 500);
    fill(&log, 2000, 2200);
    drop(log);
    let known = judge(dir.path(), None).expect("log").checkpoint;
    judge(fork.path(), None).expect("a tree of its own");
    refused(fork.path(), Some(&known), "CM-LEDG-0005", "forked: at 600 leaves");
    judge(dir.path(), Some(&known)).expect("honest twin");
}

#[test]
fn refuses_a_checkpoint_by_another_key_altered_or_gone() {
    let dir = log_of_600();
    let path = dir.path().join("checkpoint");
    let note = fs::read_to_string(&path).expect("checkpoint");
    let stranger = Signer::from_seed("log.example/test", &[8; 32]).expect("key");
    let refusal = verify_dir(dir.path(), stranger.verifier(), None).expect_err("stranger");
    assert_eq!(refusal.code(), "CM-LEDG-0008");
    fs::write(&path, note.replace("\n600\n", "\n601\n")).expect("altering");
    refused(dir.path(), None, "CM-LEDG-0008", "does not verify");
    fs::write(&path, [0xff; 10]).expect("altering");
    refused(dir.path(), None, "CM-LEDG-0012", "UTF-8");
    fs::remove_file(&path).expect("removing");
    refused(dir.path(), None, "CM-LEDG-0009", "has no checkpoint");
    let again = Log::create(dir.path(), signer()).err().expect("a log over a log");
    assert_eq!(again.code(), "CM-LEDG-0010");
    fs::write(&path, note).expect("restoring");
    judge(dir.path(), None).expect("honest twin");
}

#[test]
fn refuses_a_second_writer_and_lets_it_in_after_the_first() {
    let dir = log_of_600();
    let first = Log::open(dir.path(), signer(), None).expect("first");
    let second = Log::open(dir.path(), signer(), None).err().expect("two writers");
    assert_eq!(second.code(), "CM-LEDG-0011");
    drop(first);
    Log::open(dir.path(), signer(), None).expect("second");
}

#[test]
fn gives_the_same_leaf_the_same_position_before_and_after_opening() {
    let dir = log_of_600();
    let log = Log::open(dir.path(), signer(), None).expect("log");
    assert_eq!(
        log.append(leaf(300)).expect("known leaf").index,
        log.append(leaf(300)).expect("again").index
    );
    assert_eq!(log.published().checkpoint.size, 600);
    let new = log.append(leaf(600)).expect("new leaf");
    assert_eq!((new.index, new.published.checkpoint.size), (600, 601));
    let refusal = log.append(vec![0; 65_536]).expect_err("too large");
    assert_eq!(refusal.code(), "CM-TLOG-0009");
    assert_eq!(log.append(vec![0; 65_535]).expect("largest").index, 601);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn refuses_any_altered_byte_of_any_file(which in any::<usize>(), at in any::<usize>(), bit in 0u8..8, cut in any::<bool>()) {
        let dir = tempfile::tempdir().expect("dir");
        let log = Log::create(dir.path(), signer()).expect("log");
        fill(&log, 0, 300);
        drop(log);
        let mut all = files(&dir.path().join("tile"));
        all.push(dir.path().join("checkpoint"));
        let path = &all[which % all.len()];
        let mut content = fs::read(path).expect("file");
        let at = at % content.len();
        match cut {
            true => content.truncate(at),
            false => content[at] ^= 1 << bit,
        }
        fs::write(path, content).expect("altering");
        prop_assert!(judge(dir.path(), None).is_err(), "{path:?} byte {at}");
        prop_assert!(Log::open(dir.path(), signer(), None).is_err());
    }
}
