//! A whole installation in memory, with genuine cryptography: a simulated SEV-SNP platform, a log,
//! people with SSH keys, a builder and a signer. Tests break one thing of it at a time.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod platform;

use std::collections::BTreeMap;

use casemate_evidence::Record;
use casemate_spec::binding::Purpose;
use casemate_spec::canonical;
use casemate_spec::trust::{
    Approver, BrokerTrust, LedgerTrust, NAMESPACE as TRUST_NAMESPACE, ServiceTrust, Thresholds,
    Trust, TrustFile, TrustSignature,
};
use casemate_spec::workload::Workload;
use casemate_spec::{Sha256, Sha384};
use casemate_statement::SigningKey;
use casemate_statement::approval;
use casemate_statement::bundle::{
    Artifact, ArtifactSignature, Builder, ReleaseBundle, Source, TrustRef, evidence_digest,
};
use casemate_statement::dsse::Envelope;
use casemate_statement::intoto::{CLASS, Resource, Statement};
use casemate_statement::rekor::{HashedRekord, LogEntry};
use casemate_statement::sigstore;
use casemate_statement::slsa::{self, Provenance};
use casemate_statement::source::{Commit, File, History, SourceVerdict};
use casemate_statement::sshsig::{SshSignature, sign};
use casemate_tlog::note::Signer;
use casemate_tlog::{Checkpoint, Tree, merkle};
use casemate_verify::ArtifactDigest;
use jiff::Timestamp;
use ssh_key::LineEnding;
use ssh_key::private::{Ed25519Keypair, PrivateKey};

use platform::Platform;

/// When everything happens, in Unix seconds.
pub const NOW: i64 = 1_795_000_000;

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// A log in memory.
pub struct Log {
    tree: Tree,
    signer: Signer,
}

impl Log {
    pub fn new(name: &str, seed: u8) -> Self {
        let mut log =
            Self { tree: Tree::new(), signer: Signer::from_seed(name, &[seed; 32]).unwrap() };
        // somebody else's leaves come first, so that proofs are not empty
        for leaf in 0u8..5 {
            log.tree.push(merkle::leaf_hash(&[leaf]));
        }
        log
    }

    pub fn vkey(&self) -> String {
        self.signer.verifier().to_string()
    }

    pub fn origin(&self) -> String {
        self.signer.verifier().name().into()
    }

    pub fn add(&mut self, record: &HashedRekord) -> LogEntry {
        let leaf = record.to_leaf().unwrap();
        let index = self.tree.size();
        self.tree.push(merkle::leaf_hash(&leaf));
        let (size, root) = (self.tree.size(), self.tree.root());
        let proof = merkle::prove_inclusion(&self.tree, index, size).unwrap();
        let checkpoint = Checkpoint::sign(&self.signer, size, root).unwrap();
        LogEntry::new(self.signer.verifier(), index, leaf, (size, &root), &proof, checkpoint)
    }

    pub fn add_dsse(&mut self, key: &SigningKey, envelope: Envelope) -> sigstore::Bundle {
        let record = HashedRekord::of_dsse(&envelope, key.public()).unwrap();
        let entry = self.add(&record);
        sigstore::Bundle::dsse(key.public(), envelope, entry)
    }
}

/// A person's SSH key.
pub struct PersonKey {
    pub pem: String,
    pub line: String,
}

impl PersonKey {
    pub fn new(seed: u8) -> Self {
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]));
        let line = key.public_key().to_openssh().unwrap();
        Self { pem: key.to_openssh(LineEnding::LF).unwrap().to_string(), line: line.trim().into() }
    }

    pub fn sign(&self, namespace: &str, message: &[u8]) -> SshSignature {
        sign(self.pem.as_bytes(), None, namespace, message).unwrap()
    }
}

/// Everything a build states, before it is signed.
pub struct Parts {
    pub artifacts: Vec<Artifact>,
    pub source: SourceVerdict,
    pub provenance: Provenance,
    pub subject: Option<Vec<Resource>>,
    pub record: Record,
    pub key: SigningKey,
    pub trust: TrustRef,
}

pub struct World {
    pub platform: Platform,
    pub log: Log,
    pub alice: PersonKey,
    pub alice2: PersonKey,
    pub bob: PersonKey,
    pub carol: PersonKey,
    pub mallory: PersonKey,
    pub workload: Workload,
    pub signer: SigningKey,
    pub trust: TrustFile,
}

