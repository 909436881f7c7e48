//! `casemate.toml`: what a program needs to run in an enclave, and to be built in one.
//!
//! [`Spec::parse`] refuses unknown keys and everything that could not take effect.
//! [`Spec::effective`] gives the [`EffectiveSpec`], the part that is measured.
//! The reference page is `docs/casemate-toml.md`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::{Coded, Kind};

mod effective;

pub use effective::{EffectiveSpec, MeasuredConnect, MeasuredListen, MeasuredVolume};

/// The only version of `casemate.toml` there is.
pub const VERSION: u32 = 1;

/// Largest `casemate.toml` that is read, in bytes.
pub const MAX_SIZE: usize = 1 << 20;

/// A `casemate.toml` that can not take effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Not TOML, or a key or type this version does not know.
    #[error("{origin}: {message}")]
    Syntax {
        /// The file, as the user named it.
        origin: String,
        /// What the parser says, with line and column.
        message: String,
    },
    /// Another version of the format.
    #[error("{origin}: version {found}, this program reads version {VERSION}")]
    Version {
        /// The file, as the user named it.
        origin: String,
        /// What it says.
        found: u32,
    },
    /// A value that is well-formed and makes no sense.
    #[error("{origin}: {key}: {problem}")]
    Value {
        /// The file, as the user named it.
        origin: String,
        /// Dotted name of the key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Coded for SpecError {
    fn code(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "CM-SPEC-0010",
            Self::Version { .. } => "CM-SPEC-0011",
            Self::Value { .. } => "CM-SPEC-0012",
        }
    }
    fn kind(&self) -> Kind {
        Kind::Usage
    }
    fn fix(&self) -> Option<String> {
        Some("see docs/casemate-toml.md for every key and its values".into())
    }
}

/// A whole `casemate.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Format version, 1.
    pub version: u32,
    /// How the program runs.
    #[serde(default)]
    pub enclave: Enclave,
    /// Files beyond the program and its libraries.
    #[serde(default)]
    pub files: Files,
    /// Writable or shared places.
    #[serde(default, rename = "volume")]
    pub volumes: Vec<Volume>,
    /// Secrets the broker releases to this workload.
    #[serde(default, rename = "secret")]
    pub secrets: Vec<Secret>,
    /// Ports the program serves.
    #[serde(default)]
    pub listen: Vec<Listen>,
    /// Peers the program reaches.
    #[serde(default)]
    pub connect: Vec<Connect>,
    /// Where verified history begins.
    #[serde(default)]
    pub source: Source,
    /// How the repository is built.
    #[serde(default)]
    pub build: Option<Build>,
    /// What is released.
    #[serde(default)]
    pub release: Release,
}

/// `[enclave]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Enclave {
    /// Program and arguments; a command given after `--` replaces it.
    pub command: Vec<String>,
    /// `host` (the program with its ELF closure and `[files].trusted`) or `dir:PATH`.
    pub root: String,
    /// Environment, measured. Nothing else is set except `PATH` and `HOME` defaults named here.
    pub env: BTreeMap<String, String>,
    /// Names of variables that the untrusted caller may set; the names are measured.
    pub pass_env: Vec<String>,
    /// False: the enclave is debuggable and never receives a secret.
    pub production: bool,
    /// Directory the program starts in.
    pub workdir: String,
    /// Whether the program finds the agent's evidence socket (`CASEMATE_AGENT`).
    pub attestation: bool,
}

impl Default for Enclave {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            root: "host".into(),
            env: BTreeMap::new(),
            pass_env: Vec::new(),
            production: true,
            workdir: "/".into(),
            attestation: false,
        }
    }
}

/// `[files]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    /// Globs of host paths copied into the root and measured.
    pub trusted: Vec<String>,
}

/// What stands behind a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum VolumeKind {
    /// The enclave's own memory; gone when it ends.
    Memory,
    /// A host directory, shared as it is. The host reads and changes it at will: for data that
    /// the program itself encrypts or authenticates.
    Untrusted,
}

/// `[[volume]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Where the program finds it.
    pub path: String,
    /// What stands behind it.
    pub kind: VolumeKind,
    /// Host directory of an untrusted volume; not measured.
    #[serde(default)]
    pub source: Option<String>,
    /// Mounted read-only.
    #[serde(default)]
    pub read_only: bool,
}

/// `[[secret]]`: exactly one of `env` and `file`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// Name at the broker.
    pub name: String,
    /// Environment variable that carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// File in the enclave's memory that carries it, mode 0400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// How traffic is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Tls {
    /// Not at all: the bytes are visible to the host. For protocols that protect themselves.
    None,
}

