//! Interoperation with the real git and ssh-keygen, which `./test` installs.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};

use casemate_provenance::source::signed_commits::{Author, Change, Identity, NewCommit};
use casemate_provenance::source::{FileMode, dirty, parse_allowed_signers, verify, write_tree};
use casemate_spec::Coded as _;
use jiff::tz::TimeZone;
use tempfile::TempDir;

const NOW: i64 = 1_800_000_000;

/// Runs a program without any configuration of this machine.
fn run(dir: &Path, program: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_DATE", "1700000000 +0200")
        .env("GIT_COMMITTER_DATE", "1700000000 +0200")
        .output()
        .unwrap_or_else(|e| panic!("{program} is needed for this test: {e}"))
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn keygen(dir: &Path, name: &str, args: &[&str]) -> String {
    let mut all = vec!["-q", "-N", "", "-C", "", "-f", name];
    all.extend(args);
    done(&run(dir, "ssh-keygen", &all));
    std::fs::read_to_string(dir.join(format!("{name}.pub"))).expect("a public key")
}

/// A repository made by git itself, whose three commits are signed by three kinds of key.
fn made_by_git(keys: &Path, repo: &Path) -> String {
    let mut signers = String::new();
    done(&run(repo, "git", &["init", "-q", "-b", "main"]));
    for (name, args) in [
        ("ed", &["-t", "ed25519"][..]),
        ("ec", &["-t", "ecdsa", "-b", "384"]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
    ] {
        let public = keygen(keys, name, args);
        signers.push_str(&format!("{name}@example.org namespaces=\"git\" {public}"));
        std::fs::write(repo.join(name), format!("by {name}\n")).expect("writing");
        done(&run(repo, "git", &["add", "."]));
        let email = format!("user.email={name}@example.org");
        let key = format!("user.signingkey={}", keys.join(name).display());
        done(&run(
            repo,
            "git",
            &[
                "-c",
                "user.name=N",
                "-c",
                &email,
                "-c",
                &key,
                "-c",
                "gpg.format=ssh",
                "commit",
                "-q",
                "-S",
                "-m",
                "ünïcode subject\n\n with a body",
            ],
        ));
    }
    signers
}

#[test]
fn verifies_what_git_signed_loose_and_packed() {
    let (keys, repo) = (TempDir::new().expect("keys"), TempDir::new().expect("repo"));
    let signers = made_by_git(keys.path(), repo.path());
    let developers = parse_allowed_signers(&signers, &TimeZone::UTC).expect("parses");
    let loose = verify(repo.path(), "HEAD", &developers, None, NOW).expect("verifies");
    assert_eq!(loose.commit.to_string(), done(&run(repo.path(), "git", &["rev-parse", "HEAD"])));
    assert_eq!(loose.commits.len(), 3);
    done(&run(repo.path(), "git", &["gc", "-q", "--aggressive", "--prune=now"]));
    let packed = verify(repo.path(), "main", &developers, None, NOW).expect("verifies");
    assert_eq!(packed, loose);
    for file in &packed.files {
        let last = done(&run(repo.path(), "git", &["log", "-1", "--format=%H", "--", &file.path]));
        assert_eq!(file.last_commit.to_string(), last);
    }
    assert_eq!(dirty(repo.path()).expect("reads"), None);
    let out = TempDir::new().expect("out");
    write_tree(&packed, repo.path(), out.path()).expect("writes");
    assert_eq!(std::fs::read(out.path().join("rsa")).expect("written"), b"by rsa\n");
}

#[test]
fn refuses_what_git_makes_of_a_history() {
    let (keys, repo) = (TempDir::new().expect("keys"), TempDir::new().expect("repo"));
    let signers = made_by_git(keys.path(), repo.path());
    let developers = parse_allowed_signers(&signers, &TimeZone::UTC).expect("parses");
    let code = |dir: &Path| verify(dir, "HEAD", &developers, None, NOW).map_err(|e| e.code()).err();
    let url = format!("file://{}", repo.path().display());
    let clones = TempDir::new().expect("clones");
    done(&run(clones.path(), "git", &["clone", "-q", "--depth", "1", &url, "shallow"]));
    assert_eq!(code(&clones.path().join("shallow")), Some("CM-SRC-0002"));
    done(&run(
        clones.path(),
        "git",
        &["clone", "-q", "--shared", &repo.path().to_string_lossy(), "shared"],
    ));
    assert_eq!(code(&clones.path().join("shared")), Some("CM-SRC-0005"));
    done(&run(clones.path(), "git", &["clone", "-q", &url, "whole"]));
    assert_eq!(code(&clones.path().join("whole")), None);
    done(&run(repo.path(), "git", &["replace", "HEAD", "HEAD~1"]));
    assert_eq!(code(repo.path()), Some("CM-SRC-0004"));
    done(&run(repo.path(), "git", &["replace", "-d", "HEAD"]));
    assert_eq!(code(repo.path()), None);
    let unsigned = [
        "-c",
        "user.name=N",
        "-c",
        "user.email=ed@example.org",
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        "x",
    ];
    done(&run(repo.path(), "git", &unsigned));
    assert_eq!(code(repo.path()), Some("CM-SRC-0020"));
}

#[test]
fn git_verifies_what_we_signed() {
    let (keys, dir) = (TempDir::new().expect("keys"), TempDir::new().expect("repo"));
    let public = keygen(keys.path(), "k", &["-t", "ed25519"]);
    let key = std::fs::read(keys.path().join("k")).expect("a key");
    let signers = keys.path().join("signers");
    std::fs::write(&signers, format!("a@example.org {public}")).expect("writing");
    let who = Identity { name: "Alice Ä", email: "a@example.org" };
    let author = Author::init(dir.path()).expect("a repository");
    let file = |path, mode, content| Change { path, mode, content: Some(content) };
    for (time, changes) in [
        (
            1_700_000_000,
            vec![
                file("a/b/c", FileMode::Regular, &b"1\n"[..]),
                file("run", FileMode::Executable, b"#!\n"),
            ],
        ),
        (
            1_700_000_100,
            vec![file("l", FileMode::Symlink, b"a/b/c"), file("a.b", FileMode::Regular, b"")],
        ),
        (1_700_000_200, vec![Change { path: "run", mode: FileMode::Regular, content: None }]),
    ] {
        let new = NewCommit {
            changes: &changes,
            message: "subject\n\nbody\n",
            author: who,
            committer: who,
            time,
            key: Some(&key),
            parents: None,
        };
        author.commit(&new).expect("commits");
    }
    let head = author.head().expect("head").expect("a commit");
    author.tag("v1", head, who, 1_700_000_300, Some(&key)).expect("tags");
    let git = |args: &[&str]| {
        let allowed = format!("gpg.ssh.allowedSignersFile={}", signers.display());
        let mut all = vec!["-c", &allowed];
        all.extend(args);
        run(dir.path(), "git", &all)
    };
    for rev in ["HEAD", "HEAD~1", "HEAD~2"] {
        done(&git(&["verify-commit", rev]));
    }
    done(&git(&["verify-tag", "v1"]));
    done(&git(&["fsck", "--strict", "--no-dangling"]));
    assert_eq!(done(&git(&["status", "--porcelain"])), "");
    assert_eq!(done(&git(&["ls-files"])), "a.b\na/b/c\nl");
    std::fs::write(
        &signers,
        format!("b@example.org {}", keygen(keys.path(), "other", &["-t", "ed25519"])),
    )
    .expect("writing");
    assert!(!git(&["verify-commit", "HEAD"]).status.success());
}
