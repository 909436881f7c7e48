//! Every way to alter a release is refused with its own code, and the honest twin passes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use casemate_spec::binding::Purpose;
use casemate_spec::trust::TrustFile;
use casemate_spec::{Sha256, Sha384};
use casemate_statement::approval;
use casemate_statement::bundle::{ReleaseBundle, SignedApproval};
use casemate_statement::intoto::Resource;
use casemate_statement::{SigningKey, vsa};
use casemate_verify::{
    ArtifactDigest, Verdict, verify_built, verify_bundle, verify_for_signing, verify_release,
};
use support::platform::Platform;
use support::{Log, NOW, Parts, World, artifact, at, hello, next_version, signed};

fn verify(world: &World, bundle: &ReleaseBundle) -> Verdict {
    verify_release(&hello(), bundle, &world.trust, NOW)
}

/// Asserts a refusal whose first failed check has this code.
#[track_caller]
fn assert_refused(verdict: &Verdict, code: &str) {
    let failed: Vec<_> = verdict.checks.iter().filter(|c| !c.passed).collect();
    assert!(!verdict.accepted, "accepted, expected {code}");
    assert_eq!(verdict.result().unwrap_err().code, code, "{failed:#?}");
}

#[track_caller]
fn assert_accepted(verdict: &Verdict) {
    let failed: Vec<_> = verdict.checks.iter().filter(|c| !c.passed).collect();
    assert!(verdict.accepted, "{failed:#?}");
}

/// A release from a build whose statements were changed before they were signed.
fn released_with(edit: impl FnOnce(&mut Parts)) -> (World, ReleaseBundle) {
    let mut world = World::new();
    let mut parts = world.parts();
    edit(&mut parts);
    let mut bundle = world.assemble(parts);
    World::approve(&mut world.log, &mut bundle, &world.alice);
    World::approve(&mut world.log, &mut bundle, &world.bob);
    world.sign(&mut bundle);
    (world, bundle)
}

#[test]
fn accepts_an_honest_release_and_shows_the_whole_chain() {
    let mut world = World::new();
    let built = world.built();
    assert_accepted(&verify_built(&built, &world.trust, NOW));
    let approved = world.approved();
    assert_accepted(&verify_for_signing(&approved, &world.trust, NOW));
    let released = world.released();
    assert_accepted(&verify_bundle(&released, &world.trust, NOW));
    let verdict = verify(&world, &released);
    assert_accepted(&verdict);
    assert_eq!(verdict.simulated, Some(true));
    let chain = verdict.result().unwrap();
    assert_eq!(chain.artifact.as_ref().unwrap().name, "hello");
    assert_eq!(chain.source.as_ref().unwrap().signers[0].name, "dora@example.org");
    let build = chain.build.as_ref().unwrap();
    assert_eq!(build.measurement, Some(world.workload.measurement().unwrap()));
    assert_eq!(build.inputs.get("toolchain"), Some(&1));
    let names: Vec<_> = chain.approvals.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["alice", "bob"]);
    assert_eq!(chain.release.as_ref().unwrap().time, at(NOW - 10));
    assert_eq!(chain.ledger.entries.len(), 3 + 2 + 1 + 2);
    serde_json::to_string(&verdict).unwrap();
}

#[test]
fn a_bundle_survives_its_file() {
    let mut world = World::new();
    let bundle = world.released();
    let read = ReleaseBundle::parse(&bundle.to_bytes().unwrap()).unwrap();
    assert_eq!(read, bundle);
    assert_accepted(&verify(&world, &read));
}

#[test]
fn refuses_bundles_of_the_wrong_shape() {
    let mut world = World::new();
    let honest = world.released();
    let breaks: [fn(&mut ReleaseBundle); 9] = [
        |b| b.media_type.push('x'),
        |b| b.artifacts.clear(),
        |b| b.artifacts[0].name = "../hello".into(),
        |b| b.artifacts[0].name = "hello\u{1b}[2J".into(),
        |b| b.artifacts.swap(0, 1),
        |b| b.builder.key.0.push(0),
        |b| b.release = None,
        |b| b.signatures.truncate(1),
        |b| b.approvals[0].sshsig = b.approvals[0].sshsig.replace('\n', "\r\n"),
    ];
    for (at, break_it) in breaks.iter().enumerate() {
        let mut bundle = honest.clone();
        break_it(&mut bundle);
        let refused = ReleaseBundle::parse(&bundle.to_bytes().unwrap());
        assert!(refused.is_err(), "case {at}");
    }
    assert!(ReleaseBundle::parse(&honest.to_bytes().unwrap()).is_ok());
}

