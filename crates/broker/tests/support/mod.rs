//! An installation around a broker: a simulated platform, people, a real ledger in a directory, a
//! clock that is set. Everything is genuine but the network and the time.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../verify/tests/support/mod.rs"]
pub mod world;

#[path = "../../../service/tests/support/inside.rs"]
mod inside;

use std::path::PathBuf;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_broker::{
    ActAnswer, ActRequest, Broker, BrokerError, RELEASE_DOMAIN, ReleaseRequest, ReleaseResponse,
    Released, SECRET_INFO, seal_value,
};
use casemate_envelope::EnvelopeKey;
use casemate_evidence::Record;
use casemate_service::answer::Answer;
use casemate_service::testing::{TestClock, TestLog};
use casemate_spec::Sha384;
use casemate_spec::binding::Purpose;
use casemate_spec::trust::TrustFile;
use casemate_spec::workload::Workload;
use casemate_statement::act::{Act, Action, Grantee, NAMESPACE};
use casemate_statement::json::Base64;
use tempfile::TempDir;

pub use inside::{Inside, workload};
use world::platform::Platform;
use world::{NOW, PersonKey, World, at};

pub const SECRET: &[u8] = b"correct horse battery staple";

pub struct House {
    pub temp: TempDir,
    pub world: World,
    pub trust: TrustFile,
    pub log: Arc<TestLog>,
    pub clock: Arc<TestClock>,
}

impl House {
    pub fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut world = World::new();
        let inside = Inside { platform: &world.platform, workload: workload("broker") };
        let genesis = casemate_broker::genesis(&temp.path().join("broker"), &inside).unwrap();
        let mut trust = world.trust.clone();
        trust.signed.broker.measurement = genesis.verify(&trust.signed.tees, NOW).unwrap();
        trust.signed.broker.key = genesis.key("signing").unwrap().into();
        trust.signed.broker.envelope_key = genesis.key("envelope").unwrap().into();
        world.trust = trust.clone();
        let log = TestLog::open(&temp.path().join("log"), &world.log.origin(), &[1; 32]).unwrap();
        log.append(b"somebody else's leaf").unwrap();
        Self { temp, world, trust, log: Arc::new(log), clock: Arc::new(TestClock::new(NOW)) }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.temp.path().join("broker")
    }

    pub fn inside(&self) -> Inside<'_> {
        Inside { platform: &self.world.platform, workload: workload("broker") }
    }

    pub fn try_start(&self) -> Result<Broker, BrokerError> {
        self.try_start_with(&self.trust)
    }

    pub fn try_start_with(&self, trust: &TrustFile) -> Result<Broker, BrokerError> {
        let (log, clock) = (self.log.clone(), self.clock.clone());
        Broker::open(&self.data_dir(), trust.clone(), &self.inside(), log, clock)
    }

    pub fn start(&self) -> Broker {
        self.try_start().unwrap()
    }

    /// A broker that keeps one secret `db`, granted to the workload `app`.
    pub fn stocked(&self) -> Broker {
        let broker = self.start();
        self.put(&broker, "db", SECRET).unwrap();
        self.grant(&broker, "db", Grantee::Measurement(app())).unwrap();
        broker
    }

    /// An act made now, under the trust file in force.
    pub fn act(&self, id: u8, action: Action) -> Act {
        Act {
            format: Act::FORMAT.into(),
            trust: self.trust.signed.digest().unwrap(),
            id: hex::encode([id; 16]),
            created: at(NOW),
            expires: at(NOW + 3600),
            action,
        }
    }

    pub fn put_action(&self, name: &str, value: &[u8]) -> Action {
        let value = seal_value(&self.trust.signed, name, value).unwrap();
        Action::Put { name: name.into(), value }
    }

    pub fn put(&self, broker: &Broker, name: &str, value: &[u8]) -> Result<ActAnswer, BrokerError> {
        self.apply(broker, &self.act_random(self.put_action(name, value)))
    }

    pub fn grant(
        &self,
        broker: &Broker,
        name: &str,
        to: Grantee,
    ) -> Result<ActAnswer, BrokerError> {
        self.apply(broker, &self.act_random(Action::Grant { name: name.into(), to }))
    }

    pub fn act_random(&self, action: Action) -> Act {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).unwrap();
        Act { id: hex::encode(id), ..self.act(0, action) }
    }

    /// Applies an act signed by alice and bob.
    pub fn apply(&self, broker: &Broker, act: &Act) -> Result<ActAnswer, BrokerError> {
        broker.act(&self.request(act, &[&self.world.alice, &self.world.bob]))
    }

    pub fn request(&self, act: &Act, people: &[&PersonKey]) -> ActRequest {
        let bytes = act.to_bytes().unwrap();
        let signatures = people.iter().map(|p| p.sign(NAMESPACE, &bytes).to_armored()).collect();
        ActRequest { act: Base64(bytes), signatures, bundle: None }
    }

    /// A workload's way to its secret, as an agent goes it.
    pub fn fetch(
        &self,
        broker: &Broker,
        workload: &Workload,
        name: &str,
    ) -> Result<Vec<u8>, BrokerError> {
        let ask = Ask::new(broker, name);
        let record = ask.record(&self.world.platform, workload, false);
        let response = broker.release(&ask.request(&record))?;
        Ok(ask.open(&response, &self.trust, name))
    }
}

/// Measurement of the workload `app`.
pub fn app() -> Sha384 {
    workload("app").measurement().unwrap()
}

/// One request of an agent.
pub struct Ask {
    pub key: EnvelopeKey,
    pub nonce: [u8; 32],
    pub name: String,
}

impl Ask {
    pub fn new(broker: &Broker, name: &str) -> Self {
        let nonce = BASE64_STANDARD.decode(broker.challenge().unwrap().nonce).unwrap();
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).unwrap();
        let key = EnvelopeKey::from_seed(&seed);
        Self { key, nonce: nonce.try_into().unwrap(), name: name.into() }
    }

    pub fn record(&self, platform: &Platform, workload: &Workload, debug: bool) -> Record {
        let (nonce, spki) = (Some(&self.nonce), self.key.spki());
        platform.record(Purpose::SecretRelease, nonce, spki, workload, debug)
    }

    pub fn request(&self, record: &Record) -> ReleaseRequest {
        ReleaseRequest {
            evidence: String::from_utf8(record.to_json()).unwrap(),
            envelope_key: BASE64_STANDARD.encode(self.key.spki()),
            nonce: BASE64_STANDARD.encode(self.nonce),
            names: vec![self.name.clone()],
            workload: None,
        }
    }

    pub fn open(&self, response: &ReleaseResponse, trust: &TrustFile, name: &str) -> Vec<u8> {
        assert_eq!(response.broker_key, trust.signed.broker.key);
        let answer =
            Answer { response: response.response.clone(), signature: response.signature.clone() };
        let released: Released = answer.open(RELEASE_DOMAIN, &response.broker_key, "test").unwrap();
        assert_eq!(released.nonce, BASE64_STANDARD.encode(self.nonce));
        let log = trust.signed.ledger.vkey.parse().unwrap();
        for entry in &released.receipts {
            entry.verify(&log).unwrap();
        }
        let secret = released.secrets.iter().find(|s| s.name == name).unwrap();
        let context = [self.nonce.as_slice(), name.as_bytes()].concat();
        self.key.open(&secret.envelope, SECRET_INFO, &context).unwrap().to_vec()
    }
}
