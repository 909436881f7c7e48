//! `casemate sign`: the signer's enclave checks a bundle and signs the release.

use casemate_signer::client::Client;

use crate::args::{Format, Service, Sign};
use crate::bundles::{LockedBundle, now};
use crate::failure::Failure;
use crate::installation::Installation;
use crate::output;

/// Runs the command.
///
/// # Errors
/// If the signer refuses; the bundle is then as it was.
pub fn run(installation: &Installation, format: Format, args: &Sign) -> Result<(), Failure> {
    let mut held = LockedBundle::open(&args.bundle)?;
    let trust = installation.trust()?;
    let client = Client::new(&installation.addresses()?.url(Service::Signer));
    let signed = client.sign(&held.bundle)?;
    // What came back counts once it verifies here, whoever answered.
    casemate_verify::verify_bundle(&signed, &trust, now()).result()?;
    held.bundle = signed;
    held.save()?;
    let signed = &held.bundle;
    match format {
        Format::Json => output::json(&serde_json::json!({
            "bundle": args.bundle, "artifacts": signed.artifacts, "simulated": true,
        })),
        Format::Text => {
            for artifact in &signed.artifacts {
                output::line(&format!("signed {} sha256 {}", artifact.name, artifact.sha256));
            }
            output::line("the release key lives in an enclave of a SIMULATED TEE");
        }
    }
    Ok(())
}
