//! Commits verified per second, and what one `git verify-commit` per commit manages in the same
//! run on the same repository. `cargo bench -p casemate-provenance --bench source [COMMITS]`.

#![allow(clippy::print_stdout, clippy::expect_used)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use casemate_provenance::source::signed_commits::{Author, Change, Identity, NewCommit};
use casemate_provenance::source::{FileMode, parse_allowed_signers, verify};
use jiff::tz::TimeZone;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};

const START: i64 = 1_700_000_000;
const EMAIL: &str = "dev@example.org";
/// Commits that git verifies, one process each, evenly over the history.
const SAMPLE: usize = 40;

fn main() {
    let commits = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(5000);
    let dir = tempfile::tempdir().expect("a directory");
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
    let line = format!("{EMAIL} {}\n", key.public_key().to_openssh().expect("a key"));
    let signers = dir.path().join("signers");
    std::fs::write(&signers, &line).expect("writing");
    let repo = dir.path().join("repo");
    let pem = key.to_openssh(LineEnding::LF).expect("a key");
    make(&repo, pem.as_bytes(), commits);
    let packed = git(&repo, &["repack", "-adq"]);
    println!(
        "{commits} commits signed by Ed25519 keys, {}",
        if packed { "packed" } else { "loose" }
    );

    let developers = parse_allowed_signers(&line, &TimeZone::UTC).expect("parses");
    let now = START + 10 * i64::try_from(commits).expect("fits") + 100;
    let mut best = f64::INFINITY;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let begin = Instant::now();
        let verified = verify(&repo, "HEAD", &developers, None, now).expect("verifies");
        best = best.min(begin.elapsed().as_secs_f64());
        assert_eq!(verified.commits.len(), commits);
        // By id, so that git does not walk history to find what to verify.
        let step = (commits / SAMPLE).max(1);
        ids = verified.commits.iter().step_by(step).map(|c| c.id.to_string()).collect();
    }
    let ours = rate(commits, best);
    println!("casemate, whole history with its file table: {ours:>9.0} commits/s");

    let allowed = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    let begin = Instant::now();
    for id in &ids {
        if !git(&repo, &["-c", &allowed, "verify-commit", id]) {
            println!("git verify-commit: not available on this machine, no ratio");
            return;
        }
    }
    let theirs = rate(ids.len(), begin.elapsed().as_secs_f64());
    println!("git verify-commit, one process each:         {theirs:>9.0} commits/s");
    println!("ratio: {:.0}", ours / theirs);
}

fn rate(count: usize, seconds: f64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / seconds
}

fn make(repo: &Path, key: &[u8], commits: usize) {
    let author = Author::init(repo).expect("a repository");
    let who = Identity { name: "Dev", email: EMAIL };
    let mut time = START;
    for i in 0..commits {
        let (path, content) = (format!("d{}/f{}", i % 20, i % 100), format!("version {i}\n"));
        let change =
            Change { path: &path, mode: FileMode::Regular, content: Some(content.as_bytes()) };
        let new = NewCommit {
            changes: &[change],
            message: "a change like any other\n\nwith a few words about why it was made",
            author: who,
            committer: who,
            time,
            key: Some(key),
            parents: None,
        };
        author.commit(&new).expect("commits");
        time += 10;
    }
}

fn git(repo: &Path, args: &[&str]) -> bool {
    Command::new("git")
        .args(args)
        .current_dir(repo)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}
