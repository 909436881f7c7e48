//! `casemate doctor`: what this machine offers, what is protected here and what is not.

use casemate_spec::Kind;
use serde::Serialize;

use crate::args::Format;
use crate::failure::Failure;
use crate::output;

#[derive(Serialize)]
struct Report {
    tee: &'static str,
    simulated: bool,
    devices: Vec<Device>,
    findings: Vec<casemate_enclave::Finding>,
    protected: Vec<&'static str>,
    not_protected: Vec<&'static str>,
}

#[derive(Serialize)]
struct Device {
    path: String,
    offers: String,
}

/// What the simulation gives, in the words of SECURITY.md.
const PROTECTED: [&str; 4] = [
    "the program sees only measured files; another user sees none of its files or secrets",
    "secrets are released only to the measurement or release they were granted to",
    "what a build reads is observed by the kernel, recorded, and refused if undeclared",
    "statements, approvals and releases are in a log whose every change shows",
];

/// What it does not.
const NOT_PROTECTED: [&str; 3] = [
    "memory, secrets and keys from root on this machine, its hypervisor and its owner",
    "the simulated platform's keys: whoever reads .casemate/sim can forge evidence",
    "anything from a verifier that accepts this simulated root without meaning to",
];

/// Runs the command.
///
/// # Errors
/// If something that every enclave needs is missing (exit status 3).
pub fn run(format: Format) -> Result<(), Failure> {
    let devices: Vec<Device> = casemate_tee::detect()
        .into_iter()
        .map(|d| Device { path: d.path.display().to_string(), offers: d.offers.to_owned() })
        .collect();
    let findings = casemate_enclave::probe();
    let missing: Vec<String> =
        findings.iter().filter(|f| f.needed && !f.ok).map(|f| f.name.to_string()).collect();
    let real = !devices.is_empty();
    let report = Report {
        tee: if real { "hardware" } else { "simulated SEV-SNP" },
        simulated: !real,
        devices,
        findings,
        protected: PROTECTED.to_vec(),
        not_protected: NOT_PROTECTED.to_vec(),
    };
    match format {
        Format::Json => output::json(&report),
        Format::Text => show(&report),
    }
    if real {
        return Err(Failure::new(
            "CM-CLI-0020",
            Kind::Environment,
            "this machine has a TEE device, and this version runs enclaves under the simulation only",
        )
        .fix("use it on a machine without the device; `evidence verify` judges real reports anywhere"));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        "CM-CLI-0021",
        Kind::Environment,
        format!("enclaves can not start here; missing: {}", missing.join(", ")),
    )
    .fix("see the line of each thing missing"))
}

fn show(report: &Report) {
    output::heading("Trusted execution environment");
    if report.devices.is_empty() {
        output::field("device", "none found");
        output::field("in use", "SIMULATED SEV-SNP: proves the workflow, hides nothing from root");
    }
    for device in &report.devices {
        output::field(&device.path, &device.offers);
    }
    output::heading("This machine");
    for finding in &report.findings {
        output::check(finding.ok, &format!("{}: {}", finding.name, finding.detail));
        if let Some(fix) = finding.fix.as_ref().filter(|_| !finding.ok) {
            for part in output::wrap(&format!("fix: {fix}"), output::WIDTH - 9) {
                output::line(&format!("       {part}"));
            }
        }
    }
    output::heading("Protected here");
    for text in &report.protected {
        bullet(text);
    }
    output::heading("NOT protected here");
    for text in &report.not_protected {
        bullet(text);
    }
}

fn bullet(text: &str) {
    let mut mark = "-";
    for part in output::wrap(text, output::WIDTH - 4) {
        output::line(&format!("  {mark} {part}"));
        mark = " ";
    }
}
