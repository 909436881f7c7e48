//! What the tests share: a log's key, and a way to make a log and to copy its directory.
#![allow(dead_code, clippy::expect_used)]

use std::fs;
use std::path::Path;

use casemate_ledger::store::Log;
use casemate_tlog::note::Signer;

pub fn signer() -> Signer {
    Signer::from_seed("log.example/test", &[7; 32]).expect("key")
}

pub fn leaf(number: u64) -> Vec<u8> {
    format!("leaf {number}").into_bytes()
}

/// Appends leaves `from..to`, all in flight together.
pub fn fill(log: &Log, from: u64, to: u64) {
    let (done, answers) = std::sync::mpsc::channel();
    for number in from..to {
        let done = done.clone();
        let tell = move |ticket: Result<_, _>| drop(done.send(ticket.map(|_| ())));
        let mut waiting = log.submit(leaf(number), tell.clone());
        while let Err(casemate_ledger::LedgerError::Busy(_)) = waiting {
            std::thread::yield_now();
            waiting = log.submit(leaf(number), tell.clone());
        }
        waiting.expect("submitted");
    }
    for _ in from..to {
        answers.recv().expect("answer").expect("appended");
    }
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("reading") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("copying")),
        }
    }
}

/// All files below a folder, by path.
pub fn files(root: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).expect("reading") {
        let path = entry.expect("entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}
