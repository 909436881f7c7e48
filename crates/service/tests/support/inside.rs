//! The agent of one workload on the world's simulated platform. Shared by the services' tests;
//! whoever includes it has the world of `casemate-verify`'s tests as `world` beside it.

use casemate_service::{Attester, ServiceError};
use casemate_spec::binding::Purpose;
use casemate_spec::workload::Workload;
use casemate_spec::{Sha256, Sha384};
use zeroize::Zeroizing;

use super::world::platform::Platform;

/// Evidence of a genuine platform, sealing keys by measurement.
pub struct Inside<'a> {
    pub platform: &'a Platform,
    pub workload: Workload,
}

impl Attester for Inside<'_> {
    fn evidence(
        &self,
        purpose: Purpose,
        nonce: Option<&[u8; 32]>,
        spki: &[u8],
    ) -> Result<Vec<u8>, ServiceError> {
        Ok(self.platform.record(purpose, nonce, spki, &self.workload, false).to_json())
    }

    fn sealing_key(&self, label: &str) -> Result<Zeroizing<[u8; 32]>, ServiceError> {
        let measurement = self.workload.measurement().unwrap();
        Ok(Zeroizing::new(Sha256::of(&[measurement.as_bytes(), label.as_bytes()].concat()).0))
    }

    fn workload(&self) -> Result<Workload, ServiceError> {
        Ok(self.workload.clone())
    }
}

/// The workload that `name` stands for.
pub fn workload(name: &str) -> Workload {
    Workload {
        spec: Sha256::of(name.as_bytes()),
        root: Sha256::of(b"root"),
        agent: Sha384::of(b"agent"),
        production: true,
    }
}
