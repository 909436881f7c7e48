//! The demo's people, their keys, and the files they write.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aws_lc_rs::rand;
use casemate_spec::Kind;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};

use crate::failure::{self, Failure};

/// A person with an SSH key on disk.
pub struct Person {
    /// First name.
    pub name: &'static str,
    /// Address in commits.
    pub email: String,
    /// The private key, OpenSSH PEM.
    pub pem: String,
    /// Public key line, without comment.
    pub public: String,
}

impl Person {
    /// A person with a fresh Ed25519 key in `dir`.
    ///
    /// # Errors
    /// If the directory is not writable or the system gives no randomness.
    pub fn new(dir: &Path, name: &'static str) -> Result<Self, Failure> {
        let mut seed = [0; 32];
        rand::fill(&mut seed).map_err(|_| no_key(name, "no randomness"))?;
        let pair = KeypairData::from(Ed25519Keypair::from_seed(&seed));
        let private = PrivateKey::new(pair, name).map_err(|e| no_key(name, &e.to_string()))?;
        let pem = private
            .to_openssh(LineEnding::LF)
            .map_err(|e| no_key(name, &e.to_string()))?
            .to_string();
        let mut public = private.public_key().clone();
        public.set_comment("");
        let public =
            public.to_openssh().map_err(|e| no_key(name, &e.to_string()))?.trim().to_owned();
        let key = dir.join(name);
        write_private(&key, &pem)?;
        let line = format!("{public} {name}\n");
        fs::write(dir.join(format!("{name}.pub")), line)
            .map_err(|e| failure::io("demo key", &e))?;
        Ok(Self { name, email: format!("{name}@example.org"), pem, public })
    }
}

fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let write = || {
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
    };
    write().map_err(|e| failure::io(&path.display().to_string(), &e))
}

fn no_key(name: &str, why: &str) -> Failure {
    Failure::new("CM-CLI-0032", Kind::Environment, format!("demo: key of {name}: {why}"))
}

/// The example's files, each with the person who writes it.
pub const FILES: [(&str, &str, &str); 9] = [
    ("dora", ".gitignore", include_str!("../../../../examples/hello-release/.gitignore")),
    ("dora", "Makefile", include_str!("../../../../examples/hello-release/Makefile")),
    ("dora", "casemate.toml", include_str!("../../../../examples/hello-release/casemate.toml")),
    ("dora", "greeter.c", include_str!("../../../../examples/hello-release/greeter.c")),
    ("emil", "key.c", include_str!("../../../../examples/hello-release/key.c")),
    ("emil", "key.h", include_str!("../../../../examples/hello-release/key.h")),
    ("fatima", "check.c", include_str!("../../../../examples/hello-release/check.c")),
    ("fatima", "siphash.c", include_str!("../../../../examples/hello-release/siphash.c")),
    ("fatima", "siphash.h", include_str!("../../../../examples/hello-release/siphash.h")),
];