#[test]
fn accepts_a_renamed_artifact_and_refuses_another_one() {
    let mut world = World::new();
    let bundle = world.released();
    let ask = |a: ArtifactDigest| verify_release(&a, &bundle, &world.trust, NOW);
    assert_accepted(&ask(ArtifactDigest { name: "renamed".into(), ..hello() }));
    assert_refused(&ask(ArtifactDigest { sha256: Sha256::of(b"x"), ..hello() }), "CM-VERI-0003");
    assert_refused(&ask(ArtifactDigest { size: 14, ..hello() }), "CM-VERI-0003");
}

#[test]
fn refuses_a_release_that_is_not_signed_or_not_approved() {
    let mut world = World::new();
    let built = world.built();
    assert_refused(&verify_for_signing(&built, &world.trust, NOW), "CM-VERI-0054");
    let approved = world.approved();
    assert_refused(&verify(&world, &approved), "CM-VERI-0060");
}

#[test]
fn refuses_evidence_under_another_simulated_root() {
    let other = Platform::new("Simulated ARK two");
    let (world, bundle) = released_with(|parts| {
        let spki = parts.key.public().spki();
        let workload = parts.record.workload().clone();
        parts.record = other.record(Purpose::StatementKey, None, spki, &workload, false);
        name_evidence(parts);
    });
    assert_refused(&verify(&world, &bundle), "CM-VERI-0010");
    assert_eq!(verify(&world, &bundle).simulated, None);
    let mut trust = world.trust.clone();
    trust.signed.tees = vec![other.accepted_tee()];
    let verdict = verify_bundle(&bundle, &trust, NOW);
    let evidence = verdict.checks.iter().find(|c| c.name == "builder evidence");
    assert!(evidence.is_some_and(|c| c.passed), "its own root accepts it");
}

#[test]
fn refuses_a_builder_that_can_be_debugged() {
    let mut world = World::new();
    for (debug, code) in [(false, None), (true, Some("CM-EVID-0020"))] {
        let mut parts = world.parts();
        let spki = parts.key.public().spki().to_vec();
        let purpose = Purpose::StatementKey;
        parts.record = world.platform.record(purpose, None, &spki, &world.workload, debug);
        name_evidence(&mut parts);
        let bundle = world.assemble(parts);
        let verdict = verify_built(&bundle, &world.trust, NOW);
        match code {
            None => assert_accepted(&verdict),
            Some(code) => {
                assert_refused(&verdict, "CM-VERI-0010");
                assert!(verdict.result().unwrap_err().found.contains(code));
            }
        }
    }
}

#[test]
fn refuses_a_statement_key_that_the_evidence_is_not_about() {
    let mut world = World::new();
    let mut parts = world.parts();
    (parts.key, _) = SigningKey::generate().unwrap();
    let bundle = world.assemble(parts);
    let verdict = verify_built(&bundle, &world.trust, NOW);
    assert_refused(&verdict, "CM-VERI-0010");
    assert!(verdict.result().unwrap_err().found.contains("CM-EVID-0032"));
}

#[test]
fn refuses_evidence_for_another_purpose() {
    let mut world = World::new();
    let mut parts = world.parts();
    let spki = parts.key.public().spki().to_vec();
    parts.record = world.platform.record(Purpose::ServiceKey, None, &spki, &world.workload, false);
    name_evidence(&mut parts);
    let bundle = world.assemble(parts);
    assert_refused(&verify_built(&bundle, &world.trust, NOW), "CM-VERI-0010");
}

#[test]
fn refuses_a_builder_that_the_trust_file_does_not_list() {
    let mut world = World::new();
    world.workload.root = Sha256::of(b"another builder");
    let bundle = world.built();
    assert_refused(&verify_built(&bundle, &world.trust, NOW), "CM-VERI-0011");
}

#[test]
fn refuses_evidence_that_the_provenance_does_not_name() {
    let (world, bundle) = released_with(|parts| {
        parts.provenance.build_definition.internal_parameters.evidence = Sha256::of(b"x");
    });
    assert_refused(&verify(&world, &bundle), "CM-VERI-0012");
}

