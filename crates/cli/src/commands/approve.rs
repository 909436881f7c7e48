//! `casemate approve`: one person's word on one bundle.

use casemate_spec::Kind;
use casemate_spec::trust::TrustFile;
use casemate_statement::approval::NAMESPACE;
use casemate_statement::bundle::ReleaseBundle;
use casemate_statement::sshsig::SshSignature;

use crate::args::{Approve, Format};
use crate::bundles::{self, LockedBundle};
use crate::failure::{self, Failure};
use crate::installation::Installation;
use crate::{keys, output};

/// Runs the command.
///
/// # Errors
/// If the bundle is not good as built, the signer is no approver, or the ledger refuses.
pub fn run(installation: &Installation, format: Format, args: &Approve) -> Result<(), Failure> {
    let mut held = LockedBundle::open(&args.bundle)?;
    let bundle = &mut held.bundle;
    let trust = installation.trust()?;
    casemate_verify::verify_built(bundle, &trust, bundles::now()).result()?;
    let message = bundle.approval_bytes()?;
    if args.print {
        output::raw(&message);
        return Ok(());
    }
    let signature = match (&args.key, &args.signature) {
        (Some(key), None) => keys::sign(key, NAMESPACE, &message)?,
        (None, Some(file)) => keys::read_signature(file)?,
        _ => return Err(failure::usage("approve needs --key, --signature or --print")),
    };
    signature.verify(NAMESPACE, &message)?;
    let name = approver(&trust, &signature)?;
    let again = already(bundle, &trust, &signature, &name)?;
    if !again && bundle.release.is_some() {
        return Err(Failure::new(
            "CM-CLI-0044",
            Kind::Refused,
            format!("{}: the release is signed; its approvals are closed", args.bundle.display()),
        )
        .fix("nothing is missing; verify it: casemate verify"));
    }
    if !again {
        let entry = bundles::ledger(installation, &trust)?.add_sshsig(&signature, &message)?;
        bundle.add_approval(&signature, entry)?;
        held.save()?;
    }
    report(format, &held.bundle, &trust, &name, again);
    Ok(())
}

fn report(format: Format, bundle: &ReleaseBundle, trust: &TrustFile, name: &str, again: bool) {
    let (have, need) = (bundle.approvals.len(), trust.signed.thresholds.release);
    match format {
        Format::Json => output::json(&serde_json::json!({
            "approver": name, "again": again, "approvals": have, "threshold": need,
        })),
        Format::Text => {
            let word = if again { "had approved already" } else { "approved" };
            output::line(&format!("{name} {word}: {have} of {need} approvals"));
            if let Some(entry) = bundle.approvals.last().filter(|_| !again) {
                output::line(&format!("ledger entry {}", entry.entry.log_index));
            }
        }
    }
}

fn approver(trust: &TrustFile, signature: &SshSignature) -> Result<String, Failure> {
    let key = signature.key();
    trust.signed.approver_of(&key.to_line()).map(|a| a.name.clone()).ok_or_else(|| {
        Failure::new(
            "CM-CLI-0041",
            Kind::Refused,
            format!("key {} is no approver's in the trust file", key.fingerprint()),
        )
        .fix("sign with the key that `casemate trust show` lists")
    })
}

/// Whether this very key has approved already; another key of the same person is refused, since
/// people count and not keys.
fn already(
    bundle: &ReleaseBundle,
    trust: &TrustFile,
    signature: &SshSignature,
    name: &str,
) -> Result<bool, Failure> {
    for approval in &bundle.approvals {
        let earlier = SshSignature::parse(&approval.sshsig)?;
        if earlier.key().fingerprint() == signature.key().fingerprint() {
            return Ok(true);
        }
        if approver(trust, &earlier).is_ok_and(|n| n == name) {
            return Err(Failure::new(
                "CM-CLI-0042",
                Kind::Refused,
                format!("{name} has approved with another key; people count, not keys"),
            )
            .fix("have another approver approve"));
        }
    }
    Ok(false)
}
