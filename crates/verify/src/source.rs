//! Whether the source verdict is the builder's, is whole, and is the one its summary is of.

use std::collections::BTreeMap;

use casemate_spec::Sha256;
use casemate_statement::PublicKey;
use casemate_statement::bundle::ReleaseBundle;
use casemate_statement::intoto::Statement;
use casemate_statement::source::SourceVerdict;
use casemate_statement::vsa::Vsa;

use crate::chain::{SignerLink, SourceLink};
use crate::check::Checks;
use crate::check::codes::{SOURCE_SIGNED, SOURCE_SUMMARY, SOURCE_TRUST, SOURCE_WHOLE};
use crate::log::{Ledger, Step};

/// Checks both source statements. Returns the verdict if the builder signed it.
pub(crate) fn check(
    bundle: &ReleaseBundle,
    builder: &PublicKey,
    trust: &Sha256,
    ledger: &mut Ledger,
    checks: &mut Checks,
) -> Option<SourceVerdict> {
    let by = format!("signed by the builder's key {}", builder.keyid());
    let signed = |_: &_| by.clone();
    let parsed = bundle.source.detail.verify_dsse(builder);
    let parsed = parsed.and_then(Statement::<SourceVerdict>::parse);
    let detail = checks.result("source signature", SOURCE_SIGNED, &by, parsed, signed);
    let parsed = bundle.source.summary.verify_dsse(builder).and_then(Statement::<Vsa>::parse);
    let signed = |_: &_| by.clone();
    let summary = checks.result("source summary signature", SOURCE_SIGNED, &by, parsed, signed);
    for (what, part) in
        [("source verdict", &bundle.source.detail), ("source summary", &bundle.source.summary)]
    {
        ledger.check(Step::Source, what.into(), &part.entry, part.record(builder), checks);
    }
    let detail = detail?;
    let whole = detail.predicate.check();
    let found = |(): &()| "a verdict that agrees with itself".to_owned();
    checks.result("source verdict", SOURCE_WHOLE, "a whole source verdict", whole, found);
    let subject = detail.predicate.subject();
    let names_commit = detail.subject == [subject];
    let commit = &detail.predicate.commit;
    checks.check(
        "source subject",
        SOURCE_WHOLE,
        names_commit,
        format!("commit {commit} as the only subject"),
        if names_commit { "this commit" } else { "other subjects" },
    );
    checks.same("source trust file", SOURCE_TRUST, trust, &detail.predicate.trust);
    if let (Some(summary), Ok(envelope)) = (summary, bundle.source.detail.envelope()) {
        let expected = detail.predicate.summary(envelope, summary.predicate.time_verified);
        checks.check(
            "source summary",
            SOURCE_SUMMARY,
            summary == expected,
            format!("a summary of source verdict {}", envelope.digest()),
            if summary == expected { "that summary" } else { "another summary" },
        );
    }
    Some(detail.predicate)
}

/// What the chain shows of a source verdict.
pub(crate) fn link(verdict: &SourceVerdict) -> SourceLink {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for commit in &verdict.commits {
        *counts.entry((&commit.signer, &commit.fingerprint)).or_default() += 1;
    }
    let mut signers: Vec<SignerLink> = counts
        .into_iter()
        .map(|((name, fingerprint), commits)| SignerLink {
            name: name.into(),
            fingerprint: fingerprint.into(),
            commits,
        })
        .collect();
    signers.sort_by(|a, b| b.commits.cmp(&a.commits).then_with(|| a.name.cmp(&b.name)));
    SourceLink {
        repository: verdict.repository.clone(),
        commit: verdict.commit.clone(),
        tree: verdict.tree.clone(),
        commits: verdict.history.commits,
        since: verdict.history.since.clone(),
        files: verdict.files.len(),
        signers,
    }
}
