//! The spec as it takes effect: what of a `casemate.toml` enters the measurement.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Secret, Spec, Tls, VolumeKind};
use crate::canonical::{self, CanonicalError};
use crate::digest::Sha256;

impl Spec {
    /// The part of the spec that is measured.
    ///
    /// `command` is the resolved program path and its arguments; `broker` is the SHA-256 of the
    /// SubjectPublicKeyInfo of the broker's signing key, if secrets are declared.
    pub fn effective(&self, command: Vec<String>, broker: Option<Sha256>) -> EffectiveSpec {
        let Self { version, enclave, volumes, secrets, listen, connect, .. } = self;
        let mut pass_env = enclave.pass_env.clone();
        pass_env.sort();
        pass_env.dedup();
        EffectiveSpec {
            version: *version,
            command,
            env: enclave.env.clone(),
            pass_env,
            production: enclave.production,
            workdir: enclave.workdir.clone(),
            attestation: enclave.attestation,
            observer: false,
            volumes: volumes
                .iter()
                .map(|v| MeasuredVolume {
                    path: v.path.clone(),
                    kind: v.kind,
                    read_only: v.read_only,
                })
                .collect(),
            secrets: secrets.clone(),
            listen: listen
                .iter()
                .map(|l| MeasuredListen {
                    port: l.port,
                    tls: l.tls,
                    socket_activation: l.socket_activation,
                })
                .collect(),
            connect: connect
                .iter()
                .map(|c| MeasuredConnect { host: c.host.clone(), port: c.port, tls: c.tls })
                .collect(),
            broker,
        }
    }
}

/// The spec as it takes effect and is measured: nothing host-specific is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EffectiveSpec {
    /// Format version.
    pub version: u32,
    /// Program path inside the enclave and its arguments.
    pub command: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Names the caller may set, sorted.
    pub pass_env: Vec<String>,
    /// False: debuggable.
    pub production: bool,
    /// Directory the program starts in.
    pub workdir: String,
    /// Whether the program may ask the agent for evidence and sealing keys.
    pub attestation: bool,
    /// Whether the program is the build observer, which keeps the capabilities it needs to watch
    /// and confine build steps. Never set from a `casemate.toml`.
    pub observer: bool,
    /// Volumes.
    pub volumes: Vec<MeasuredVolume>,
    /// Secrets.
    pub secrets: Vec<Secret>,
    /// Served ports.
    pub listen: Vec<MeasuredListen>,
    /// Peers.
    pub connect: Vec<MeasuredConnect>,
    /// SHA-256 of the SubjectPublicKeyInfo of the only broker whose secrets are accepted.
    pub broker: Option<Sha256>,
}

impl EffectiveSpec {
    /// SHA-256 over the canonical JSON.
    ///
    /// # Errors
    /// Never in practice: the spec is plain text and small integers.
    pub fn digest(&self) -> Result<Sha256, CanonicalError> {
        canonical::sha256(self)
    }
}

/// A volume as measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredVolume {
    /// Where the program finds it.
    pub path: String,
    /// What stands behind it.
    pub kind: VolumeKind,
    /// Mounted read-only.
    pub read_only: bool,
}

/// A served port as measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredListen {
    /// Port inside.
    pub port: u16,
    /// Protection outside.
    pub tls: Tls,
    /// Whether the socket itself is handed over.
    pub socket_activation: bool,
}

/// A peer as measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredConnect {
    /// Name the program uses.
    pub host: String,
    /// Port the program uses.
    pub port: u16,
    /// Protection outside.
    pub tls: Tls,
}
