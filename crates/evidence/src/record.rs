//! The record that carries evidence: a RATS conceptual-message-wrapper (CMW) collection in JSON.
//!
//! Three messages, each its media type and its bytes in base64url: the vendor's evidence as the
//! device gave it, the certificates that came with it, and the four inputs of the workload
//! measurement. A `Record` that exists is well-formed; whether to believe it is
//! [`crate::appraise`]'s question.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use casemate_spec::canonical;
use casemate_spec::workload::Workload;
use serde::Deserialize;

use crate::error::EvidenceError;
use crate::snp::{CertTable, Report};

/// Type of the collection.
pub const TYPE: &str = "tag:casemate.dev,2026:evidence-v1";
/// Media type of an SEV-SNP attestation report.
pub const SNP_REPORT: &str = "application/vnd.casemate.snp-report";
/// Media type of a certificate table as the SEV-SNP guest device hands it out (GHCB).
pub const SNP_CERTIFICATES: &str = "application/vnd.casemate.snp-certs";
/// Media type of the workload's four inputs.
pub const WORKLOAD: &str = "application/vnd.casemate.workload+json";

/// Largest record that is read, in bytes.
pub const MAX_SIZE: usize = 256 << 10;

/// Well-formed evidence of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    evidence: Evidence,
    workload: Workload,
}

/// A vendor's evidence with its endorsements, well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// AMD SEV-SNP, real or simulated.
    Snp {
        /// The report.
        report: Report,
        /// The certificates that came with it.
        certificates: CertTable,
    },
}

impl Record {
    /// A record of an SEV-SNP report, as the device gave it with its certificate table.
    ///
    /// # Errors
    /// If the report or the table is malformed.
    pub fn snp(
        report: &[u8],
        cert_table: &[u8],
        workload: &Workload,
    ) -> Result<Self, EvidenceError> {
        let report = Report::parse(report)?;
        let certificates = CertTable::parse(cert_table)?;
        Ok(Self { evidence: Evidence::Snp { report, certificates }, workload: workload.clone() })
    }

    /// Reads a record, refusing unknown members and malformed evidence.
    ///
    /// # Errors
    /// [`EvidenceError`] with what is malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        if bytes.len() > MAX_SIZE {
            let found = bytes.len();
            return Err(bad(format!("{found} bytes, at most {MAX_SIZE} are read")));
        }
        let wire: Wire = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if wire.kind != TYPE {
            return Err(bad(format!("type {:?}, expected {TYPE:?}", wire.kind)));
        }
        let report = message("evidence", &wire.evidence, SNP_REPORT)?;
        let certificates = message("certificates", &wire.certificates, SNP_CERTIFICATES)?;
        let workload = message("workload", &wire.workload, WORKLOAD)?;
        let workload: Workload =
            serde_json::from_slice(&workload).map_err(|e| bad(format!("workload: {e}")))?;
        Self::snp(&report, &certificates, &workload)
    }

    /// The record as canonical JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let Evidence::Snp { report, certificates } = &self.evidence;
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        // Digests and a boolean always have a canonical form.
        let workload = canonical::to_vec(&self.workload).unwrap_or_default();
        // Members in RFC 8785 order; no value needs escaping.
        format!(
            concat!(
                r#"{{"__cmwc_t":"{}","certificates":["{}","{}"],"#,
                r#""evidence":["{}","{}"],"workload":["{}","{}"]}}"#
            ),
            TYPE,
            SNP_CERTIFICATES,
            encode(certificates.as_bytes()),
            SNP_REPORT,
            encode(report.as_bytes()),
            WORKLOAD,
            encode(&workload),
        )
        .into_bytes()
    }

    /// The workload it claims to be of. Not to be believed before an appraisal.
    pub const fn workload(&self) -> &Workload {
        &self.workload
    }

    /// The vendor's evidence. Not to be believed before an appraisal.
    pub const fn evidence(&self) -> &Evidence {
        &self.evidence
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(rename = "__cmwc_t")]
    kind: String,
    evidence: (String, String),
    certificates: (String, String),
    workload: (String, String),
}

fn message(
    name: &str,
    (media_type, value): &(String, String),
    expected: &str,
) -> Result<Vec<u8>, EvidenceError> {
    if media_type != expected {
        return Err(bad(format!("{name}: media type {media_type:?}, expected {expected:?}")));
    }
    BASE64_URL_SAFE_NO_PAD.decode(value).map_err(|e| bad(format!("{name}: base64url: {e}")))
}

fn bad(problem: String) -> EvidenceError {
    EvidenceError::Record(problem)
}
