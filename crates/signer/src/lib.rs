//! Release keys that live in an enclave and sign on the word of a quorum.
//!
//! The signer believes nobody's word that a release is good. It is given a bundle and verifies it
//! as anyone else would: source, build, builder's evidence, ledger proofs and the approvals of
//! enough different people. Only then its key, which was made in here and never leaves, signs the
//! release verdict and each artifact, and the ledger gets both.
//!
//! - [`genesis`], [`run`]: what the enclave's program calls
//! - [`Signer`]: checks and signs
//! - [`client`]: the other end

#![forbid(unsafe_code)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use casemate_service::keyring::Keyring;
use casemate_service::log::Ledger;
use casemate_service::sealed::DataDir;
use casemate_service::{Attester, Genesis, SystemClock, http, pin};

pub mod client;
mod error;
mod routes;
mod signer;

pub use error::SignerError;
pub use signer::{INFO_DOMAIN, Info, Signer};

/// What a signer needs to run.
#[derive(Debug)]
pub struct Config {
    /// Directory for its sealed files; on the untrusted host.
    pub data_dir: PathBuf,
    /// Where it answers.
    pub listener: TcpListener,
    /// Base URL of the ledger.
    pub ledger_url: String,
    /// The trust file; on the untrusted host.
    pub trust_file_path: PathBuf,
}

/// Makes the release key, if there is none, and gives its public half, role `signing`, with
/// evidence. May be repeated; the key stays the same.
///
/// # Errors
/// If the directory can not be written or the agent gives no evidence.
pub fn genesis(data_dir: &Path, attester: &dyn Attester) -> Result<Genesis, SignerError> {
    let dir = DataDir::open(data_dir, signer::LABEL, attester)?;
    let key = Keyring::open_or_make(&dir)?.signing()?;
    Ok(Genesis::attest("signer", &[("signing", key.public().spki())], attester)?)
}

/// Runs the signer until SIGTERM.
///
/// # Errors
/// If it may not start (see [`Signer::open`]) or can not serve.
pub fn run(config: Config, attester: &dyn Attester) -> Result<(), SignerError> {
    let Config { data_dir, listener, ledger_url, trust_file_path } = config;
    let trust = pin::load(&trust_file_path)?;
    let log = Arc::new(Ledger::new(&ledger_url, &trust.signed.ledger.vkey)?);
    let signer = Signer::open(&data_dir, trust, attester, log, Arc::new(SystemClock))?;
    serve(listener, Arc::new(signer))
}

/// Serves a signer until SIGTERM.
///
/// # Errors
/// If the socket can not be used.
pub fn serve(listener: TcpListener, signer: Arc<Signer>) -> Result<(), SignerError> {
    Ok(http::serve(listener, routes::router(signer), routes::BODY_LIMIT)?)
}