/// `[[listen]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// TCP port the program listens on, on the enclave's own loopback.
    pub port: u16,
    /// Host address and port (`127.0.0.1:8080`); not measured. Default: loopback, same port.
    #[serde(default)]
    pub address: Option<String>,
    /// Protection of the traffic outside the enclave.
    pub tls: Tls,
    /// Hand the program the listening socket itself (`LISTEN_FDS`, `sd_listen_fds(3)`).
    #[serde(default)]
    pub socket_activation: bool,
}

/// `[[connect]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// Name the program uses; it resolves to the enclave's loopback inside.
    pub host: String,
    /// Port the program connects to.
    pub port: u16,
    /// Real `HOST:PORT` outside; not measured. Default: the same host and port.
    #[serde(default)]
    pub address: Option<String>,
    /// Protection of the traffic outside the enclave.
    pub tls: Tls,
}

/// `[source]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// Commit (full object id) up to which history is taken as given; default: none, all commits
    /// back to the root are verified.
    pub since: Option<String>,
}

/// `[build]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Commands that may use the network; what they download becomes a material.
    #[serde(default)]
    pub fetch: Vec<Vec<String>>,
    /// Commands without network, in order, in the source directory.
    pub steps: Vec<Vec<String>>,
    /// Paths of the artifacts, relative to the source directory.
    pub artifacts: Vec<String>,
    /// Debian packages that may be read and executed, with all they depend on. A version pins:
    /// `gcc-12=12.2.0-14+deb12u1`.
    pub toolchain: Vec<String>,
    /// Environment of the steps.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// `[release]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Release {
    /// Name of the product; default: the repository's directory name.
    pub name: Option<String>,
}

impl Spec {
    /// Parses the text of a `casemate.toml`; `origin` names it in errors.
    ///
    /// # Errors
    /// [`SpecError`] with the key or the line at fault.
    pub fn parse(text: &str, origin: &str) -> Result<Self, SpecError> {
        let syntax = |message: String| SpecError::Syntax { origin: origin.into(), message };
        if text.len() > MAX_SIZE {
            return Err(syntax(format!("larger than {MAX_SIZE} bytes")));
        }
        let spec: Self =
            toml::from_str(text).map_err(|e| syntax(e.to_string().trim_end().into()))?;
        if spec.version != VERSION {
            return Err(SpecError::Version { origin: origin.into(), found: spec.version });
        }
        spec.check().map_err(|(key, problem)| SpecError::Value {
            origin: origin.into(),
            key,
            problem,
        })?;
        Ok(spec)
    }

    /// A spec with every default, as if the file held only its version.
    pub fn minimal() -> Self {
        Self {
            version: VERSION,
            enclave: Enclave::default(),
            files: Files::default(),
            volumes: Vec::new(),
            secrets: Vec::new(),
            listen: Vec::new(),
            connect: Vec::new(),
            source: Source::default(),
            build: None,
            release: Release::default(),
        }
    }