impl World {
    pub fn new() -> Self {
        let platform = Platform::new("Simulated ARK one");
        let log = Log::new("casemate.test/log", 1);
        let [alice, alice2, bob, carol, mallory] = [11, 12, 13, 14, 15].map(PersonKey::new);
        let workload = Workload {
            spec: Sha256::of(b"spec"),
            root: Sha256::of(b"root"),
            agent: Sha384::of(b"agent"),
            production: true,
        };
        let (signer, _) = SigningKey::generate().unwrap();
        let approver = |name: &str, keys: &[&PersonKey]| Approver {
            name: name.into(),
            keys: keys.iter().map(|k| k.line.clone()).collect(),
        };
        let service = Sha384::of(b"service");
        let trust = Trust {
            format: Trust::FORMAT.into(),
            version: 1,
            created: at(NOW - 1000),
            ancestors: Vec::new(),
            approvers: vec![
                approver("alice", &[&alice, &alice2]),
                approver("bob", &[&bob]),
                approver("carol", &[&carol]),
            ],
            thresholds: Thresholds { release: 2, admin: 2, trust: 2 },
            developers: Vec::new(),
            ledger: LedgerTrust { origin: log.origin(), vkey: log.vkey(), measurement: service },
            broker: BrokerTrust {
                key: "AA==".into(),
                envelope_key: "AA==".into(),
                measurement: service,
            },
            signer: ServiceTrust { key: signer.public().spki_base64(), measurement: service },
            builders: vec![workload.measurement().unwrap()],
            tees: vec![platform.accepted_tee()],
        };
        trust.check().unwrap();
        let trust = TrustFile { signed: trust, signatures: Vec::new() };
        Self { platform, log, alice, alice2, bob, carol, mallory, workload, signer, trust }
    }

    /// What an honest build states.
    pub fn parts(&self) -> Parts {
        let (key, _) = SigningKey::generate().unwrap();
        let spki = key.public().spki().to_vec();
        let record =
            self.platform.record(Purpose::StatementKey, None, &spki, &self.workload, false);
        let artifacts =
            vec![artifact("hello", b"hello, world\n"), artifact("hello.conf", b"a = 1\n")];
        let trust = TrustRef::of(&self.trust.signed).unwrap();
        let source = source(&trust.digest);
        let provenance = self.provenance(&source, &trust, &record);
        Parts { artifacts, source, provenance, subject: None, record, key, trust }
    }

    fn provenance(&self, source: &SourceVerdict, trust: &TrustRef, record: &Record) -> Provenance {
        let evidence = serde_json::from_slice(&record.to_json()).unwrap();
        let compiler = Resource::named("/usr/bin/cc", &Sha256::of(b"cc"))
            .with_uri("pkg:deb/debian/gcc-12@12.2.0-14")
            .with_annotation(CLASS, "toolchain");
        let input =
            Resource::named("main.c", &Sha256::of(b"int main")).with_annotation(CLASS, "source");
        Provenance {
            build_definition: slsa::BuildDefinition {
                build_type: slsa::BUILD_TYPE.into(),
                external_parameters: slsa::ExternalParameters {
                    repository: source.repository.clone(),
                    commit: source.commit.clone(),
                    config: slsa::Config {
                        path: "casemate.toml".into(),
                        sha256: Sha256::of(b"version = 1"),
                        content: "version = 1".into(),
                    },
                },
                internal_parameters: slsa::InternalParameters {
                    trust: trust.digest,
                    measurement: self.workload.measurement().unwrap(),
                    evidence: evidence_digest(&evidence).unwrap(),
                    observer: "fanotify".into(),
                    environment: BTreeMap::from([("LANG".into(), "C".into())]),
                },
                resolved_dependencies: vec![
                    slsa::source_dependency(&source.repository, &source.commit, &source.tree),
                    input,
                    compiler,
                ],
            },
            run_details: slsa::RunDetails {
                builder: slsa::Builder { id: slsa::BUILDER_ID.into(), version: BTreeMap::new() },
                metadata: slsa::Metadata {
                    invocation_id: "b-1".into(),
                    started_on: at(NOW - 100),
                    finished_on: at(NOW - 90),
                },
                byproducts: Vec::new(),
            },
        }
    }

    /// Signs and logs what a build states.
    pub fn assemble(&mut self, parts: Parts) -> ReleaseBundle {
        let Parts { artifacts, source, provenance, subject, record, key, trust } = parts;
        let detail = source.clone().statement().sign(&key).unwrap();
        let summary = source.summary(&detail, at(NOW - 80)).sign(&key).unwrap();
        let subject = subject.unwrap_or_else(|| artifacts.iter().map(Resource::from).collect());
        let provenance = Statement::new(subject, provenance).sign(&key).unwrap();
        let source = Source {
            detail: self.log.add_dsse(&key, detail),
            summary: self.log.add_dsse(&key, summary),
        };
        let provenance = self.log.add_dsse(&key, provenance);
        let builder = Builder {
            key: key.public().spki().to_vec().into(),
            evidence: serde_json::from_slice(&record.to_json()).unwrap(),
        };
        ReleaseBundle::new(artifacts, trust, source, provenance, builder).unwrap()
    }

