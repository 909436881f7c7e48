//! What a service asks of the enclave it runs in.

use casemate_enclave_protocol::AgentClient;
use casemate_spec::binding::Purpose;
use casemate_spec::workload::Workload;
use zeroize::Zeroizing;

use crate::error::ServiceError;

/// The agent as a service sees it: evidence of this workload, and keys only this workload gets.
pub trait Attester: Send + Sync {
    /// An evidence record (JSON) that binds `spki` and the nonce, if there is one, to this
    /// workload.
    ///
    /// # Errors
    /// If the agent refuses or the TEE fails.
    fn evidence(
        &self,
        purpose: Purpose,
        nonce: Option<&[u8; 32]>,
        spki: &[u8],
    ) -> Result<Vec<u8>, ServiceError>;

    /// A key that this workload on this platform gets again after every start, and no other does.
    ///
    /// # Errors
    /// If the agent refuses or the TEE fails.
    fn sealing_key(&self, label: &str) -> Result<Zeroizing<[u8; 32]>, ServiceError>;

    /// The four inputs of this workload's measurement.
    ///
    /// # Errors
    /// If the agent does not answer.
    fn workload(&self) -> Result<Workload, ServiceError>;
}

impl Attester for AgentClient {
    fn evidence(
        &self,
        purpose: Purpose,
        nonce: Option<&[u8; 32]>,
        spki: &[u8],
    ) -> Result<Vec<u8>, ServiceError> {
        Self::evidence(self, purpose, nonce.copied(), spki).map_err(ServiceError::other)
    }

    fn sealing_key(&self, label: &str) -> Result<Zeroizing<[u8; 32]>, ServiceError> {
        Self::sealing_key(self, label).map_err(ServiceError::other)
    }

    fn workload(&self) -> Result<Workload, ServiceError> {
        Self::workload(self).map_err(ServiceError::other)
    }
}
