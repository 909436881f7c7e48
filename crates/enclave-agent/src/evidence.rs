//! Evidence and sealing keys of this workload. Whatever is proved has the real measurement in it.

use std::path::Path;

use casemate_enclave_protocol::EvidenceRequest;
use casemate_enclave_protocol::agent_api::MAX_LABEL;
use casemate_evidence::record::Record;
use casemate_spec::Sha384;
use casemate_spec::binding::{Purpose, report_data};
use casemate_spec::workload::Workload;
use casemate_tee::{sealing, tsm};
use zeroize::Zeroizing;

use crate::error::AgentError;

const TSM: &str = "/sys/kernel/config/tsm";
const SNP: &str = "sev_guest";
const MAX_SPKI: usize = 4096;

/// Proves for one workload.
pub(crate) struct Prover {
    client: tsm::Client,
    workload: Workload,
    measurement: Sha384,
}

impl Prover {
    pub(crate) fn new(workload: Workload) -> Result<Self, AgentError> {
        let measurement = workload.measurement()?;
        let client = tsm::Client::new(&Path::new(TSM).join("report"));
        Ok(Self { client, workload, measurement })
    }

    pub(crate) const fn measurement(&self) -> Sha384 {
        self.measurement
    }

    pub(crate) const fn workload(&self) -> &Workload {
        &self.workload
    }

    /// Evidence that somebody else asks for. Evidence for receiving secrets is never given away:
    /// its key must be the agent's own.
    pub(crate) fn for_others(&self, request: &EvidenceRequest) -> Result<String, AgentError> {
        let EvidenceRequest { purpose, nonce, spki } = request;
        let refuse = |why: &str| Err(AgentError::Evidence(why.to_owned()));
        if *purpose == Purpose::SecretRelease {
            return refuse("evidence for a secret release is the agent's own, never a program's");
        }
        if purpose.needs_nonce() && nonce.is_none() {
            return refuse("evidence for this purpose needs the verifier's nonce of 32 bytes");
        }
        if spki.len() > MAX_SPKI {
            return refuse("the key is larger than 4096 bytes");
        }
        let nonce = nonce.as_ref().map_or(&[][..], |n| n.as_slice());
        self.record(*purpose, nonce, spki)
    }

    /// Evidence that the agent holds the private half of `spki`, for receiving secrets.
    pub(crate) fn for_release(&self, nonce: &[u8; 32], spki: &[u8]) -> Result<String, AgentError> {
        self.record(Purpose::SecretRelease, nonce, spki)
    }

    /// The workload's sealing key for `label`.
    pub(crate) fn sealing_key(&self, label: &str) -> Result<Zeroizing<[u8; 32]>, AgentError> {
        if label.is_empty() || label.len() > MAX_LABEL {
            return Err(AgentError::Evidence(format!(
                "the label of a sealing key has 1 to {MAX_LABEL} bytes, found {}",
                label.len()
            )));
        }
        let hardware = sealing::hardware_key(Path::new(TSM))?;
        Ok(sealing::derive_workload_key(&hardware, &self.measurement, label)?)
    }

    fn record(&self, purpose: Purpose, nonce: &[u8], spki: &[u8]) -> Result<String, AgentError> {
        let data = report_data(purpose, nonce, spki, &self.measurement);
        let report = self.client.report(&data)?;
        if report.provider != SNP {
            return Err(AgentError::Evidence(format!(
                "the TEE's report provider is {:?}, this version carries {SNP:?}",
                report.provider
            )));
        }
        let record = Record::snp(&report.outblob, &report.auxblob, &self.workload)?;
        String::from_utf8(record.to_json())
            .map_err(|_| AgentError::Evidence("the evidence record is not UTF-8".into()))
    }
}
