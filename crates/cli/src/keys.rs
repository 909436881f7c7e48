//! People's SSH signatures, made with their private key files.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use casemate_spec::Kind;
use casemate_statement::sshsig::{self, SshSignature};

use crate::failure::{self, Failure};
use crate::installation::read;

/// Signs `message` with the key in the file at `path`.
///
/// A plain key file signs in this process. A key with a passphrase, in a security key or in an
/// agent is left to `ssh-keygen -Y sign`, which asks its owner.
///
/// # Errors
/// If the key is unreadable, or its owner or device declines.
pub fn sign(path: &Path, namespace: &str, message: &[u8]) -> Result<SshSignature, Failure> {
    let pem = read(path)?;
    let plain = matches!(sshsig::is_encrypted(&pem), Ok(false))
        && sshsig::public_key_of(&pem).is_ok_and(|k| !k.is_hardware());
    if plain {
        return sshsig::sign(&pem, None, namespace, message)
            .map_err(|e| Failure::from(e).during(&path.display().to_string()));
    }
    ask_ssh_keygen(path, namespace, message)
}

/// Reads an armored signature made elsewhere.
///
/// # Errors
/// If the file is unreadable or holds no SSH signature.
pub fn read_signature(path: &Path) -> Result<SshSignature, Failure> {
    let bytes = read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    SshSignature::parse(&text).map_err(|e| Failure::from(e).during(&path.display().to_string()))
}

fn ask_ssh_keygen(path: &Path, namespace: &str, message: &[u8]) -> Result<SshSignature, Failure> {
    let failed = |why: String| {
        Failure::new("CM-CLI-0040", Kind::Environment, format!("{}: {why}", path.display()))
            .fix("sign by hand (`--print`, then `ssh-keygen -Y sign`) and add it with --signature")
    };
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", namespace, "-f"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("ssh-keygen: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(message).map_err(|e| failed(format!("ssh-keygen: {e}")))?;
    }
    let output = child.wait_with_output().map_err(|e| failed(format!("ssh-keygen: {e}")))?;
    if !output.status.success() {
        return Err(failed("ssh-keygen made no signature".into()));
    }
    let signature = SshSignature::parse(&String::from_utf8_lossy(&output.stdout))?;
    signature.verify(namespace, message).map_err(Failure::from)?;
    Ok(signature)
}

/// 64 hexadecimal digits as a nonce.
///
/// # Errors
/// If it is something else.
pub fn nonce(text: &str) -> Result<[u8; 32], Failure> {
    let mut nonce = [0; 32];
    hex::decode_to_slice(text, &mut nonce).map_err(|_| {
        failure::usage(format!("nonce {text:?}: expected 64 hexadecimal digits"))
            .fix("make one: openssl rand -hex 32")
    })?;
    Ok(nonce)
}
