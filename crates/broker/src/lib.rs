//! Secrets to attested workloads by policy, each release receipted in the ledger.
//!
//! A workload asks for a nonce, proves with it what it is and which key it holds, and gets its
//! secrets sealed to that key, if a grant says so. There is no password, no token and no
//! administrator: secrets and grants change only by acts that a quorum of approvers signed, and
//! each change, like each release, is a statement in the ledger before it happens.
//!
//! - [`genesis`], [`run`]: what the enclave's program calls
//! - [`Broker`]: challenge, release, act, list, info; how changes become durable (see `broker`)
//! - [`client`]: the other end
//! - [`seal_value`], [`frame_of`]: what whoever makes an act needs

#![forbid(unsafe_code)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use casemate_envelope::EnvelopeKey;
use casemate_service::keyring::Keyring;
use casemate_service::log::Ledger;
use casemate_service::sealed::DataDir;
use casemate_service::{Attester, Genesis, SystemClock, http, pin};

mod act;
mod broker;
mod change;
pub mod client;
mod error;
mod frame;
mod info;
mod nonce;
mod release;
mod routes;
mod state;
mod watch;

pub use act::{ActAnswer, ActRequest, seal_value};
pub use broker::Broker;
pub use change::{Cause, Change, Signed};
pub use error::BrokerError;
pub use frame::{Detail, frame_of};
pub use info::{INFO_DOMAIN, Info, LIST_DOMAIN, List};
pub use nonce::MAX_OUTSTANDING;
pub use release::{
    Challenge, RELEASE_DOMAIN, ReleaseRequest, ReleaseResponse, Released, ReleasedSecret,
    SECRET_INFO,
};
pub use state::{ACT_LIFETIME_SECONDS, CLOCK_SKEW_SECONDS, Listed, MAX_VALUE};

/// Code of a request body that is not understood.
pub(crate) const BAD_REQUEST: &str = "CM-BROK-0001";

/// What a broker needs to run.
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

/// Makes the broker's keys, if there are none, and gives their public halves with evidence: roles
/// `signing` (P-256) and `envelope` (X25519). May be repeated; the keys stay the same.
///
/// # Errors
/// If the directory can not be written or the agent gives no evidence.
pub fn genesis(data_dir: &Path, attester: &dyn Attester) -> Result<Genesis, BrokerError> {
    let dir = DataDir::open(data_dir, broker::LABEL, attester)?;
    let keys = Keyring::open_or_make(&dir)?;
    let (signing, envelope) = (keys.signing()?, EnvelopeKey::from_seed(keys.seed()));
    let roles = [("signing", signing.public().spki()), ("envelope", envelope.spki())];
    Ok(Genesis::attest("broker", &roles, attester)?)
}

/// Runs the broker until SIGTERM.
///
/// # Errors
/// If it may not start (see [`Broker::open`]) or can not serve.
pub fn run(config: Config, attester: &dyn Attester) -> Result<(), BrokerError> {
    let Config { data_dir, listener, ledger_url, trust_file_path } = config;
    let trust = pin::load(&trust_file_path)?;
    let log = Arc::new(Ledger::new(&ledger_url, &trust.signed.ledger.vkey)?);
    let broker = Broker::open(&data_dir, trust, attester, log, Arc::new(SystemClock))?;
    serve(listener, Arc::new(broker))
}

/// Serves a broker until SIGTERM.
///
/// # Errors
/// If the socket can not be used, or what was read of the ledger can not be written down.
pub fn serve(listener: TcpListener, broker: Arc<Broker>) -> Result<(), BrokerError> {
    http::serve(listener, routes::router(Arc::clone(&broker)), routes::BODY_LIMIT)?;
    broker.close()
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    BASE64_STANDARD.encode(bytes)
}

pub(crate) fn decode(what: &str, text: &str) -> Result<Vec<u8>, BrokerError> {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let bad = |_| BrokerError::Request(format!("{what}: expected base64"));
    BASE64_STANDARD.decode(text).map_err(bad)
}
