//! `casemate verify`: the verdict on a shipped file, offline.

use casemate_spec::{Kind, Sha256};
use casemate_verify::{Verdict, verify_release};

use crate::args::{Format, Verify};
use crate::bundles::{self, read_bundle};
use crate::failure::Failure;
use crate::{installation, output};

/// Runs the command. Opens no socket and reads only the three files it is given.
///
/// # Errors
/// The first check that failed.
pub fn run(format: Format, args: &Verify) -> Result<(), Failure> {
    let trust = installation::read_trust(&args.trust)?;
    if let Some(expected) = &args.trust_root {
        let expected: Sha256 = expected.parse()?;
        let found = trust.signed.root_digest()?;
        if expected != found {
            return Err(Failure::new(
                "CM-CLI-0043",
                Kind::Refused,
                format!("trust file of installation {found}, expected {expected}"),
            )
            .fix("get the trust file again from the approvers"));
        }
    }
    let bundle = read_bundle(&args.bundle)?;
    let artifact = bundles::artifact(&args.artifact)?;
    let verdict = verify_release(&artifact, &bundle, &trust, bundles::now());
    match format {
        Format::Json => output::json(&verdict),
        Format::Text => show(&verdict, &args.artifact.display().to_string()),
    }
    match verdict.result() {
        Ok(_) => Ok(()),
        // The verdict is already on standard output as one JSON value.
        Err(e) if format == Format::Json => Err(Failure::from(e).silent()),
        Err(e) => Err(e.into()),
    }
}

fn show(verdict: &Verdict, name: &str) {
    let name = output::plain(name);
    let chain = &verdict.chain;
    if verdict.accepted {
        output::line(&format!("{} {name}", output::green("ACCEPTED")));
    } else {
        output::line(&format!("{} {name}", output::red("REFUSED")));
    }
    if verdict.simulated == Some(true) {
        output::line("  built in a SIMULATED TEE: its operator could have forged the build");
    }
    if let Some(artifact) = &chain.artifact {
        output::field("artifact", &format!("{} sha256 {}", artifact.name, artifact.sha256));
    }
    if let Some(source) = &chain.source {
        output::field(
            "source",
            &format!(
                "{} commit {}, {} commits verified",
                source.repository, source.commit, source.commits
            ),
        );
        for signer in &source.signers {
            output::field(
                "",
                &format!("{} ({} commits, {})", signer.name, signer.commits, signer.fingerprint),
            );
        }
    }
    if let Some(build) = &chain.build {
        let measurement = build.measurement.map_or_else(|| "unproved".into(), |m| m.to_string());
        let tee = build.tee.map_or("no accepted TEE", casemate_spec::trust::TeeKind::as_str);
        output::field("build", &format!("{} by builder {measurement} in {tee}", build.finished));
        let inputs: Vec<String> = build.inputs.iter().map(|(c, n)| format!("{n} {c}")).collect();
        output::field("read", &inputs.join(", "));
    }
    let people: Vec<&str> = chain.approvals.iter().map(|a| a.name.as_str()).collect();
    output::field("approved by", &format!("{} ({} needed)", people.join(", "), chain.threshold));
    if let Some(release) = &chain.release {
        output::field("signed", &format!("{} by key {}", release.time, release.key));
    }
    let entries: Vec<String> = chain.ledger.entries.iter().map(|e| e.index.to_string()).collect();
    output::field("ledger", &format!("{}, entries {}", chain.ledger.origin, entries.join(" ")));
    let failed = verdict.checks.iter().filter(|c| !c.passed);
    let passed = verdict.checks.iter().filter(|c| c.passed).count();
    output::field("checks", &format!("{passed} of {} passed", verdict.checks.len()));
    for check in failed {
        output::check(
            false,
            &format!(
                "{} {}: expected {}, found {}",
                check.code, check.name, check.expected, check.found
            ),
        );
    }
}
