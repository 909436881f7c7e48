//! One build, inside its enclave: from a repository nobody vouches for to a release bundle that
//! anyone can check.
//!
//! [`run`] verifies the history, writes the tree from the verified objects, has the build observed
//! by the kernel, and states what it saw: the source verdict, its SLSA summary, and SLSA
//! provenance, all signed by a key made here, bound to this enclave's evidence, and logged.
//!
//! The request comes from the untrusted host. It can name a repository, a commit and a trust file;
//! every statement says which, so a wrong choice is seen by whoever verifies the bundle.

#![forbid(unsafe_code)]

mod error;
mod statements;

use std::fs;
use std::path::{Path, PathBuf};

use casemate_ledger::client::Client;
use casemate_provenance::build::{self, Event, Helper, SourceFile, SourceMode, SourceTree};
use casemate_provenance::source::{self, FileMode, Verified};
use casemate_service::{Attester, Clock};
use casemate_spec::Sha256;
use casemate_spec::binding::Purpose;
use casemate_spec::spec::{Build, Spec};
use casemate_spec::trust::TrustFile;
use casemate_statement::SigningKey;
use casemate_statement::bundle::{Artifact, Builder, ReleaseBundle};
use serde::{Deserialize, Serialize};

pub use error::BuilderError;

/// The file that says how a repository is built.
pub const CONFIG: &str = "casemate.toml";

/// What the host asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The trust file whose developers count.
    pub trust: TrustFile,
    /// The commit, or a signed tag, in full hexadecimal.
    pub revision: String,
    /// The repository's name in statements, unless its `[release]` gives one.
    pub repository: String,
}

/// Where things are inside the enclave.
#[derive(Debug, Clone)]
pub struct Places {
    /// The repository, read-only.
    pub repository: PathBuf,
    /// The host's root file system as far as a toolchain needs it, read-only.
    pub host_root: PathBuf,
    /// Configuration of the resolver for fetch steps.
    pub resolver: PathBuf,
    /// Receives the artifacts.
    pub output: PathBuf,
    /// A directory in the enclave's own memory.
    pub memory: PathBuf,
    /// How the build starts its helper processes.
    pub helper: Helper,
}

/// What a build tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Progress {
    /// History is being verified.
    Verifying,
    /// It is good.
    Verified {
        /// The commit.
        commit: String,
        /// How many commits were checked.
        commits: usize,
        /// How many files the tree has.
        files: usize,
    },
    /// What the build says.
    Build(Event),
    /// Statements are being signed and logged.
    Logging,
}

/// Builds what `request` asks for and returns the bundle, to be approved and signed.
///
/// # Errors
/// [`BuilderError`], with the code of whatever refused; nothing in the output counts then.
pub fn run(
    request: &Request,
    places: &Places,
    attester: &dyn Attester,
    log: &Client,
    clock: &dyn Clock,
    progress: &dyn Fn(Progress),
) -> Result<ReleaseBundle, BuilderError> {
    progress(Progress::Verifying);
    let (spec, config) = read_config(places, &request.revision)?;
    let since = spec.source.since.as_deref().map(str::parse).transpose()?;
    let trust = &request.trust.signed;
    let verified = source::verify(
        &places.repository,
        &request.revision,
        &trust.developers,
        since,
        clock.now(),
    )?;
    progress(Progress::Verified {
        commit: verified.commit.to_string(),
        commits: verified.commits.len(),
        files: verified.files.len(),
    });
    let build = buildable(&spec, &verified, &config)?;
    let output = observed_build(build, &verified, places, progress)?;

    progress(Progress::Logging);
    let (key, _) = SigningKey::generate()?;
    let builder = attested(&key, attester)?;
    let facts = statements::Facts {
        trust,
        repository: spec.release.name.as_deref().unwrap_or(&request.repository),
        verified: &verified,
        config: &config,
        output: &output,
        builder: &builder,
        measurement: attester.workload()?.measurement()?,
        now: clock.now(),
    };
    let (source, provenance) = statements::sign_and_log(&facts, &key, log)?;
    let artifacts = output
        .artifacts
        .iter()
        .map(|a| Artifact { name: a.name.clone(), sha256: a.sha256, size: a.size })
        .collect();
    Ok(ReleaseBundle::new(artifacts, facts.trust_ref()?, source, provenance, builder)?)
}

/// `casemate.toml` of the revision, with its text. It only counts once its digest is found in the
/// verified tree ([`buildable`]).
fn read_config(places: &Places, revision: &str) -> Result<(Spec, String), BuilderError> {
    let bytes = source::file_at(&places.repository, revision, CONFIG)?
        .ok_or_else(|| BuilderError::NoConfig { revision: revision.into() })?;
    let text = String::from_utf8(bytes).map_err(|_| BuilderError::ConfigText)?;
    Ok((Spec::parse(&text, CONFIG)?, text))
}

fn buildable<'a>(
    spec: &'a Spec,
    verified: &Verified,
    config: &str,
) -> Result<&'a Build, BuilderError> {
    let found = verified.files.iter().find(|f| f.path == CONFIG).map(|f| f.sha256);
    if found != Some(Sha256::of(config.as_bytes())) {
        return Err(BuilderError::ConfigChanged);
    }
    spec.build.as_ref().ok_or(BuilderError::NoBuild)
}

fn observed_build(
    build: &Build,
    verified: &Verified,
    places: &Places,
    progress: &dyn Fn(Progress),
) -> Result<build::Output, BuilderError> {
    let tree = tempfile::Builder::new()
        .prefix("source")
        .tempdir_in(&places.memory)
        .map_err(|e| BuilderError::io(&places.memory, e))?;
    source::write_tree(verified, &places.repository, tree.path())?;
    let request = build::Request {
        source: SourceTree { root: tree.path().to_owned(), files: source_files(verified) },
        host_root: places.host_root.clone(),
        build: build.clone(),
        source_date_epoch: verified.time,
        resolver: places.resolver.clone(),
        output: places.output.clone(),
        helper: places.helper.clone(),
    };
    let output = build::run(&request, &|event| progress(Progress::Build(event)))?;
    sync(&places.output, &output)?;
    Ok(output)
}

fn source_files(verified: &Verified) -> std::collections::BTreeMap<String, SourceFile> {
    let mode = |mode| match mode {
        FileMode::Executable => SourceMode::Executable,
        FileMode::Symlink => SourceMode::Link,
        _ => SourceMode::File,
    };
    verified
        .files
        .iter()
        .map(|f| (f.path.clone(), SourceFile { sha256: f.sha256, mode: mode(f.mode) }))
        .collect()
}

/// Artifacts are on disk before anything says that they exist.
fn sync(directory: &Path, output: &build::Output) -> Result<(), BuilderError> {
    for artifact in &output.artifacts {
        let path = directory.join(&artifact.name);
        fs::File::open(&path).and_then(|f| f.sync_all()).map_err(|e| BuilderError::io(&path, e))?;
    }
    Ok(())
}

/// The builder's key with the evidence that it was made in this enclave.
fn attested(key: &SigningKey, attester: &dyn Attester) -> Result<Builder, BuilderError> {
    let spki = key.public().spki();
    let record = attester.evidence(Purpose::StatementKey, None, spki)?;
    let evidence =
        serde_json::from_slice(&record).map_err(|e| BuilderError::Evidence(e.to_string()))?;
    Ok(Builder { key: spki.to_vec().into(), evidence })
}
