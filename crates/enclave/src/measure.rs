//! The measurement of a program without running it.

use std::fs::File;

use casemate_enclave_protocol::Content;
use casemate_spec::Sha256;
use casemate_spec::canonical;
use casemate_spec::workload::{RootManifest, Workload, WorkloadDetail};

use crate::error::EnclaveError;
use crate::options::Program;
use crate::plan::{Planned, plan};

/// What the agent will measure for `program` on a machine that holds the same files.
///
/// # Errors
/// [`EnclaveError`] as for [`plan`], and for a file that can not be read.
pub fn measure(program: &Program) -> Result<WorkloadDetail, EnclaveError> {
    let Planned { plan, effective } = plan(program)?;
    let mut entries = Vec::with_capacity(plan.nodes().len());
    for node in plan.nodes() {
        let file = match &node.content {
            Content::File(source) => {
                let read = |e| EnclaveError::Read { path: source.into(), source: e };
                let (digest, size) =
                    Sha256::of_reader(File::open(source).map_err(read)?).map_err(read)?;
                Some((size, digest))
            }
            Content::Literal(bytes) => Some((bytes.len() as u64, Sha256::of(bytes))),
            _ => None,
        };
        entries.push(node.entry(file));
    }
    let root = RootManifest::new(entries);
    let workload = Workload {
        spec: effective.digest()?,
        root: root.digest()?,
        agent: casemate_agent_image::digest(),
        production: effective.production,
    };
    let spec = canonical::to_vec(&effective)?;
    Ok(WorkloadDetail {
        measurement: workload.measurement()?,
        workload,
        // Canonical bytes of a spec are JSON by construction.
        spec: serde_json::from_slice(&spec)
            .map_err(casemate_spec::canonical::CanonicalError::from)?,
        root,
    })
}
