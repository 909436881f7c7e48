//! AMD SEV-SNP: attestation reports, certificate tables and the chains that sign them.
//!
//! Formats after AMD's *SEV Secure Nested Paging Firmware ABI* (56860), *VCEK certificate and KDS
//! interface* (57230) and *GHCB standardization* (56421, section 4.1.8.1, certificate table).

pub mod amd;
mod builder;
mod certificate;
mod chain;
mod report;
mod table;

pub use builder::ReportBuilder;
pub use certificate::{Certificate, CertificateError};
pub use chain::{ChainError, Endorsement, endorse};
pub use report::{
    FirmwareVersion, GuestPolicy, KeyInfo, PlatformInfo, Product, REPORT_SIZE, Report, ReportError,
    ReportFields, SIGNED_SIZE, SigningKey, TcbVersion,
};
pub use table::{CertKind, CertTable, TableError};