    fn check(&self) -> Result<(), (String, String)> {
        let bad = |key: &str, problem: &str| Err((key.to_owned(), problem.to_owned()));
        if self.enclave.root != "host"
            && self.enclave.root.strip_prefix("dir:").is_none_or(str::is_empty)
        {
            return bad("enclave.root", "expected \"host\" or \"dir:PATH\"");
        }
        check_absolute("enclave.workdir", &self.enclave.workdir)?;
        for name in self.enclave.env.keys().chain(&self.enclave.pass_env) {
            check_env_name("enclave.env", name)?;
        }
        if let Some(name) = self.enclave.pass_env.iter().find(|n| self.enclave.env.contains_key(*n))
        {
            return bad("enclave.pass_env", &format!("{name:?} is also set in enclave.env"));
        }
        let steers = |n: &&String| n.starts_with("LD_") || n.starts_with("CASEMATE_");
        if let Some(name) = self.enclave.pass_env.iter().find(steers) {
            return bad("enclave.pass_env", &format!("{name:?} decides which code runs"));
        }
        if let Some(name) = self.enclave.env.keys().find(|n| n.starts_with("CASEMATE_")) {
            return bad("enclave.env", &format!("{name:?} is the agent's own"));
        }
        if self.enclave.env.values().any(|v| v.contains('\0')) {
            return bad("enclave.env", "a value contains a NUL byte");
        }
        if self.enclave.command.iter().any(|a| a.contains('\0')) {
            return bad("enclave.command", "contains a NUL byte");
        }
        if let Some(p) = self.files.trusted.iter().find(|p| !p.starts_with('/')) {
            return bad("files.trusted", &format!("{p:?} is not an absolute path"));
        }
        let mut targets = BTreeSet::new();
        for volume in &self.volumes {
            check_absolute("volume.path", &volume.path)?;
            if volume.path == "/" || !targets.insert(volume.path.as_str()) {
                return bad("volume.path", &format!("{:?} is taken", volume.path));
            }
            if volume.kind == VolumeKind::Untrusted
                && let Some(taken) = TAKEN.iter().find(|t| overlaps(&volume.path, t))
            {
                return bad(
                    "volume.path",
                    &format!("{:?}: the host must not stand behind {taken}", volume.path),
                );
            }
            match (volume.kind, &volume.source) {
                (VolumeKind::Untrusted, None) => {
                    return bad("volume.source", "an untrusted volume needs a host directory");
                }
                (VolumeKind::Memory, Some(_)) => {
                    return bad("volume.source", "a memory volume has no host directory");
                }
                _ => {}
            }
        }
        self.check_secrets()?;
        let mut ports = BTreeSet::new();
        if let Some(l) = self.listen.iter().find(|l| l.port == 0 || !ports.insert(l.port)) {
            return bad("listen.port", &format!("port {} is zero or listed twice", l.port));
        }
        for c in &self.connect {
            if c.port == 0 || c.host.is_empty() || !c.host.bytes().all(is_host_byte) {
                return bad("connect.host", &format!("{:?} port {} is no peer", c.host, c.port));
            }
        }
        if let Some(since) = &self.source.since {
            let hex = since.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if !hex || !matches!(since.len(), 40 | 64) {
                return bad("source.since", "expected a full lower-case object id");
            }
        }
        self.build.as_ref().map_or(Ok(()), check_build)
    }

    fn check_secrets(&self) -> Result<(), (String, String)> {
        let bad = |key: &str, problem: String| Err((key.to_owned(), problem));
        let mut seen = BTreeSet::new();
        for secret in &self.secrets {
            check_secret_name(&secret.name).map_err(|p| ("secret.name".to_owned(), p))?;
            match (&secret.env, &secret.file) {
                (Some(env), None) => check_env_name("secret.env", env)?,
                (None, Some(file)) => check_absolute("secret.file", file)?,
                _ => return bad("secret", format!("{:?} needs either env or file", secret.name)),
            }
            if secret.env.as_ref().is_some_and(|e| self.enclave.pass_env.contains(e)) {
                return bad(
                    "secret",
                    format!("{:?} would go where pass_env also goes", secret.name),
                );
            }
            let target = secret.env.as_ref().or(secret.file.as_ref());
            if !seen.insert(target)
                || secret.env.as_ref().is_some_and(|e| self.enclave.env.contains_key(e))
            {
                return bad("secret", format!("target {target:?} is taken"));
            }
        }
        if !self.secrets.is_empty() && !self.enclave.production {
            return bad(
                "secret",
                "a debuggable enclave (production = false) gets no secret".into(),
            );
        }
        Ok(())
    }
}

/// Checks the name of a secret: 1 to 128 of `a-z A-Z 0-9 . _ - /`, not starting with `/` or `.`.
///
/// # Errors
/// What is wrong with it.
pub fn check_secret_name(name: &str) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    if name.is_empty()
        || name.len() > 128
        || name.starts_with(['/', '.'])
        || !name.bytes().all(good)
    {
        return Err(format!(
            "{name:?} is no secret name (1 to 128 letters, digits, '.', '_', '-', '/')"
        ));
    }
    Ok(())
}

fn check_build(build: &Build) -> Result<(), (String, String)> {
    let bad = |key: &str, problem: String| Err((key.to_owned(), problem));
    if build.steps.is_empty() || build.artifacts.is_empty() || build.toolchain.is_empty() {
        return bad("build", "steps, artifacts and toolchain must each name something".into());
    }
    for (key, steps) in [("build.fetch", &build.fetch), ("build.steps", &build.steps)] {
        if steps.iter().any(|s| s.first().is_none_or(String::is_empty)) {
            return bad(key, "a step needs a program".into());
        }
        if steps.iter().flatten().any(|a| a.contains('\0')) {
            return bad(key, "contains a NUL byte".into());
        }
    }
    let mut names = BTreeSet::new();
    for artifact in &build.artifacts {
        check_relative("build.artifacts", artifact)?;
        let name = artifact.rsplit('/').next().unwrap_or(artifact);
        if name == "bundle.json" || !names.insert(name) {
            return bad("build.artifacts", format!("file name {name:?} is taken"));
        }
    }
    for name in build.env.keys() {
        check_env_name("build.env", name)?;
    }
    Ok(())
}

