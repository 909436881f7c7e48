//! Why evidence is not accepted.

use casemate_spec::{Coded, Kind};

use crate::snp::{CertificateError, ReportError, TableError};

/// Evidence that is malformed, or that was appraised and refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The record that carries the evidence is not one.
    #[error("evidence record: {0}")]
    Record(String),
    /// The attestation report inside is malformed.
    #[error("attestation report: {0}")]
    Report(#[from] ReportError),
    /// The certificate table inside is malformed.
    #[error("certificate table: {0}")]
    Table(#[from] TableError),
    /// A certificate given as a trust anchor is malformed.
    #[error("certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// A check of the appraisal failed.
    #[error("evidence refused: {check}: expected {expected}, found {found}")]
    Refused {
        /// Name of the check.
        check: &'static str,
        /// Its stable code.
        code: &'static str,
        /// What would have passed.
        expected: String,
        /// What was there instead.
        found: String,
    },
}

impl Coded for EvidenceError {
    fn code(&self) -> &'static str {
        match self {
            Self::Record(_) => "CM-EVID-0001",
            Self::Report(e) => e.code(),
            Self::Table(_) => "CM-EVID-0006",
            Self::Certificate(_) => "CM-EVID-0007",
            Self::Refused { code, .. } => code,
        }
    }
    fn kind(&self) -> Kind {
        Kind::Refused
    }
    fn fix(&self) -> Option<String> {
        let text = match self.code() {
            "CM-EVID-0003" => {
                "this program knows report versions 2 to 5; a newer one needs a newer program"
            }
            "CM-EVID-0010" => {
                "check that the trust file is this installation's own and lists the TEE's root"
            }
            "CM-EVID-0011" => {
                "let the host provide the whole certificate table (VCEK or VLEK, ASK) to the guest"
            }
            "CM-EVID-0013" => {
                "have the host renew the certificates from AMD's key distribution service"
            }
            "CM-EVID-0020" => "start the enclave without debugging",
            "CM-EVID-0023" => {
                "update the firmware, or lower the floor in the trust file with the approvers' word"
            }
            "CM-EVID-0031" => "ask for fresh evidence with a nonce of yours",
            "CM-EVID-0032" => "ask for fresh evidence with this nonce, for this key",
            _ => return None,
        };
        Some(text.into())
    }
}
