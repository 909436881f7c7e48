//! The command as its users call it: exit statuses, codes, formats, and what survives `kill -9`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

fn casemate(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().expect("casemate starts")
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casemate"));
    command.args(args).current_dir(dir).stdin(Stdio::null()).env_remove("CASEMATE_DIR");
    command
}

fn ok(dir: &Path, args: &[&str]) -> String {
    let output = casemate(dir, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "casemate {}: {errors}", args.join(" "));
    String::from_utf8(output.stdout).expect("text")
}

/// Exit status and standard error of a command that must not succeed.
fn refused(dir: &Path, args: &[&str]) -> (i32, String) {
    let output = casemate(dir, args);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let status = output.status.code().unwrap_or(-1);
    assert_ne!(status, 0, "casemate {} succeeded", args.join(" "));
    assert!(!errors.contains("panicked"), "{errors}");
    (status, errors)
}

fn ssh_key(dir: &Path, name: &str) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name])
        .current_dir(dir)
        .status()
        .expect("ssh-keygen, of Debian's openssh-client");
    assert!(status.success());
}

/// An installation with one approver, in a directory of its own.
fn installation() -> TempDir {
    let dir = tempfile::tempdir().expect("directory");
    ssh_key(dir.path(), "alice");
    ok(dir.path(), &["init", "--approver", "alice=alice.pub", "--threshold", "1"]);
    dir
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_expected() {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("junk"), b"\x00\xff junk").expect("file");
    for (args, code) in [
        (&["frobnicate"][..], "unrecognized"),
        (&["init", "--threshold", "1"], "--approver"),
        (&["init", "--approver", "alice", "--threshold", "1"], "CM-CLI-0002"),
        (&["init", "--approver", "alice=missing.pub", "--threshold", "1"], "CM-CLI-0001"),
        (&["init", "--approver", "alice=junk", "--threshold", "1"], "CM-CLI-0002"),
        (&["run"], "CM-ENCL-0010"),
        (&["run", "--root", "oci:x", "--", "true"], "CM-CLI-0002"),
        (&["run", "--spec", "junk", "--", "true"], "CM-CLI-0002"),
        (&["run", "--spec", "missing.toml", "--", "true"], "CM-CLI-0001"),
        (&["measure", "--diff", "junk", "junk"], "CM-CLI-0002"),
        (&["evidence", "verify", "junk", "--trust", "junk", "--nonce", "00"], "CM-"),
    ] {
        let (status, errors) = refused(dir.path(), args);
        assert!(errors.contains(code), "{args:?}: {errors}");
        if code != "CM-" {
            assert_eq!(status, 2, "{args:?}: {errors}");
        }
    }
    assert!(!dir.path().join(".casemate").exists(), "a refused init left something behind");
}

#[test]
fn a_missing_installation_or_service_ends_with_3_and_says_how_to_get_one() {
    let empty = tempfile::tempdir().expect("directory");
    let (status, errors) = refused(empty.path(), &["ledger", "show"]);
    assert_eq!(status, 3, "{errors}");
    assert!(errors.contains("CM-CLI-0011") && errors.contains("casemate init"), "{errors}");
    let made = installation();
    let (status, errors) = refused(made.path(), &["ledger", "show"]);
    assert_eq!(status, 3, "{errors}");
    assert!(errors.contains("CM-CLI-0010") && errors.contains("casemate serve"), "{errors}");
}

#[test]
fn init_never_overwrites_an_installation() {
    let dir = installation();
    let trust = fs::read(dir.path().join(".casemate/trust.json")).expect("trust file");
    let (status, errors) =
        refused(dir.path(), &["init", "--approver", "alice=alice.pub", "--threshold", "1"]);
    assert!(status == 2 && errors.contains("CM-CLI-0012"), "{errors}");
    assert_eq!(fs::read(dir.path().join(".casemate/trust.json")).expect("trust file"), trust);
}

#[test]
fn junk_in_place_of_any_file_is_refused_with_a_code() {
    let dir = installation();
    for (name, content) in [
        ("empty", &b""[..]),
        ("junk", &b"\x00\xff\xfe"[..]),
        ("json", &b"{}"[..]),
        ("deep", &[b'['; 100_000][..]),
    ] {
        fs::write(dir.path().join(name), content).expect("file");
        for args in [
            &["verify", "alice", "--bundle", name, "--trust", ".casemate/trust.json"][..],
            &["verify", "alice", "--bundle", name, "--trust", name],
            &["trace", "alice", "--bundle", name],
            &["approve", name, "--key", "alice"],
            &["sign", name],
            &["evidence", "inspect", name],
            &["trust", "install", name],
            &["secret", "submit", name, "--signature", name],
            &["ledger", "verify", "--known", name],
        ] {
            let (_, errors) = refused(dir.path(), args);
            assert!(errors.contains("CM-"), "{args:?}: {errors}");
        }
    }
}

