//! `casemate sign`: the signer's enclave checks a bundle and signs the release.

use casemate_signer::client::Client;

use crate::args::{Format, Service, Sign};
use crate::bundles::{now, read_bundle};
use crate::failure::Failure;
use crate::installation::{Installation, replace};
use crate::output;

/// Runs the command.
///
/// # Errors
/// If the signer refuses; the bundle is then as it was.
pub fn run(installation: &Installation, format: Format, args: &Sign) -> Result<(), Failure> {
    let bundle = read_bundle(&args.bundle)?;
    let trust = installation.trust()?;
    let client = Client::new(&installation.addresses()?.url(Service::Signer));
    let signed = client.sign(&bundle)?;
    // What came back counts once it verifies here, whoever answered.
    casemate_verify::verify_bundle(&signed, &trust, now()).result()?;
    replace(&args.bundle, &signed.to_bytes()?)?;
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