/// Places that decide which code runs, or that are the agent's own: a program and its loader read
/// them unasked, so what the host puts there would run under the program's measurement.
const TAKEN: [&str; 12] = [
    "/bin",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/run/casemate",
    "/sbin",
    "/sys",
    "/usr",
];

/// Whether one of two absolute paths is the other or lies below it.
fn overlaps(a: &str, b: &str) -> bool {
    let below =
        |x: &str, y: &str| x.strip_prefix(y).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    below(a, b) || below(b, a)
}

fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')
}

fn check_env_name(key: &str, name: &str) -> Result<(), (String, String)> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.bytes().all(good)
    {
        return Err((key.into(), format!("{name:?} is no variable name")));
    }
    Ok(())
}

fn check_absolute(key: &str, path: &str) -> Result<(), (String, String)> {
    let segments_good = path.strip_prefix('/').is_some_and(|rest| {
        rest.is_empty() || rest.split('/').all(|s| !matches!(s, "" | "." | ".."))
    });
    if !segments_good || path.contains('\0') {
        return Err((key.into(), format!("{path:?} is not a plain absolute path")));
    }
    Ok(())
}

fn check_relative(key: &str, path: &str) -> Result<(), (String, String)> {
    if path.contains('\0') || path.split('/').any(|s| matches!(s, "" | "." | "..")) {
        return Err((key.into(), format!("{path:?} is not a plain relative path")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = include_str!("../golden/casemate-v1.toml");

    #[test]
    fn reads_every_key_of_the_golden_file() {
        let spec = Spec::parse(FULL, "casemate.toml").expect("golden file");
        assert_eq!(spec.secrets.len(), 2);
        assert_eq!(spec.build.as_ref().expect("build").artifacts, ["bin/hello"]);
        let effective = spec.effective(vec!["/usr/bin/true".into()], None);
        assert_eq!(effective.pass_env, ["LANG", "TERM"]);
    }

    #[test]
    fn refuses_unknown_keys_and_other_versions() {
        assert!(Spec::parse("version = 1", "x").is_ok());
        for (bad, code) in [
            ("version = 2", "CM-SPEC-0011"),
            ("version = 1\nsurprise = true", "CM-SPEC-0010"),
            ("version = 1\n[enclave]\nprodution = false", "CM-SPEC-0010"),
            ("", "CM-SPEC-0010"),
        ] {
            assert_eq!(Spec::parse(bad, "x").expect_err(bad).code(), code, "{bad:?}");
        }
    }

    #[test]
    fn refuses_values_that_cannot_take_effect() {
        for bad in [
            "[enclave]\nroot = \"oci:x\"",
            "[enclave]\nworkdir = \"../x\"",
            "[enclave]\nenv = { \"A=B\" = \"x\" }",
            "[enclave]\nenv = { A = \"x\" }\npass_env = [\"A\"]",
            "[files]\ntrusted = [\"etc/passwd\"]",
            "[[volume]]\npath = \"/\"\nkind = \"memory\"",
            "[[volume]]\npath = \"/d\"\nkind = \"untrusted\"",
            "[[volume]]\npath = \"/etc\"\nkind = \"untrusted\"\nsource = \"/x\"",
            "[[volume]]\npath = \"/run\"\nkind = \"untrusted\"\nsource = \"/x\"",
            "[enclave]\npass_env = [\"LD_PRELOAD\"]",
            "[enclave]\nenv = { CASEMATE_AGENT = \"/x\" }",
            "[[secret]]\nname = \"s\"",
            "[[secret]]\nname = \"../s\"\nenv = \"S\"",
            "[[secret]]\nname = \"s\"\nenv = \"S\"\n[enclave]\nproduction = false",
            "[[listen]]\nport = 0\ntls = \"none\"",
            "[[connect]]\nhost = \"a b\"\nport = 1\ntls = \"none\"",
            "[source]\nsince = \"HEAD\"",
            "[build]\nsteps = [[]]\nartifacts = [\"a\"]\ntoolchain = [\"gcc\"]",
            "[build]\nsteps = [[\"make\"]]\nartifacts = [\"../a\"]\ntoolchain = [\"gcc\"]",
            "[build]\nsteps = [[\"make\"]]\nartifacts = [\"a\", \"b/a\"]\ntoolchain = [\"gcc\"]",
        ] {
            let text = format!("version = 1\n{bad}");
            assert_eq!(Spec::parse(&text, "x").expect_err(bad).code(), "CM-SPEC-0012", "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,400}") {
            let _ = Spec::parse(&text, "x");
        }
    }
}