#[test]
fn refuses_statements_signed_by_another_key() {
    let mut world = World::new();
    let (honest, other) = (world.released(), world.released());
    let mut swapped = honest.clone();
    swapped.provenance = other.provenance.clone();
    assert_refused(&verify(&world, &swapped), "CM-VERI-0030");
    let mut swapped = honest.clone();
    swapped.source = other.source;
    assert_refused(&verify(&world, &swapped), "CM-VERI-0020");
    let mut swapped = honest.clone();
    swapped.source.summary = honest.provenance.clone();
    assert_refused(&verify(&world, &swapped), "CM-VERI-0020");
    assert_accepted(&verify(&world, &honest));
}

#[test]
fn refuses_provenance_of_other_artifacts_or_sizes() {
    let other = |parts: &mut Parts| {
        parts.subject = Some(vec![Resource::from(&artifact("hello", b"evil"))]);
    };
    let (world, bundle) = released_with(other);
    assert_refused(&verify(&world, &bundle), "CM-VERI-0031");
    let (world, mut bundle) = released_with(|_| {});
    bundle.artifacts[1].size += 1;
    assert_refused(&verify(&world, &bundle), "CM-VERI-0031");
}

#[test]
fn refuses_provenance_of_another_source() {
    let edits: [fn(&mut Parts); 5] = [
        |p| p.provenance.build_definition.external_parameters.config.content = "x".into(),
        |p| p.provenance.build_definition.external_parameters.commit = "9".repeat(40),
        |p| p.provenance.build_definition.external_parameters.repository = "other".into(),
        |p| p.provenance.build_definition.external_parameters.config.sha256 = Sha256::of(b"x"),
        |p| {
            p.provenance.build_definition.resolved_dependencies.remove(0);
        },
    ];
    for edit in edits {
        let (world, bundle) = released_with(edit);
        assert_refused(&verify(&world, &bundle), "CM-VERI-0032");
    }
}

#[test]
fn refuses_provenance_that_contradicts_its_builder() {
    let edits: [fn(&mut Parts); 3] = [
        |p| p.provenance.build_definition.build_type = "x".into(),
        |p| p.provenance.run_details.builder.id = "x".into(),
        |p| p.provenance.build_definition.internal_parameters.measurement = Sha384::of(b"x"),
    ];
    for edit in edits {
        let (world, bundle) = released_with(edit);
        assert_refused(&verify(&world, &bundle), "CM-VERI-0033");
    }
    let (world, bundle) = released_with(|p| {
        p.provenance.build_definition.internal_parameters.trust = Sha256::of(b"x");
    });
    assert_refused(&verify(&world, &bundle), "CM-VERI-0034");
}

#[test]
fn refuses_a_source_verdict_that_contradicts_itself() {
    let (world, bundle) = released_with(|p| p.source.history.commits = 2);
    assert_refused(&verify(&world, &bundle), "CM-VERI-0021");
    let (world, bundle) = released_with(|p| p.source.trust = Sha256::of(b"x"));
    assert_refused(&verify(&world, &bundle), "CM-VERI-0023");
}

#[test]
fn refuses_a_summary_of_another_source_verdict() {
    let mut world = World::new();
    let parts = world.parts();
    let mut other = parts.source.clone();
    other.files.pop();
    let envelope = other.clone().statement().sign(&parts.key).unwrap();
    let summary = other.summary(&envelope, at(NOW)).sign(&parts.key).unwrap();
    let summary = world.log.add_dsse(&parts.key, summary);
    let mut bundle = world.assemble(parts);
    assert_accepted(&verify_built(&bundle, &world.trust, NOW));
    bundle.source.summary = summary;
    assert_refused(&verify_built(&bundle, &world.trust, NOW), "CM-VERI-0022");
}

#[test]
fn refuses_an_entry_of_another_log_and_one_about_something_else() {
    let mut world = World::new();
    let honest = world.released();
    let mut other_log = Log::new("casemate.test/log", 2);
    let record = honest.provenance.record(&honest.builder_key().unwrap()).unwrap();
    let mut bundle = honest.clone();
    bundle.provenance.entry = other_log.add(&record);
    assert_refused(&verify(&world, &bundle), "CM-VERI-0042");
    // the other log's checkpoint under the right log's id
    bundle.provenance.entry.log_id = honest.provenance.entry.log_id.clone();
    assert_refused(&verify(&world, &bundle), "CM-VERI-0040");
    let mut bundle = honest.clone();
    bundle.provenance.entry = honest.source.detail.entry.clone();
    assert_refused(&verify(&world, &bundle), "CM-VERI-0041");
    let mut bundle = honest.clone();
    bundle.provenance.entry.inclusion_proof.hashes.pop();
    assert_refused(&verify(&world, &bundle), "CM-VERI-0040");
}

