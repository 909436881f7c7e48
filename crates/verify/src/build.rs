//! Whether the builder is one the trust file accepts, and the provenance is its word about this
//! source and these artifacts.

use std::collections::BTreeMap;

use casemate_evidence::{Claims, Expect, Record, Verifier};
use casemate_spec::binding::Purpose;
use casemate_spec::trust::Trust;
use casemate_spec::{Coded as _, Sha256};
use casemate_statement::PublicKey;
use casemate_statement::bundle::ReleaseBundle;
use casemate_statement::intoto::{CLASS, Resource, Statement};
use casemate_statement::slsa::{self, Provenance};
use casemate_statement::source::SourceVerdict;

use crate::chain::{BuildLink, EvidenceCheck};
use crate::check::Checks;
use crate::check::codes::{
    BUILDER, EVIDENCE, EVIDENCE_NAMED, PROVENANCE_ARTIFACTS, PROVENANCE_BUILDER, PROVENANCE_SIGNED,
    PROVENANCE_SOURCE, PROVENANCE_TRUST,
};
use crate::log::{Ledger, Step};

/// What is known of the builder.
pub(crate) struct Builder {
    pub(crate) key: PublicKey,
    pub(crate) claims: Option<Claims>,
    evidence: Vec<EvidenceCheck>,
}

/// Appraises the builder's evidence. None if the bundle holds no usable key.
pub(crate) fn check_builder(
    bundle: &ReleaseBundle,
    trust: &Trust,
    verifier: &Verifier,
    now: i64,
    checks: &mut Checks,
) -> Option<Builder> {
    let described = |key: &PublicKey| format!("key {}", key.keyid());
    let key = checks.result("builder key", EVIDENCE, "a key", bundle.builder_key(), described)?;
    let mut builder = Builder { key, claims: None, evidence: Vec::new() };
    let expected = format!("evidence that an enclave made key {}", builder.key.keyid());
    // Serialising a JSON value does not fail; if it did, the empty record would be refused.
    let bytes = serde_json::to_vec(&bundle.builder.evidence).unwrap_or_default();
    let record = match Record::parse(&bytes) {
        Ok(record) => record,
        Err(e) => {
            let found = format!("{e} ({})", e.code());
            checks.check("builder evidence", EVIDENCE, false, expected, found);
            return Some(builder);
        }
    };
    let expect = Expect { purpose: Purpose::StatementKey, nonce: None, spki: builder.key.spki() };
    let appraisal = verifier.appraise(&record, &expect, &trust.tees, now);
    builder.evidence = appraisal.checks.iter().map(evidence_check).collect();
    match appraisal.result() {
        Ok(claims) => {
            let found = format!("{} evidence of {}", claims.tee.as_str(), claims.measurement);
            checks.check("builder evidence", EVIDENCE, true, expected, found);
            checks.check(
                "builder measurement",
                BUILDER,
                trust.builders.contains(&claims.measurement),
                "a builder of the trust file",
                claims.measurement,
            );
            builder.claims = Some(claims.clone());
        }
        Err(e) => {
            let found = format!("{e} ({})", e.code());
            checks.check("builder evidence", EVIDENCE, false, expected, found);
        }
    }
    Some(builder)
}

/// Checks the provenance against everything else. Returns it if the builder signed it.
pub(crate) fn check_provenance(
    bundle: &ReleaseBundle,
    builder: &Builder,
    source: Option<&SourceVerdict>,
    ledger: &mut Ledger,
    checks: &mut Checks,
) -> Option<Provenance> {
    let by = format!("signed by the builder's key {}", builder.key.keyid());
    let parsed = bundle.provenance.verify_dsse(&builder.key);
    let parsed = parsed.and_then(Statement::<Provenance>::parse);
    let signed = |_: &_| by.clone();
    let statement = checks.result("provenance signature", PROVENANCE_SIGNED, &by, parsed, signed);
    let record = bundle.provenance.record(&builder.key);
    ledger.check(Step::Build, "provenance".into(), &bundle.provenance.entry, record, checks);
    let statement = statement?;
    check_artifacts(bundle, &statement.subject, checks);
    let provenance = statement.predicate;
    check_says(bundle, builder, &provenance, checks);
    check_source(source, &provenance, checks);
    Some(provenance)
}

