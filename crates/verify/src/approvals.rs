//! Whether enough different people approved these very artifacts.

use casemate_spec::trust::Trust;
use casemate_statement::StatementError;
use casemate_statement::approval::NAMESPACE;
use casemate_statement::bundle::{ReleaseBundle, SignedApproval};
use casemate_statement::quorum::{self, Person};
use casemate_statement::sshsig::SshSignature;

use crate::chain::ApprovalLink;
use crate::check::Checks;
use crate::check::codes::{
    APPROVAL_CONTENT, APPROVAL_PERSON, APPROVAL_QUORUM, APPROVAL_SIGNATURE, APPROVAL_TWICE,
};
use crate::log::{Ledger, Step};

/// Checks every approval in the bundle; each must be good, and there must be enough.
pub(crate) fn check(
    bundle: &ReleaseBundle,
    trust: &Trust,
    ledger: &mut Ledger,
    checks: &mut Checks,
) -> Vec<ApprovalLink> {
    let statement = bundle.approval_bytes();
    let described = |bytes: &Vec<u8>| format!("{} bytes to approve", bytes.len());
    let expected = "something to approve";
    let Some(statement) =
        checks.result("approval statement", APPROVAL_CONTENT, expected, statement, described)
    else {
        return Vec::new();
    };
    let mut links = Vec::new();
    for approval in &bundle.approvals {
        links.extend(check_one(approval, &statement, trust, ledger, checks));
    }
    let people: Vec<Person> = links
        .iter()
        .map(|l| Person { name: l.name.clone(), fingerprint: l.fingerprint.clone() })
        .collect();
    let distinct = quorum::distinct(&people);
    let counted = |(): &()| format!("{} people", people.len());
    checks.result("approvers", APPROVAL_TWICE, "each person once", distinct, counted);
    let mut names: Vec<&str> = people.iter().map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let threshold = trust.thresholds.release;
    checks.check(
        "approval quorum",
        APPROVAL_QUORUM,
        names.len() >= threshold,
        format!("at least {threshold} of {} approvers", trust.approvers.len()),
        if names.is_empty() { "nobody".into() } else { names.join(", ") },
    );
    links
}

fn check_one(
    approval: &SignedApproval,
    statement: &[u8],
    trust: &Trust,
    ledger: &mut Ledger,
    checks: &mut Checks,
) -> Option<ApprovalLink> {
    let same = *approval.statement == *statement;
    checks.check(
        "approval content",
        APPROVAL_CONTENT,
        same,
        "approval of these artifacts, this provenance and this source",
        if same { "that approval" } else { "approval of something else" },
    );
    let expected = "an ssh signature";
    let parsed = SshSignature::parse(&approval.sshsig);
    let by = |s: &SshSignature| format!("signature by {}", s.key().fingerprint());
    let signature = checks.result("approval form", APPROVAL_SIGNATURE, expected, parsed, by)?;
    let person = quorum::person(trust, NAMESPACE, statement, &signature);
    let code = match &person {
        Err(StatementError::NotAnApprover { .. }) => APPROVAL_PERSON,
        _ => APPROVAL_SIGNATURE,
    };
    let named = |p: &Person| format!("{} ({})", p.name, p.fingerprint);
    let expected = "signed by an approver of the trust file";
    let person = checks.result("approval signature", code, expected, person, named)?;
    let what = format!("approval by {}", person.name);
    let record = Ok(signature.record(statement));
    ledger.check(Step::Approval, what, &approval.entry, record, checks);
    Some(ApprovalLink {
        name: person.name,
        fingerprint: person.fingerprint,
        hardware: signature.key().is_hardware(),
    })
}
