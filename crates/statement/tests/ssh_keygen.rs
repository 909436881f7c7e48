//! The real `ssh-keygen` makes signatures that are accepted here, and accepts those made here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use casemate_statement::StatementError;
use casemate_statement::sshsig::{SshPublicKey, SshSignature, is_encrypted, public_key_of, sign};

const NAMESPACE: &str = "casemate-approval";
const MESSAGE: &[u8] = b"{\"a\":1}";

const KINDS: [&[&str]; 5] = [
    &["-t", "ed25519"],
    &["-t", "ecdsa", "-b", "256"],
    &["-t", "ecdsa", "-b", "384"],
    &["-t", "ecdsa", "-b", "521"],
    &["-t", "rsa", "-b", "2048"],
];

#[test]
fn accepts_what_ssh_keygen_signs() {
    let dir = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let key = new_key(dir.path(), kind, "");
        for hash in ["sha256", "sha512"] {
            let armored = sign_with_ssh_keygen(&key, hash);
            let signature = SshSignature::parse(&armored).unwrap();
            assert_eq!(signature.to_armored(), armored);
            assert_eq!(signature.verify(NAMESPACE, MESSAGE), Ok(()), "{kind:?} {hash}");
            assert!(signature.verify(NAMESPACE, b"another").is_err());
            let line = std::fs::read_to_string(key.with_extension("pub")).unwrap();
            assert_eq!(signature.key(), &SshPublicKey::parse(&line).unwrap());
            signature.record(MESSAGE).verify(&signature.covered(MESSAGE)).unwrap();
        }
    }
}

#[test]
fn ssh_keygen_accepts_what_is_signed_here() {
    let dir = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let key = new_key(dir.path(), kind, "");
        let pem = std::fs::read(&key).unwrap();
        let signature = sign(&pem, None, NAMESPACE, MESSAGE).unwrap();
        assert_eq!(signature.verify(NAMESPACE, MESSAGE), Ok(()));
        let line = public_key_of(&pem).unwrap().to_line();
        assert!(ssh_keygen_accepts(dir.path(), &line, &signature, MESSAGE), "{kind:?}");
        assert!(!ssh_keygen_accepts(dir.path(), &line, &signature, b"another"), "{kind:?}");
    }
}

#[test]
fn private_numbers_with_leading_zeros_sign_too() {
    let dir = tempfile::tempdir().unwrap();
    // half of all P-521 numbers need a byte less than the curve
    for at in 0..8 {
        let sub = dir.path().join(at.to_string());
        std::fs::create_dir(&sub).unwrap();
        let pem = std::fs::read(new_key(&sub, KINDS[3], "")).unwrap();
        assert!(sign(&pem, None, NAMESPACE, MESSAGE).is_ok());
    }
}

#[test]
fn fingerprints_are_those_of_ssh_keygen() {
    let dir = tempfile::tempdir().unwrap();
    let key = new_key(dir.path(), KINDS[0], "");
    let out = Command::new("ssh-keygen").args(["-l", "-f"]).arg(&key).output().unwrap();
    let out = String::from_utf8(out.stdout).unwrap();
    let pem = std::fs::read(&key).unwrap();
    assert!(out.contains(&public_key_of(&pem).unwrap().fingerprint()), "{out}");
}

#[test]
fn signs_with_an_encrypted_key_and_its_passphrase_only() {
    let dir = tempfile::tempdir().unwrap();
    let authenticated: &[&str] = &["-t", "ecdsa", "-Z", "aes256-gcm@openssh.com"];
    for kind in [KINDS[0], KINDS[4], authenticated] {
        let key = new_key(dir.path(), kind, "correct horse");
        let pem = std::fs::read(&key).unwrap();
        assert!(is_encrypted(&pem).unwrap());
        let line = public_key_of(&pem).unwrap().to_line();
        for wrong in [None, Some("battery staple"), Some("")] {
            let refused = sign(&pem, wrong, NAMESPACE, MESSAGE);
            assert!(matches!(refused, Err(StatementError::Passphrase(_))), "{wrong:?}");
        }
        let signature = sign(&pem, Some("correct horse"), NAMESPACE, MESSAGE).unwrap();
        assert!(ssh_keygen_accepts(dir.path(), &line, &signature, MESSAGE));
    }
}

#[test]
fn refuses_key_files_that_can_not_sign() {
    let dir = tempfile::tempdir().unwrap();
    let key = new_key(dir.path(), KINDS[0], "");
    let public = std::fs::read(key.with_extension("pub")).unwrap();
    let mut broken = std::fs::read(&key).unwrap();
    assert!(sign(&broken, None, NAMESPACE, MESSAGE).is_ok());
    broken.truncate(200);
    let old = new_key(dir.path(), &["-t", "rsa", "-b", "2048", "-m", "PEM"], "");
    let old = std::fs::read(old).unwrap();
    for pem in [public, broken, old, Vec::new()] {
        let refused = sign(&pem, None, NAMESPACE, MESSAGE);
        assert!(matches!(refused, Err(StatementError::PrivateKey(_))), "{refused:?}");
    }
    let short = new_key(dir.path(), &["-t", "rsa", "-b", "1024"], "");
    let armored = sign_with_ssh_keygen(&short, "sha512");
    assert!(matches!(SshSignature::parse(&armored), Err(StatementError::PublicKey(_))));
}

fn new_key(dir: &Path, kind: &[&str], passphrase: &str) -> PathBuf {
    let path = dir.join(format!("{}-{}", kind.join(""), passphrase.len()));
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-C", "comment", "-N", passphrase]).args(kind).arg("-f").arg(&path);
    assert!(command.status().expect("ssh-keygen (package openssh-client)").success());
    path
}

fn sign_with_ssh_keygen(key: &Path, hash: &str) -> String {
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", NAMESPACE, "-O", &format!("hashalg={hash}"), "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("ssh-keygen (package openssh-client)");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), MESSAGE).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap()
}

fn ssh_keygen_accepts(dir: &Path, line: &str, signature: &SshSignature, message: &[u8]) -> bool {
    let (allowed, file) = (dir.join("allowed"), dir.join("signature"));
    std::fs::write(&allowed, format!("alice {line}\n")).unwrap();
    std::fs::write(&file, signature.to_armored()).unwrap();
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "verify", "-I", "alice", "-n", NAMESPACE, "-f"])
        .arg(&allowed)
        .arg("-s")
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("ssh-keygen (package openssh-client)");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), message).unwrap();
    child.wait().unwrap().success()
}