    pub fn built(&mut self) -> ReleaseBundle {
        let parts = self.parts();
        self.assemble(parts)
    }

    /// Adds an approval with this key, signed over what the bundle says.
    pub fn approve(log: &mut Log, bundle: &mut ReleaseBundle, key: &PersonKey) {
        let statement = bundle.approval_bytes().unwrap();
        let signature = key.sign(approval::NAMESPACE, &statement);
        let entry = log.add(&signature.record(&statement));
        bundle.add_approval(&signature, entry).unwrap();
    }

    pub fn approved(&mut self) -> ReleaseBundle {
        let mut bundle = self.built();
        Self::approve(&mut self.log, &mut bundle, &self.alice);
        Self::approve(&mut self.log, &mut bundle, &self.bob);
        bundle
    }

    /// Signs as the signer does once it has verified.
    pub fn sign(&mut self, bundle: &mut ReleaseBundle) {
        let trust = self.trust.signed.digest().unwrap();
        let statement = bundle.release_statement(&trust, at(NOW - 10)).unwrap();
        self.sign_statement(bundle, statement.sign(&self.signer).unwrap());
    }

    pub fn sign_statement(&mut self, bundle: &mut ReleaseBundle, envelope: Envelope) {
        let key = self.signer.public().clone();
        bundle.release = Some(self.log.add_dsse(&self.signer, envelope));
        bundle.signatures = Vec::new();
        for artifact in &bundle.artifacts {
            let signature = self.signer.sign_digest(&artifact.sha256).unwrap();
            let record = HashedRekord::of_digest(artifact.sha256, signature.clone(), key.clone());
            let entry = self.log.add(&record);
            bundle.signatures.push(ArtifactSignature {
                artifact: artifact.name.clone(),
                bundle: sigstore::Bundle::message(&key, artifact.sha256, signature, entry),
            });
        }
    }

    /// A whole release.
    pub fn released(&mut self) -> ReleaseBundle {
        let mut bundle = self.approved();
        self.sign(&mut bundle);
        bundle
    }
}

pub fn artifact(name: &str, content: &[u8]) -> Artifact {
    Artifact { name: name.into(), sha256: Sha256::of(content), size: content.len() as u64 }
}

/// The file that the tests ask about.
pub fn hello() -> ArtifactDigest {
    let Artifact { name, sha256, size } = artifact("hello", b"hello, world\n");
    ArtifactDigest { name, sha256, size }
}

pub fn source(trust: &Sha256) -> SourceVerdict {
    let commit = "1".repeat(40);
    let file = |path: &str, content: &[u8]| File {
        path: path.into(),
        mode: "100644".into(),
        blob: "2".repeat(40),
        sha256: Sha256::of(content),
        commit: commit.clone(),
        signer: Some("dora@example.org".into()),
    };
    SourceVerdict {
        repository: "hello".into(),
        commit: commit.clone(),
        tree: "3".repeat(40),
        trust: *trust,
        history: History { commits: 1, since: None },
        commits: vec![Commit {
            id: commit.clone(),
            signer: "dora@example.org".into(),
            fingerprint: "SHA256:x".into(),
            time: at(NOW - 5000),
        }],
        files: vec![file("casemate.toml", b"version = 1"), file("main.c", b"int main")],
    }
}

/// Version n+1 of a trust file, changed by `edit` and signed by `keys`.
pub fn next_version(
    old: &TrustFile,
    edit: impl FnOnce(&mut Trust),
    keys: &[&PersonKey],
) -> TrustFile {
    let mut trust = old.signed.clone();
    trust.ancestors.push(old.signed.digest().unwrap());
    trust.version += 1;
    edit(&mut trust);
    signed(trust, keys)
}

pub fn signed(trust: Trust, keys: &[&PersonKey]) -> TrustFile {
    let bytes = canonical::to_vec(&trust).unwrap();
    let signatures = keys
        .iter()
        .map(|k| TrustSignature { sshsig: k.sign(TRUST_NAMESPACE, &bytes).to_armored() })
        .collect();
    TrustFile { signed: trust, signatures }
}