#[test]
fn results_and_refusals_are_json_when_asked() {
    let dir = installation();
    let shown = ok(dir.path(), &["--format", "json", "trust", "show"]);
    let value: serde_json::Value = serde_json::from_str(&shown).expect("json");
    assert_eq!(value["signed"]["version"], 1);
    let output = casemate(dir.path(), &["--format", "json", "ledger", "show"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!(value["error"]["code"], "CM-CLI-0010");
}

#[test]
fn help_manual_and_completions_are_whole_and_narrow() {
    let dir = tempfile::tempdir().expect("directory");
    for args in [&["--help"][..], &["run", "--help"], &["secret", "grant", "--help"]] {
        let help = ok(dir.path(), args);
        let wide = help.lines().find(|l| l.chars().count() > 80);
        assert!(wide.is_none(), "{args:?}: {wide:?}");
    }
    assert!(ok(dir.path(), &["man"]).contains("casemate"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(ok(dir.path(), &["completions", shell]).contains("casemate"));
    }
}

#[test]
fn a_program_keeps_its_streams_and_its_status() {
    let dir = tempfile::tempdir().expect("directory");
    let output = casemate(dir.path(), &["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"out\n");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("err\n") && errors.contains("SIMULATED"), "{errors}");
}

#[test]
fn what_is_measured_is_what_runs() {
    let dir = tempfile::tempdir().expect("directory");
    let measured = ok(dir.path(), &["measure", "--", "true"]);
    let ran = casemate(dir.path(), &["run", "--", "true"]);
    assert!(String::from_utf8_lossy(&ran.stderr).contains(measured.trim()));
    ok(dir.path(), &["measure", "-o", "one", "--", "true"]);
    let (status, errors) = refused(dir.path(), &["measure", "--diff", "one", "--", "false"]);
    assert!(status == 1 && errors.contains("CM-CLI-0083"), "{errors}");
}

#[test]
fn services_killed_at_any_moment_come_back_as_they_were() {
    let dir = installation();
    fs::write(dir.path().join("value"), "s3cret").expect("value");
    let put = ["secret", "put", "name", "--file", "value", "--key", "alice"];
    for round in 0u64..4 {
        ok(dir.path(), &["serve", "--detach"]);
        let mut client = command(dir.path(), &put).spawn().expect("client");
        std::thread::sleep(Duration::from_millis(15 * round));
        kill_services(dir.path());
        let _ = client.kill();
        let _ = client.wait();
    }
    ok(dir.path(), &["serve", "--detach"]);
    ok(dir.path(), &put);
    let list = ok(dir.path(), &["--format", "json", "secret", "list"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("json");
    assert_eq!(list["secrets"].as_array().map(Vec::len), Some(1), "{list}");
    ok(dir.path(), &["ledger", "verify"]);
    ok(dir.path(), &["stop"]);
    for entry in walk(dir.path()) {
        let bytes = fs::read(&entry).unwrap_or_default();
        let found = bytes.windows(6).any(|w| w == b"s3cret");
        assert!(!found || entry.ends_with("value"), "the value is in {}", entry.display());
    }
}

fn kill_services(dir: &Path) {
    let text = fs::read(dir.join(".casemate/run/serve.json")).expect("addresses");
    let value: serde_json::Value = serde_json::from_slice(&text).expect("json");
    let pid = value["pid"].as_u64().expect("pid").to_string();
    let status = Command::new("kill").args(["-9", &pid]).status().expect("kill");
    assert!(status.success());
    let started = Instant::now();
    while Path::new("/proc").join(&pid).join("exe").exists() {
        assert!(started.elapsed() < Duration::from_secs(10), "services do not die");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn an_ordinary_user_runs_programs() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("this whole test suite runs as an ordinary user");
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    let program = dir.path().join("casemate");
    fs::copy(env!("CARGO_BIN_EXE_casemate"), &program).expect("copy");
    std::os::unix::fs::chown(dir.path(), Some(65_534), Some(65_534)).expect("chown");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["run", "--", "id", "-u"])
        .current_dir(dir.path())
        .output()
        .expect("setpriv");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(output.stdout, b"65534\n");
}