#[test]
fn refuses_a_bundle_without_a_log_entry() {
    let mut world = World::new();
    let bytes = world.released().to_bytes().unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert!(ReleaseBundle::parse(&serde_json::to_vec(&json).unwrap()).is_ok());
    json["provenance"]["verificationMaterial"]["tlogEntries"] = serde_json::json!([]);
    let refused = ReleaseBundle::parse(&serde_json::to_vec(&json).unwrap());
    assert!(refused.unwrap_err().to_string().contains("log entries"));
}

#[test]
fn refuses_an_approval_that_was_logged_before_the_build() {
    let mut world = World::new();
    let mut bundle = world.approved();
    let record = bundle.provenance.record(&bundle.builder_key().unwrap()).unwrap();
    bundle.provenance.entry = world.log.add(&record);
    assert_refused(&verify_for_signing(&bundle, &world.trust, NOW), "CM-VERI-0043");
}

#[test]
fn refuses_one_person_counted_twice() {
    let mut world = World::new();
    let mut bundle = world.built();
    World::approve(&mut world.log, &mut bundle, &world.alice);
    assert_refused(&verify_for_signing(&bundle, &world.trust, NOW), "CM-VERI-0054");
    let mut twice = bundle.clone();
    World::approve(&mut world.log, &mut twice, &world.alice2);
    assert_refused(&verify_for_signing(&twice, &world.trust, NOW), "CM-VERI-0053");
    let mut same = bundle.clone();
    same.approvals.push(bundle.approvals[0].clone());
    assert_refused(&verify_for_signing(&same, &world.trust, NOW), "CM-VERI-0053");
    assert!(ReleaseBundle::parse(&same.to_bytes().unwrap()).is_err(), "the same signature twice");
    World::approve(&mut world.log, &mut bundle, &world.bob);
    assert_accepted(&verify_for_signing(&bundle, &world.trust, NOW));
}

#[test]
fn refuses_an_approver_who_is_not_in_the_trust_file() {
    let mut world = World::new();
    let mut bundle = world.approved();
    assert_accepted(&verify_for_signing(&bundle, &world.trust, NOW));
    World::approve(&mut world.log, &mut bundle, &world.mallory);
    assert_refused(&verify_for_signing(&bundle, &world.trust, NOW), "CM-VERI-0052");
}

#[test]
fn refuses_an_approval_of_another_artifact_or_for_another_purpose() {
    let mut world = World::new();
    let honest = world.approved();
    let other = world.approved();
    let mut bundle = honest.clone();
    bundle.approvals[1] = other.approvals[1].clone();
    assert_refused(&verify_for_signing(&bundle, &world.trust, NOW), "CM-VERI-0050");
    // the right statement beside a signature over the other one
    bundle.approvals[1].statement = honest.approvals[1].statement.clone();
    assert_refused(&verify_for_signing(&bundle, &world.trust, NOW), "CM-VERI-0051");
    let statement = honest.approval_bytes().unwrap();
    let signature = world.bob.sign("file", &statement);
    let entry = world.log.add(&signature.record(&statement));
    let sshsig = signature.to_armored();
    bundle.approvals[1] = SignedApproval { statement: statement.into(), sshsig, entry };
    assert_refused(&verify_for_signing(&bundle, &world.trust, NOW), "CM-VERI-0051");
    assert_accepted(&verify_for_signing(&honest, &world.trust, NOW));
}

#[test]
fn refuses_a_release_signed_by_another_key() {
    let mut world = World::new();
    let honest = world.released();
    let right = world.signer;
    (world.signer, _) = SigningKey::generate().unwrap();
    let mut bundle = honest.clone();
    world.sign(&mut bundle);
    assert_refused(&verify(&world, &bundle), "CM-VERI-0061");
    world.signer = right;
    let mut mixed = honest.clone();
    mixed.signatures = bundle.signatures;
    assert_refused(&verify(&world, &mixed), "CM-VERI-0065");
    let mut swapped = honest.clone();
    swapped.signatures.swap(0, 1);
    assert_refused(&verify(&world, &swapped), "CM-VERI-0065");
    assert_accepted(&verify(&world, &honest));
}

