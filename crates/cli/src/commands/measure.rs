//! `casemate measure`: what a workload is, without running it, and what differs between two.

use std::path::Path;

use casemate_spec::Kind;
use casemate_spec::workload::{Difference, WorkloadDetail};

use crate::args::{Format, Measure};
use crate::failure::{self, Failure};
use crate::installation::{Installation, read, replace};
use crate::{output, workload};

/// Runs the command. With `--diff`, exit status 1 says that the two differ.
///
/// # Errors
/// If a file can not be read, or the two differ.
pub fn run(dir: Option<&Path>, format: Format, args: &Measure) -> Result<(), Failure> {
    if let [first, rest @ ..] = args.diff.as_slice() {
        let first = read_detail(first)?;
        let second = match rest {
            [second] => read_detail(second)?,
            _ => measured(dir, args)?,
        };
        return diff(format, &first, &second);
    }
    let detail = measured(dir, args)?;
    if let Some(path) = &args.output {
        replace(path, &json_bytes(&detail)?)?;
    }
    match format {
        Format::Json => output::json(&detail),
        Format::Text => output::line(&detail.measurement.to_string()),
    }
    Ok(())
}

fn measured(dir: Option<&Path>, args: &Measure) -> Result<WorkloadDetail, Failure> {
    let installation = Installation::find(dir).ok();
    let program = workload::program(installation.as_ref(), &args.workload)?;
    Ok(casemate_enclave::measure(&program)?)
}

fn read_detail(path: &Path) -> Result<WorkloadDetail, Failure> {
    let detail: WorkloadDetail = serde_json::from_slice(&read(path)?).map_err(|e| {
        failure::usage(format!("{}: not a measurement: {e}", path.display()))
            .fix("write one with: casemate measure -o FILE -- PROGRAM")
    })?;
    let (root, measurement) = (detail.root.digest()?, detail.workload.measurement()?);
    if root != detail.workload.root || measurement != detail.measurement {
        return Err(Failure::new(
            "CM-CLI-0082",
            Kind::Refused,
            format!("{}: its parts do not make up its measurement", path.display()),
        )
        .fix("measure again: casemate measure -o FILE -- PROGRAM"));
    }
    Ok(detail)
}

fn diff(format: Format, first: &WorkloadDetail, second: &WorkloadDetail) -> Result<(), Failure> {
    let differences = first.compare(second);
    if format == Format::Json {
        output::json(&serde_json::json!({
            "same": first.measurement == second.measurement, "differences": differences,
        }));
    } else {
        differences.iter().for_each(show);
    }
    if first.measurement == second.measurement {
        if format == Format::Text {
            output::line("the same measurement");
        }
        return Ok(());
    }
    let failure = Failure::new(
        "CM-CLI-0083",
        Kind::Refused,
        format!("the measurements differ in {} places", differences.len()),
    );
    Err(if format == Format::Json { failure.silent() } else { failure })
}

fn show(difference: &Difference) {
    output::line(&difference.what);
    output::field("first", &difference.first);
    output::field("second", &difference.second);
}

fn json_bytes(detail: &WorkloadDetail) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec_pretty(detail)
        .map_err(|e| Failure::new("CM-CLI-0084", Kind::Environment, format!("measurement: {e}")))
}