/// What the chain shows of a build.
pub(crate) fn link(builder: &Builder, provenance: &Provenance, digest: Sha256) -> BuildLink {
    let definition = &provenance.build_definition;
    let mut inputs: BTreeMap<String, usize> = BTreeMap::new();
    for dependency in definition.resolved_dependencies.iter().skip(1) {
        let class = dependency.annotations.get(CLASS).and_then(|c| c.as_str()).unwrap_or("other");
        *inputs.entry(class.into()).or_default() += 1;
    }
    let metadata = &provenance.run_details.metadata;
    BuildLink {
        key: builder.key.keyid(),
        measurement: builder.claims.as_ref().map(|c| c.measurement),
        tee: builder.claims.as_ref().map(|c| c.tee),
        evidence: builder.evidence.clone(),
        invocation: metadata.invocation_id.clone(),
        started: metadata.started_on,
        finished: metadata.finished_on,
        observer: definition.internal_parameters.observer.clone(),
        config: definition.external_parameters.config.clone(),
        inputs,
        provenance: digest,
    }
}

fn check_artifacts(bundle: &ReleaseBundle, subject: &[Resource], checks: &mut Checks) {
    let expected: Vec<Resource> = bundle.artifacts.iter().map(Resource::from).collect();
    let passed = subject == expected;
    checks.check(
        "provenance artifacts",
        PROVENANCE_ARTIFACTS,
        passed,
        format!("provenance of {}", names(&expected)),
        if passed {
            names(subject)
        } else {
            format!("{} with other digests or sizes", names(subject))
        },
    );
}

/// What the provenance says of builder, evidence and trust file.
fn check_says(
    bundle: &ReleaseBundle,
    builder: &Builder,
    provenance: &Provenance,
    checks: &mut Checks,
) {
    let definition = &provenance.build_definition;
    let internal = &definition.internal_parameters;
    let build_type = definition.build_type.as_str();
    checks.same("build type", PROVENANCE_BUILDER, slsa::BUILD_TYPE, build_type);
    let id = provenance.run_details.builder.id.as_str();
    checks.same("builder id", PROVENANCE_BUILDER, slsa::BUILDER_ID, id);
    if let Some(claims) = &builder.claims {
        let (expected, found) = (&claims.measurement, &internal.measurement);
        checks.same("provenance builder", PROVENANCE_BUILDER, expected, found);
    }
    let digest = bundle.builder.evidence_digest();
    let described = |digest: &Sha256| digest.to_string();
    if let Some(digest) =
        checks.result("evidence form", EVIDENCE_NAMED, "evidence with a digest", digest, described)
    {
        checks.same("provenance evidence", EVIDENCE_NAMED, &digest, &internal.evidence);
    }
    let trust = &bundle.trust.digest;
    checks.same("provenance trust file", PROVENANCE_TRUST, trust, &internal.trust);
}

/// Whether the provenance is about the verified source.
fn check_source(source: Option<&SourceVerdict>, provenance: &Provenance, checks: &mut Checks) {
    // Without a verified source there is a failed check already.
    let Some(source) = source else { return };
    let definition = &provenance.build_definition;
    let external = &definition.external_parameters;
    let (expected, found) = (&source.repository, &external.repository);
    checks.same("provenance repository", PROVENANCE_SOURCE, expected, found);
    checks.same("provenance commit", PROVENANCE_SOURCE, &source.commit, &external.commit);
    let expected = slsa::source_dependency(&source.repository, &source.commit, &source.tree);
    let first = definition.resolved_dependencies.first();
    checks.check(
        "provenance source",
        PROVENANCE_SOURCE,
        first == Some(&expected),
        format!("commit {} with tree {}", source.commit, source.tree),
        first.map_or_else(|| "no inputs".into(), |r| format!("{:?}", r.digest)),
    );
    let (expected, found) =
        (external.config.sha256, Sha256::of(external.config.content.as_bytes()));
    checks.same("build configuration text", PROVENANCE_SOURCE, &expected, &found);
    let config = source.files.iter().find(|f| f.path == external.config.path);
    checks.check(
        "build configuration",
        PROVENANCE_SOURCE,
        config.is_some_and(|f| f.sha256 == external.config.sha256),
        config.map_or_else(
            || format!("{} in the source", external.config.path),
            |f| format!("{} with sha256 {}", f.path, f.sha256),
        ),
        external.config.sha256,
    );
}

fn names(resources: &[Resource]) -> String {
    let names: Vec<&str> = resources.iter().filter_map(|r| r.name.as_deref()).take(8).collect();
    let more = if resources.len() > 8 { " …" } else { "" };
    format!("{} ({}{more})", resources.len(), names.join(", "))
}

fn evidence_check(check: &casemate_evidence::Check) -> EvidenceCheck {
    EvidenceCheck {
        name: check.name.into(),
        passed: check.passed,
        code: check.code.into(),
        expected: check.expected.clone(),
        found: check.found.clone(),
    }
}
