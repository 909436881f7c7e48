//! `casemate trust`: whom this installation believes, and how that changes.

use std::path::Path;

use casemate_spec::trust::{Developer, DeveloperKey, Thresholds, TrustFile, TrustSignature};
use casemate_spec::{Kind, canonical};

use crate::args::{Format, TrustCommand};
use crate::bundles::now;
use crate::failure::{self, Failure};
use crate::installation::{Installation, read, replace};
use crate::{keys, output, people};

/// Runs the command.
///
/// # Errors
/// If a file is refused or signatures are missing.
pub fn run(
    installation: &Installation,
    format: Format,
    command: &TrustCommand,
) -> Result<(), Failure> {
    match command {
        TrustCommand::Show => show(installation, format),
        TrustCommand::Propose {
            output,
            approvers,
            threshold,
            admin_threshold,
            trust_threshold,
            developers,
            developers_openpgp,
        } => {
            let mut file = next_version(installation)?;
            if !approvers.is_empty() {
                file.signed.approvers = people::approvers(approvers)?;
            }
            let Thresholds { release, admin, trust } = file.signed.thresholds;
            file.signed.thresholds = Thresholds {
                release: threshold.unwrap_or(release),
                admin: admin_threshold.unwrap_or(admin),
                trust: trust_threshold.unwrap_or(trust),
            };
            let listed = &mut file.signed.developers;
            let is_ssh = |d: &Developer| matches!(d.key, DeveloperKey::Ssh(_));
            listed.retain(|d| {
                if is_ssh(d) { developers.is_none() } else { developers_openpgp.is_empty() }
            });
            listed.extend(people::developers(developers.as_ref(), developers_openpgp)?);
            write_proposal(&file, output)
        }
        TrustCommand::Sign { file, key } => sign(installation, file, key),
        TrustCommand::Install { file } => install(installation, file),
    }
}

fn show(installation: &Installation, format: Format) -> Result<(), Failure> {
    let file = installation.trust()?;
    if format == Format::Json {
        output::json(&file);
        return Ok(());
    }
    let trust = &file.signed;
    output::field("version", &trust.version.to_string());
    output::field("digest", &trust.digest()?.to_string());
    output::field("installation", &trust.root_digest()?.to_string());
    let Thresholds { release, admin, trust: own } = trust.thresholds;
    output::field("thresholds", &format!("release {release}, secrets {admin}, trust {own}"));
    for approver in &trust.approvers {
        output::field("approver", &format!("{}: {}", approver.name, approver.keys.join(", ")));
    }
    for developer in &trust.developers {
        let until = developer.valid_before.map_or(String::new(), |t| format!(", until {t}"));
        output::field("developer", &format!("{}{until}", developer.principals.join(", ")));
    }
    output::field("ledger", &trust.ledger.origin);
    for tee in &trust.tees {
        let note =
            if tee.kind.is_simulated() { " (hides nothing from its machine's root)" } else { "" };
        output::field("accepted TEE", &format!("{}{note}", tee.kind.as_str()));
    }
    Ok(())
}

fn next_version(installation: &Installation) -> Result<TrustFile, Failure> {
    let mut file = installation.trust()?;
    let digest = file.signed.digest()?;
    file.signed.ancestors.push(digest);
    file.signed.version += 1;
    file.signed.created = jiff::Timestamp::from_second(now())
        .map_err(|e| Failure::new("CM-CLI-0050", Kind::Environment, format!("clock: {e}")))?;
    file.signatures.clear();
    Ok(file)
}

fn write_proposal(file: &TrustFile, path: &Path) -> Result<(), Failure> {
    file.signed.check().map_err(|e| Failure::from(e).into_usage())?;
    if path.exists() {
        return Err(failure::usage(format!(
            "{}: exists already; nothing was written",
            path.display()
        ))
        .fix("name a new file with -o"));
    }
    replace(path, &to_json(file)?)?;
    output::line(&format!("proposed version {} in {}", file.signed.version, path.display()));
    output::line("have approvers sign it: casemate trust sign FILE --key SSHKEY");
    Ok(())
}

fn sign(installation: &Installation, path: &Path, key: &Path) -> Result<(), Failure> {
    let mut file = TrustFile::parse(&read(path)?)?;
    let message = canonical::to_vec(&file.signed)?;
    let signature = keys::sign(key, casemate_spec::trust::NAMESPACE, &message)?;
    let signer = signature.key();
    let known =
        |trust: &casemate_spec::trust::Trust| trust.approver_of(&signer.to_line()).is_some();
    if !known(&file.signed) && !known(&installation.trust()?.signed) {
        return Err(Failure::new(
            "CM-CLI-0041",
            Kind::Refused,
            format!("key {} is no approver's in the trust file", signer.fingerprint()),
        )
        .fix("sign with the key that `casemate trust show` lists"));
    }
    let sshsig = signature.to_armored();
    if !file.signatures.iter().any(|s| s.sshsig == sshsig) {
        file.signatures.push(TrustSignature { sshsig });
    }
    replace(path, &to_json(&file)?)?;
    output::line(&format!(
        "{} signatures on version {}",
        file.signatures.len(),
        file.signed.version
    ));
    Ok(())
}

/// Puts a signed version into force. The services take it up when they next start, and refuse any
/// older one from then on.
fn install(installation: &Installation, path: &Path) -> Result<(), Failure> {
    let new = TrustFile::parse(&read(path)?)?;
    let old = installation.trust()?;
    casemate_verify::trust::check_successor(&old, &new)?;
    if installation.is_serving() {
        return Err(Failure::new("CM-CLI-0051", Kind::Environment, "the services are running")
            .fix("casemate stop, install, and serve again"));
    }
    replace(&installation.trust_path(), &to_json(&new)?)?;
    output::line(&format!("trust file version {} is in force", new.signed.version));
    Ok(())
}

/// The JSON of a trust file, as it is kept.
///
/// # Errors
/// Never in practice: a trust file holds text and small integers.
pub fn to_json(file: &TrustFile) -> Result<Vec<u8>, Failure> {
    let mut bytes = serde_json::to_vec_pretty(file)
        .map_err(|e| Failure::new("CM-CLI-0052", Kind::Environment, format!("trust file: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}
