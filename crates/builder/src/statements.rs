//! What the builder states: source verdict, its summary, and provenance, each signed and logged.

use std::collections::BTreeMap;

use casemate_ledger::client::Client;
use casemate_provenance::build::{Class, Material, Output, SOURCE_DIR};
use casemate_provenance::source::Verified;
use casemate_spec::trust::Trust;
use casemate_spec::{Sha256, Sha384};
use casemate_statement::SigningKey;
use casemate_statement::bundle::{Builder, Source, TrustRef};
use casemate_statement::dsse::Envelope;
use casemate_statement::intoto::{self, Resource, Statement};
use casemate_statement::sigstore::Bundle;
use casemate_statement::slsa::{self, Provenance};
use casemate_statement::source::{self, SourceVerdict};
use jiff::Timestamp;

use crate::{BuilderError, CONFIG};

/// Everything the statements are made from.
pub struct Facts<'a> {
    pub trust: &'a Trust,
    pub repository: &'a str,
    pub verified: &'a Verified,
    pub config: &'a str,
    pub output: &'a Output,
    pub builder: &'a Builder,
    pub measurement: Sha384,
    pub now: i64,
}

impl Facts<'_> {
    /// The trust file, as the bundle names it.
    pub fn trust_ref(&self) -> Result<TrustRef, BuilderError> {
        Ok(TrustRef::of(self.trust)?)
    }

    fn source_verdict(&self) -> Result<SourceVerdict, BuilderError> {
        let Verified { commit, tree, since, commits, files, .. } = self.verified;
        Ok(SourceVerdict {
            repository: self.repository.into(),
            commit: commit.to_string(),
            tree: tree.to_string(),
            trust: self.trust.digest()?,
            history: source::History {
                commits: commits.len() as u64,
                since: since.as_ref().map(ToString::to_string),
            },
            commits: commits
                .iter()
                .map(|c| source::Commit {
                    id: c.id.to_string(),
                    signer: c.signer.clone(),
                    fingerprint: c.fingerprint.clone(),
                    time: timestamp(c.time),
                })
                .collect(),
            files: files
                .iter()
                .map(|f| source::File {
                    path: f.path.clone(),
                    mode: f.mode.octal().into(),
                    blob: f.blob.to_string(),
                    sha256: f.sha256,
                    commit: f.last_commit.to_string(),
                    signer: f.signer.clone(),
                })
                .collect(),
        })
    }

    fn provenance(&self) -> Result<Statement<Provenance>, BuilderError> {
        let subject = self
            .output
            .artifacts
            .iter()
            .map(|a| Resource::named(&a.name, &a.sha256).with_annotation(intoto::SIZE, a.size))
            .collect();
        let (commit, tree) = (self.verified.commit.to_string(), self.verified.tree.to_string());
        let mut dependencies = vec![slsa::source_dependency(self.repository, &commit, &tree)];
        dependencies.extend(self.output.materials.iter().map(dependency));
        let version = BTreeMap::from([("casemate".into(), env!("CARGO_PKG_VERSION").into())]);
        let predicate = Provenance {
            build_definition: slsa::BuildDefinition {
                build_type: slsa::BUILD_TYPE.into(),
                external_parameters: slsa::ExternalParameters {
                    repository: self.repository.into(),
                    commit,
                    config: slsa::Config {
                        path: CONFIG.into(),
                        sha256: Sha256::of(self.config.as_bytes()),
                        content: self.config.into(),
                    },
                },
                internal_parameters: slsa::InternalParameters {
                    trust: self.trust.digest()?,
                    measurement: self.measurement,
                    evidence: self.builder.evidence_digest()?,
                    observer: "fanotify".into(),
                    environment: self.output.environment.clone(),
                },
                resolved_dependencies: dependencies,
            },
            run_details: slsa::RunDetails {
                builder: slsa::Builder { id: slsa::BUILDER_ID.into(), version },
                metadata: slsa::Metadata {
                    invocation_id: Sha256::of(&self.builder.key).to_string(),
                    started_on: timestamp(self.output.started),
                    finished_on: timestamp(self.output.finished),
                },
                byproducts: self.byproducts(),
            },
        };
        Ok(Statement::new(subject, predicate))
    }

    /// Commands that ran, so that a reader sees them without the repository.
    fn byproducts(&self) -> Vec<Resource> {
        let command = |c: &casemate_provenance::build::RanCommand| {
            let text = c.command.join(" ");
            Resource::named(&text, &Sha256::of(text.as_bytes()))
                .with_annotation("casemate.dev/network", c.fetch)
        };
        self.output.commands.iter().map(command).collect()
    }
}

/// One file the build read, with its class and, for a package's file, the package.
fn dependency(material: &Material) -> Resource {
    let name = material
        .path
        .strip_prefix(SOURCE_DIR)
        .map_or(material.path.as_str(), |p| p.trim_start_matches('/'));
    let resource = Resource::named(name, &material.sha256);
    let (class, resource) = match &material.class {
        Class::Source => ("source", resource),
        Class::Generated => ("generated", resource),
        Class::Fetched => ("fetched", resource),
        Class::Builder => ("builder", resource),
        Class::Toolchain { purl, .. } => ("toolchain", resource.with_uri(purl)),
        _ => ("unknown", resource),
    };
    resource.with_annotation(intoto::CLASS, class)
}

/// Signs the three statements and logs them, in the order in which each names the one before.
pub fn sign_and_log(
    facts: &Facts<'_>,
    key: &SigningKey,
    log: &Client,
) -> Result<(Source, Bundle), BuilderError> {
    let logged = |envelope: Envelope| -> Result<Bundle, BuilderError> {
        let entry = log.add_dsse(&envelope, key.public())?;
        Ok(Bundle::dsse(key.public(), envelope, entry))
    };
    let verdict = facts.source_verdict()?;
    let detail = verdict.clone().statement().sign(key)?;
    let summary = verdict.summary(&detail, timestamp(facts.now)).sign(key)?;
    let provenance = facts.provenance()?.sign(key)?;
    let source = Source { detail: logged(detail)?, summary: logged(summary)? };
    Ok((source, logged(provenance)?))
}

/// Unix seconds as a timestamp; a commit's time beyond what the type holds becomes its limit.
fn timestamp(seconds: i64) -> Timestamp {
    let limit = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(seconds).unwrap_or(limit)
}