#[test]
fn refuses_a_release_verdict_about_something_else() {
    type Edit = fn(&mut vsa::Vsa);
    let edits: [(Edit, &str); 5] = [
        (|v| v.verification_result = vsa::VerificationResult::Failed, "CM-VERI-0062"),
        (|v| v.verifier.id = "x".into(), "CM-VERI-0062"),
        (|v| v.resource_uri = "casemate:other".into(), "CM-VERI-0062"),
        (|v| v.policy = vsa::policy(&Sha256::of(b"x")), "CM-VERI-0063"),
        (|v| v.input_attestations.truncate(3), "CM-VERI-0064"),
    ];
    for (edit, code) in edits {
        let mut world = World::new();
        let mut bundle = world.approved();
        let trust = world.trust.signed.digest().unwrap();
        let mut statement = bundle.release_statement(&trust, at(NOW)).unwrap();
        edit(&mut statement.predicate);
        let envelope = statement.sign(&world.signer).unwrap();
        world.sign_statement(&mut bundle, envelope);
        assert_refused(&verify(&world, &bundle), code);
    }
}

#[test]
fn refuses_approvals_changed_after_the_release_was_signed() {
    let mut world = World::new();
    let mut bundle = world.released();
    let statement = bundle.approval_bytes().unwrap();
    let signature = world.carol.sign(approval::NAMESPACE, &statement);
    let entry = world.log.add(&signature.record(&statement));
    assert!(bundle.add_approval(&signature, entry.clone()).is_err());
    let sshsig = signature.to_armored();
    bundle.approvals.push(SignedApproval { statement: statement.into(), sshsig, entry });
    let verdict = verify(&world, &bundle);
    let codes: Vec<_> = verdict.checks.iter().filter(|c| !c.passed).map(|c| c.code).collect();
    assert_eq!(codes, ["CM-VERI-0064", "CM-VERI-0043"]);
}

#[test]
fn refuses_an_altered_or_rolled_back_trust_file() {
    let mut world = World::new();
    let old = world.trust.clone();
    let at_first = world.released();
    let keys = [&world.alice, &world.bob];
    world.trust = next_version(&old, |t| t.thresholds.admin = 1, &keys);
    assert_accepted(&verify(&world, &at_first));
    let later = world.released();
    assert_accepted(&verify(&world, &later));
    // rolled back: the old file does not know what came after it
    assert_refused(&verify_bundle(&later, &old, NOW), "CM-VERI-0001");
    // altered: version 1 has another digest now, version 2 lacks its signatures
    let mut altered = old.clone();
    altered.signed.thresholds.release = 1;
    assert_refused(&verify_bundle(&at_first, &altered, NOW), "CM-VERI-0001");
    let mut altered = world.trust.clone();
    altered.signed.thresholds.release = 1;
    assert_refused(&verify_bundle(&at_first, &altered, NOW), "CM-VERI-0004");
    let unsigned = TrustFile { signatures: Vec::new(), ..world.trust.clone() };
    assert_refused(&verify_bundle(&at_first, &unsigned, NOW), "CM-VERI-0004");
    let strangers = signed(world.trust.signed.clone(), &[&world.mallory, &world.alice]);
    assert_refused(&verify_bundle(&at_first, &strangers, NOW), "CM-VERI-0004");
}

#[test]
fn refuses_a_bundle_that_misnames_its_trust_file() {
    let mut world = World::new();
    let mut bundle = world.released();
    bundle.trust.version = 2;
    assert_refused(&verify(&world, &bundle), "CM-VERI-0002");
    bundle.trust.version = 1;
    bundle.trust.root = Sha256::of(b"x");
    assert_refused(&verify(&world, &bundle), "CM-VERI-0002");
}

#[test]
fn a_person_who_was_removed_no_longer_counts() {
    let mut world = World::new();
    let bundle = world.released();
    let keys = [&world.alice, &world.bob, &world.carol];
    let remove = |t: &mut casemate_spec::trust::Trust| t.approvers.retain(|a| a.name != "bob");
    let trust = next_version(&world.trust, remove, &keys);
    assert_refused(&verify_bundle(&bundle, &trust, NOW), "CM-VERI-0052");
}

/// Has the provenance name the evidence that the parts now hold.
fn name_evidence(parts: &mut Parts) {
    let evidence = serde_json::from_slice(&parts.record.to_json()).unwrap();
    let digest = casemate_statement::bundle::evidence_digest(&evidence).unwrap();
    parts.provenance.build_definition.internal_parameters.evidence = digest;
}
