//! What evidence says, field by field, whether or not it is to be believed.

use crate::error::EvidenceError;
use crate::record::{Evidence, Record};
use crate::snp::{CertTable, Certificate, REPORT_SIZE, Report};

/// Every field of a record, or of a raw SEV-SNP report, as name and text.
///
/// # Errors
/// [`EvidenceError`] if the bytes are neither.
pub fn inspect(bytes: &[u8]) -> Result<Vec<(String, String)>, EvidenceError> {
    if bytes.len() == REPORT_SIZE && !bytes.trim_ascii_start().starts_with(b"{") {
        let mut out = Fields::default();
        out.report(&Report::parse(bytes)?);
        return Ok(out.0);
    }
    let record = Record::parse(bytes)?;
    let mut out = Fields::default();
    let workload = record.workload();
    if let Ok(measurement) = workload.measurement() {
        out.add("workload.measurement", measurement);
    }
    out.add("workload.spec", workload.spec);
    out.add("workload.root", workload.root);
    out.add("workload.agent", workload.agent);
    out.add("workload.production", workload.production);
    let Evidence::Snp { report, certificates } = record.evidence();
    out.report(report);
    out.certificates(certificates);
    Ok(out.0)
}

#[derive(Default)]
struct Fields(Vec<(String, String)>);

impl Fields {
    fn add(&mut self, name: &str, value: impl ToString) {
        self.0.push((name.into(), value.to_string()));
    }

    fn report(&mut self, report: &Report) {
        let f = report.fields();
        self.add("report.version", f.version);
        self.add("report.product", f.product.map_or("not told (version 2)", |p| p.as_str()));
        if let Some([family, model, stepping]) = f.cpuid {
            let text = format!("family {family:#04x} model {model:#04x} stepping {stepping:#04x}");
            self.add("report.cpuid", text);
        }
        self.add("report.guest_svn", f.guest_svn);
        let (major, minor) = f.policy.abi();
        self.add("report.policy", format!("{:#x}", f.policy.0));
        self.add("report.policy.abi", format!("{major}.{minor}"));
        self.add("report.policy.smt", f.policy.smt());
        self.add("report.policy.migration_agent", f.policy.migration_agent());
        self.add("report.policy.debug", f.policy.debug());
        self.add("report.policy.single_socket", f.policy.single_socket());
        self.add("report.family_id", hex::encode(f.family_id));
        self.add("report.image_id", hex::encode(f.image_id));
        self.add("report.vmpl", f.vmpl);
        self.add("report.report_data", hex::encode(f.report_data));
        self.add("report.measurement", f.measurement);
        self.add("report.host_data", hex::encode(f.host_data));
        self.add("report.id_key_digest", f.id_key_digest);
        self.add("report.author_key_digest", f.author_key_digest);
        self.add("report.report_id", hex::encode(f.report_id));
        self.add("report.report_id_ma", hex::encode(f.report_id_ma));
        self.platform(report);
    }

    fn platform(&mut self, report: &Report) {
        let f = report.fields();
        let info = f.platform_info;
        self.add("report.signing_key", f.key_info.signing_key.as_str());
        self.add("report.mask_chip_key", f.key_info.mask_chip_key);
        self.add("report.author_key", f.key_info.author_key);
        self.add("report.chip_id", hex::encode(f.chip_id));
        self.add("report.current_tcb", f.current_tcb);
        self.add("report.reported_tcb", f.reported_tcb);
        self.add("report.committed_tcb", f.committed_tcb);
        self.add("report.launch_tcb", f.launch_tcb);
        self.add("report.current_firmware", f.current);
        self.add("report.committed_firmware", f.committed);
        self.add("report.platform", format!("{:#x}", info.0));
        self.add("report.platform.smt", info.smt());
        self.add("report.platform.tsme", info.tsme());
        self.add("report.platform.ecc", info.ecc());
        self.add("report.platform.rapl_disabled", info.rapl_disabled());
        self.add("report.platform.ciphertext_hiding", info.ciphertext_hiding());
        self.add("report.platform.alias_check", info.alias_check());
        for (name, vector) in [
            ("report.launch_mitigations", f.launch_mitigations),
            ("report.current_mitigations", f.current_mitigations),
        ] {
            if let Some(vector) = vector {
                self.add(name, format!("{vector:#x}"));
            }
        }
    }

    fn certificates(&mut self, table: &CertTable) {
        for (kind, bytes) in table.iter() {
            let name = format!("certificates.{}", kind.as_str().to_lowercase());
            match Certificate::parse(bytes) {
                Ok(certificate) => {
                    let (from, to) = certificate.validity();
                    self.add(&format!("{name}.subject"), certificate.subject());
                    self.add(&format!("{name}.issuer"), certificate.issuer());
                    self.add(&format!("{name}.validity"), format!("{from} to {to} (Unix seconds)"));
                }
                Err(e) => self.add(&name, format!("{} bytes, {e}", bytes.len())),
            }
        }
    }
}
