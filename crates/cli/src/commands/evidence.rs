//! `casemate evidence`: made, read and judged by hand.

use casemate_enclave::EvidenceRequest;
use casemate_evidence::{Expect, Record, appraise};
use casemate_spec::binding::Purpose;
use casemate_spec::{Kind, Sha384};

use crate::args::{Evidence, Format};
use crate::failure::{self, Failure};
use crate::installation::{self, Installation, read, replace};
use crate::{bundles, keys, output, workload};

/// Runs the command.
///
/// # Errors
/// If the evidence is refused, or can not be made here.
pub fn run(
    dir: Option<&std::path::Path>,
    format: Format,
    command: &Evidence,
) -> Result<(), Failure> {
    match command {
        Evidence::Produce { nonce, output, workload } => {
            let nonce = keys::nonce(nonce)?;
            let installation = Installation::find(dir)?;
            let program = workload::program(Some(&installation), workload)?;
            let request =
                EvidenceRequest { purpose: Purpose::Attest, nonce: Some(nonce), spki: Vec::new() };
            let record =
                casemate_enclave::prove(workload::options(Some(&installation), program)?, request)?;
            match output {
                Some(path) => replace(path, &record),
                None => {
                    output::raw(&record);
                    output::line("");
                    Ok(())
                }
            }
        }
        Evidence::Inspect { file } => inspect(format, file),
        Evidence::Verify { file, trust, nonce, measurement, at } => {
            let trust = installation::read_trust(trust)?;
            let nonce = keys::nonce(nonce)?;
            let wanted = measurement.as_deref().map(str::parse::<Sha384>).transpose()?;
            let now = match at {
                None => bundles::now(),
                Some(text) => text
                    .parse::<jiff::Timestamp>()
                    .map_err(|e| failure::usage(format!("--at {text:?}: {e}")))?
                    .as_second(),
            };
            let record = Record::parse(&read(file)?)?;
            let expect = Expect { purpose: Purpose::Attest, nonce: Some(&nonce), spki: &[] };
            let appraisal = appraise(&record, &expect, &trust.signed.tees, now);
            match format {
                Format::Json => output::json(&appraisal),
                Format::Text => show(&appraisal),
            }
            let claims = match appraisal.result() {
                Ok(claims) => claims,
                Err(e) if format == Format::Json => return Err(Failure::from(e).silent()),
                Err(e) => return Err(e.into()),
            };
            match wanted {
                Some(wanted) if wanted != claims.measurement => Err(Failure::new(
                    "CM-CLI-0070",
                    Kind::Refused,
                    format!("workload measurement {}, expected {wanted}", claims.measurement),
                )
                .fix("see what changed: casemate measure --diff A B")),
                _ => Ok(()),
            }
        }
    }
}

fn inspect(format: Format, file: &std::path::Path) -> Result<(), Failure> {
    let fields = casemate_evidence::inspect(&read(file)?)?;
    match format {
        Format::Json => {
            let map: serde_json::Map<String, serde_json::Value> =
                fields.into_iter().map(|(k, v)| (k, v.into())).collect();
            output::json(&map);
        }
        Format::Text => {
            for (name, value) in &fields {
                output::field(name, value);
            }
            output::line("  (what the evidence says; nothing here was verified)");
        }
    }
    Ok(())
}

fn show(appraisal: &casemate_evidence::Appraisal) {
    for check in &appraisal.checks {
        let text = if check.passed {
            format!("{}: {}", check.name, check.found)
        } else {
            format!(
                "{} {}: expected {}, found {}",
                check.code, check.name, check.expected, check.found
            )
        };
        output::check(check.passed, &text);
    }
    if let Some(claims) = &appraisal.claims {
        output::field("tee", claims.tee.as_str());
        if claims.simulated {
            output::line("  SIMULATED: hides nothing from root on the machine that made it");
        }
        output::field("measurement", &claims.measurement.to_string());
    }
}
