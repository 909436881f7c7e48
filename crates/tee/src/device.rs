//! Which TEE devices this machine has.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statfs};

use crate::error::TeeError;

/// File-system type of configfs (`CONFIGFS_MAGIC`, linux/magic.h).
const CONFIGFS_MAGIC: u64 = 0x6265_6570;

/// Where Linux offers attestation reports.
pub const TSM_REPORT: &str = "/sys/kernel/config/tsm/report";

/// A TEE device of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TeeDevice {
    /// Which TEE.
    pub kind: &'static str,
    /// The device.
    pub path: PathBuf,
    /// What it offers.
    pub offers: &'static str,
    /// Whether this program can use it yet.
    pub supported: bool,
    /// Whether this user may read and write it.
    pub permitted: bool,
}

struct Known {
    kind: &'static str,
    path: &'static str,
    offers: &'static str,
    supported: bool,
}

const KNOWN: [Known; 5] = [
    Known {
        kind: "AMD SEV-SNP or Intel TDX",
        path: TSM_REPORT,
        offers: "attestation reports (configfs-tsm)",
        supported: true,
    },
    Known {
        kind: "AMD SEV-SNP",
        path: "/dev/sev-guest",
        offers: "attestation reports and derived sealing keys",
        supported: false,
    },
    Known {
        kind: "Intel TDX",
        path: "/dev/tdx_guest",
        offers: "attestation quotes and runtime measurement registers",
        supported: false,
    },
    Known {
        kind: "AWS Nitro",
        path: "/dev/nsm",
        offers: "attestation documents and PCRs",
        supported: false,
    },
    Known {
        kind: "Intel SGX (Gramine)",
        path: "/dev/attestation",
        offers: "attestation quotes and sealing keys",
        supported: false,
    },
];

/// Every real TEE device of this machine; none on an ordinary one.
pub fn detect() -> Vec<TeeDevice> {
    detect_under(Path::new("/"))
}

/// Refuses if this machine has a real TEE.
pub(crate) fn refuse_any(root: &Path) -> Result<(), TeeError> {
    match detect_under(root).into_iter().next() {
        Some(device) => Err(TeeError::RealTee { path: device.path, kind: device.kind }),
        None => Ok(()),
    }
}

fn detect_under(root: &Path) -> Vec<TeeDevice> {
    let mut found = Vec::new();
    for Known { kind, path, offers, supported } in KNOWN {
        let full = root.join(path.trim_start_matches('/'));
        if !full.exists() || (path == TSM_REPORT && !is_configfs(&full)) {
            continue;
        }
        let permitted = access(&full, Access::READ_OK | Access::WRITE_OK).is_ok();
        found.push(TeeDevice { kind, path: full, offers, supported, permitted });
    }
    found
}

/// A simulated tree is never on configfs, and nothing but the kernel makes one that is.
fn is_configfs(path: &Path) -> bool {
    statfs(path).is_ok_and(|s| u64::try_from(s.f_type) == Ok(CONFIGFS_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_real_device_keeps_the_simulator_from_starting() {
        for device in ["sev-guest", "tdx_guest", "nsm", "attestation"] {
            let root = tempfile::tempdir().expect("directory");
            std::fs::create_dir(root.path().join("dev")).expect("directory");
            assert!(refuse_any(root.path()).is_ok(), "an ordinary machine");
            std::fs::write(root.path().join("dev").join(device), b"").expect("file");
            let refused = refuse_any(root.path());
            assert!(matches!(refused, Err(TeeError::RealTee { .. })), "beside {device}");
        }
    }

    #[test]
    fn a_report_tree_that_is_not_the_kernels_is_no_real_tee() {
        let root = tempfile::tempdir().expect("directory");
        std::fs::create_dir_all(root.path().join(&TSM_REPORT[1..])).expect("directory");
        assert!(refuse_any(root.path()).is_ok());
        assert!(detect_under(root.path()).is_empty());
    }
}
