//! Makes the bytes of a report, unsigned: what the simulated TEE signs.

use casemate_spec::Sha384;

use super::report::{REPORT_SIZE, SIGNED_SIZE, TcbVersion};

/// The fields of a report to be made; everything else is zero, or what an unmigrated guest without
/// an ID block has.
#[derive(Debug, Clone)]
pub struct ReportBuilder {
    /// Format version.
    pub version: u32,
    /// Guest policy bits.
    pub policy: u64,
    /// Privilege level that asks.
    pub vmpl: u32,
    /// Platform information bits.
    pub platform_info: u64,
    /// Key information bits; 0 is an unmasked VCEK.
    pub key_info: u32,
    /// The guest's 64 bytes.
    pub report_data: [u8; 64],
    /// Launch measurement.
    pub measurement: Sha384,
    /// Id of the guest.
    pub report_id: [u8; 32],
    /// All of current, reported, committed and launch TCB.
    pub tcb: TcbVersion,
    /// Combined family, model, stepping.
    pub cpuid: [u8; 3],
    /// Which chip.
    pub chip_id: [u8; 64],
    /// Build, minor and major version of the firmware.
    pub firmware: [u8; 3],
}

impl ReportBuilder {
    /// The report, with a zero signature.
    pub fn build(&self) -> [u8; REPORT_SIZE] {
        let mut raw = [0; REPORT_SIZE];
        let mut put = |offset: usize, bytes: &[u8]| {
            raw[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        let tcb = self.tcb.to_bytes();
        put(0, &self.version.to_le_bytes());
        put(8, &self.policy.to_le_bytes());
        put(0x30, &self.vmpl.to_le_bytes());
        put(0x34, &1u32.to_le_bytes());
        put(0x38, &tcb);
        put(0x40, &self.platform_info.to_le_bytes());
        put(0x48, &self.key_info.to_le_bytes());
        put(0x50, &self.report_data);
        put(0x90, self.measurement.as_bytes());
        put(0x140, &self.report_id);
        put(0x160, &[0xff; 32]);
        put(0x180, &tcb);
        if self.version > 2 {
            put(0x188, &self.cpuid);
        }
        put(0x1a0, &self.chip_id);
        put(0x1e0, &tcb);
        put(0x1e8, &self.firmware);
        put(0x1ec, &self.firmware);
        put(0x1f0, &tcb);
        raw
    }

    /// The part of a report that is signed.
    pub fn signed_part(report: &[u8; REPORT_SIZE]) -> &[u8] {
        &report[..SIGNED_SIZE]
    }

    /// Puts a signature (`r ‖ s`, each 48 bytes big-endian) into a report.
    pub fn put_signature(report: &mut [u8; REPORT_SIZE], signature: &[u8; 96]) {
        for (i, scalar) in signature.chunks_exact(48).enumerate() {
            let place = &mut report[SIGNED_SIZE + i * 72..][..48];
            place.copy_from_slice(scalar);
            place.reverse();
        }
    }
}
