//! From a command line to a program that can be measured or started: `run`, `measure` and
//! `evidence produce` say the same thing the same way.

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_broker::client::Client;
use casemate_enclave::{Program, Relay, StartOptions, Tee};
use casemate_spec::spec::Spec;
use casemate_spec::{Kind, Sha256};
use casemate_tee::sim::Platform;

use crate::args::{Service, Workload};
use crate::failure::{self, Failure};
use crate::installation::{Installation, read};

/// The program and the spec that the arguments name.
///
/// # Errors
/// If the spec is refused, or it wants secrets and there is no installation to name their broker.
pub fn program(installation: Option<&Installation>, args: &Workload) -> Result<Program, Failure> {
    let spec = match &args.spec {
        None => Spec::minimal(),
        Some(path) => {
            let text = String::from_utf8(read(path)?)
                .map_err(|_| failure::usage(format!("{}: not UTF-8 text", path.display())))?;
            Spec::parse(&text, &path.display().to_string())?
        }
    };
    from_spec(installation, spec, args)
}

/// The program that `spec` and the other arguments name.
///
/// # Errors
/// As [`program`].
pub fn from_spec(
    installation: Option<&Installation>,
    mut spec: Spec,
    args: &Workload,
) -> Result<Program, Failure> {
    if let Some(root) = &args.root {
        if root != "host" && root.strip_prefix("dir:").is_none_or(str::is_empty) {
            return Err(failure::usage(format!("--root {root:?}: expected host or dir:PATH")));
        }
        spec.enclave.root.clone_from(root);
    }
    let broker = if spec.secrets.is_empty() {
        None
    } else {
        let installation = installation.ok_or_else(|| {
            Failure::new("CM-CLI-0080", Kind::Environment, "the spec names secrets, and there is no installation whose broker could release them")
                .fix("name the installation with --dir, or make one with casemate init")
        })?;
        Some(broker_digest(installation)?)
    };
    let mut program = Program::new(spec, args.command.iter().cloned());
    program.broker = broker;
    Ok(program)
}

/// Options that start `program` under the installation's simulated platform, or a throw-away one.
///
/// # Errors
/// If this machine has a real TEE, or the platform can not be read or made.
pub fn options(
    installation: Option<&Installation>,
    program: Program,
) -> Result<StartOptions, Failure> {
    casemate_tee::sim::refuse_beside_real_tee()?;
    let platform = match installation {
        Some(installation) => Platform::load(&installation.sim_dir())?,
        None => {
            let dir = tempfile::tempdir().map_err(|e| failure::io("temporary directory", &e))?;
            Platform::create(&dir.path().join("sim"))?
        }
    };
    Ok(StartOptions::new(program, Tee::Simulated(Arc::new(platform))))
}

/// SHA-256 of the broker's SubjectPublicKeyInfo, as the trust file names it.
///
/// # Errors
/// If the trust file is refused.
pub fn broker_digest(installation: &Installation) -> Result<Sha256, Failure> {
    let trust = installation.trust()?;
    let spki = BASE64_STANDARD.decode(&trust.signed.broker.key).map_err(|_| {
        Failure::new("CM-CLI-0081", Kind::Refused, "trust file: broker.key is not base64")
    })?;
    Ok(Sha256::of(&spki))
}

/// Carries the agent's requests to the installation's broker. Untrusted, as all transport is.
pub struct BrokerRelay {
    broker: Client,
}

impl BrokerRelay {
    /// A relay to the running services.
    ///
    /// # Errors
    /// If they do not run.
    pub fn new(installation: &Installation) -> Result<Self, Failure> {
        let url = installation.addresses()?.url(Service::Broker);
        Ok(Self { broker: Client::new(&url) })
    }
}

impl Relay for BrokerRelay {
    fn call(&self, service: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, String> {
        if service != "broker" {
            return Err(format!("no service {service:?}"));
        }
        self.broker.relay(path, body).map_err(|e| e.to_string())
    }
}
