//! A service's first breath: its keys are made inside the enclave, and their public halves come
//! out with evidence that this very workload made them.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_evidence::{Expect, Record, appraise};
use casemate_spec::Sha384;
use casemate_spec::binding::Purpose;
use casemate_spec::trust::AcceptedTee;
use serde::{Deserialize, Serialize};

use crate::attester::Attester;
use crate::error::ServiceError;

/// What comes out of a service's genesis. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// `ledger`, `broker` or `signer`.
    pub service: String,
    /// Its public keys, each with evidence of its own.
    pub keys: Vec<AttestedKey>,
}

/// A public key with evidence that a workload holds the private half.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestedKey {
    /// What the key is for: `signing`, `envelope` or `note`.
    pub role: String,
    /// DER SubjectPublicKeyInfo, base64.
    pub spki: String,
    /// Evidence record, purpose [`Purpose::ServiceKey`].
    pub evidence: serde_json::Value,
}

impl Genesis {
    /// The genesis of `service` with these keys (role and SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// If the agent gives no evidence.
    pub fn attest(
        service: &str,
        keys: &[(&str, &[u8])],
        attester: &dyn Attester,
    ) -> Result<Self, ServiceError> {
        let attest = |(role, spki): &(&str, &[u8])| {
            let record = attester.evidence(Purpose::ServiceKey, None, spki)?;
            let evidence = serde_json::from_slice(&record)
                .map_err(|e| ServiceError::Agent(format!("evidence record: {e}")))?;
            Ok(AttestedKey { role: (*role).into(), spki: BASE64_STANDARD.encode(spki), evidence })
        };
        let keys = keys.iter().map(attest).collect::<Result<_, ServiceError>>()?;
        Ok(Self { service: service.into(), keys })
    }

    /// The key for `role`: SubjectPublicKeyInfo, base64 DER, as the trust file holds it.
    ///
    /// # Errors
    /// If there is none.
    pub fn key(&self, role: &str) -> Result<&str, ServiceError> {
        self.keys.iter().find(|k| k.role == role).map(|k| k.spki.as_str()).ok_or_else(|| {
            ServiceError::Genesis(format!("{}: expected a {role} key, found none", self.service))
        })
    }

    /// Checks the evidence of every key and gives the measurement of the workload that holds them.
    ///
    /// # Errors
    /// If evidence is refused, or the keys are held by different workloads.
    pub fn verify(&self, tees: &[AcceptedTee], now: i64) -> Result<Sha384, ServiceError> {
        let mut measured = None;
        for key in &self.keys {
            let spki = BASE64_STANDARD.decode(&key.spki).map_err(|_| {
                ServiceError::Genesis(format!("{}: {} key is not base64", self.service, key.role))
            })?;
            let measurement = appraised(&key.evidence, &spki, tees, now)?;
            if measured.is_some_and(|m| m != measurement) {
                return Err(ServiceError::Genesis(format!(
                    "{}: expected one workload to hold all keys, found two",
                    self.service
                )));
            }
            measured = Some(measurement);
        }
        measured.ok_or_else(|| ServiceError::Genesis(format!("{}: no key", self.service)))
    }
}

fn appraised(
    evidence: &serde_json::Value,
    spki: &[u8],
    tees: &[AcceptedTee],
    now: i64,
) -> Result<Sha384, ServiceError> {
    let bytes = serde_json::to_vec(evidence)
        .map_err(|e| ServiceError::Genesis(format!("evidence record: {e}")))?;
    let record = Record::parse(&bytes).map_err(ServiceError::other)?;
    let expect = Expect { purpose: Purpose::ServiceKey, nonce: None, spki };
    let appraisal = appraise(&record, &expect, tees, now);
    appraisal.result().map(|claims| claims.measurement).map_err(ServiceError::other)
}
