//! What runs inside the services' enclaves, chosen by a hidden sub-command.
//!
//! Arguments are measured, so they never vary. What varies comes through the service's untrusted
//! directory: without a trust file there a service only makes its keys; with one it serves.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use casemate_builder::{Places, Progress, Request};
use casemate_enclave_protocol::AgentClient;
use casemate_ledger::client::Client;
use casemate_provenance::build::Helper;
use casemate_service::{Genesis, SystemClock, ledger};
use casemate_spec::Kind;
use casemate_statement::bundle::ReleaseBundle;
use serde::{Deserialize, Serialize};

use crate::args::Service;
use crate::failure::{self, Failure};
use crate::installation::{read, replace};
use crate::output;
use crate::serving::{BUILD_HELPER, DATA, HOST, LEDGER_INSIDE, MEMORY, PROGRAM, REPOSITORY};

/// Name of the trust file in a service's directory.
pub const TRUST: &str = "trust.json";

/// Where a service leaves its public keys with their evidence.
pub const GENESIS: &str = "genesis.json";

/// Where the builder finds what it is asked for.
pub const REQUEST: &str = "request.json";

/// Where the builder finds the resolver's configuration for fetch steps.
pub const RESOLVER: &str = "resolv.conf";

/// What the builder prints, one JSON value a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// How far it is.
    Progress(Progress),
    /// The bundle; the last line.
    Bundle(Box<ReleaseBundle>),
    /// Why there is none; the last line.
    Refused(Refused),
}

/// A refusal from inside the builder's enclave.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refused {
    /// Stable code.
    pub code: String,
    /// What failed and why.
    pub message: String,
    /// What to do next.
    pub fix: Option<String>,
    /// Exit status that goes with it.
    pub status: u8,
}

/// Runs a service.
///
/// # Errors
/// Whatever keeps it from serving.
pub fn run(service: Service) -> Result<(), Failure> {
    let agent = AgentClient::from_env()?;
    let data = Path::new(DATA);
    if service == Service::Builder {
        return build(&agent, data);
    }
    let trust_file_path = data.join(TRUST);
    if !trust_file_path.exists() {
        let genesis = genesis(service, data, &agent)?;
        let bytes = serde_json::to_vec(&genesis)
            .map_err(|e| Failure::new("CM-CLI-0100", Kind::Environment, format!("genesis: {e}")))?;
        return replace(&data.join(GENESIS), &bytes);
    }
    let listener = handed_over()?;
    let (data_dir, ledger_url) = (data.to_owned(), ledger_url());
    match service {
        Service::Ledger => ledger::run(data, listener, &agent)?,
        Service::Broker => {
            let config =
                casemate_broker::Config { data_dir, listener, ledger_url, trust_file_path };
            casemate_broker::run(config, &agent)?;
        }
        Service::Signer => {
            let config =
                casemate_signer::Config { data_dir, listener, ledger_url, trust_file_path };
            casemate_signer::run(config, &agent)?;
        }
        Service::Builder => {}
    }
    Ok(())
}

fn genesis(service: Service, data: &Path, agent: &AgentClient) -> Result<Genesis, Failure> {
    Ok(match service {
        Service::Broker => casemate_broker::genesis(data, agent)?,
        Service::Signer => casemate_signer::genesis(data, agent)?,
        Service::Ledger | Service::Builder => ledger::genesis(data, agent)?,
    })
}

fn ledger_url() -> String {
    format!("http://{}:{}", LEDGER_INSIDE.0, LEDGER_INSIDE.1)
}

/// The listening socket that the agent handed over.
fn handed_over() -> Result<TcpListener, Failure> {
    listenfd::ListenFd::from_env().take_tcp_listener(0).ok().flatten().ok_or_else(|| {
        Failure::new("CM-CLI-0101", Kind::Environment, "no listening socket was handed over")
            .fix("services are started by casemate serve")
    })
}

fn build(agent: &AgentClient, data: &Path) -> Result<(), Failure> {
    let line = |line: &Line| match serde_json::to_string(line) {
        Ok(text) => output::line(&text),
        Err(e) => output::error_line(&format!("casemate: builder: {e}")),
    };
    match built(agent, data, &|progress| line(&Line::Progress(progress))) {
        Ok(bundle) => line(&Line::Bundle(Box::new(bundle))),
        Err(failure) => line(&Line::Refused(Refused {
            status: failure.exit_status(),
            code: failure.code,
            message: failure.message,
            fix: failure.fix,
        })),
    }
    Ok(())
}

fn built(
    agent: &AgentClient,
    data: &Path,
    progress: &dyn Fn(Progress),
) -> Result<ReleaseBundle, Failure> {
    let request: Request = serde_json::from_slice(&read(&data.join(REQUEST))?)
        .map_err(|e| failure::usage(format!("build request: {e}")))?;
    let key = crate::bundles::ledger_key(&request.trust)?;
    let log = Client::new(&ledger_url(), key);
    let output = data.join("artifacts");
    fs::create_dir_all(&output).map_err(|e| failure::io(&output.display().to_string(), &e))?;
    let places = Places {
        repository: PathBuf::from(REPOSITORY),
        host_root: PathBuf::from(HOST),
        resolver: data.join(RESOLVER),
        output,
        memory: PathBuf::from(MEMORY),
        helper: Helper {
            program: PROGRAM.into(),
            arguments: vec!["service".into(), BUILD_HELPER.into()],
        },
    };
    Ok(casemate_builder::run(&request, &places, agent, &log, &SystemClock, progress)?)
}
