//! The broker over HTTP, with the real ledger service behind it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::net::TcpListener;
use std::sync::Arc;

use casemate_broker::client::Client;
use casemate_broker::{Broker, Cause, Challenge};
use casemate_ledger::store::Log;
use casemate_service::log::Ledger;
use casemate_service::{Problem, ServiceError, SystemClock};
use casemate_spec::Coded as _;
use casemate_statement::act::{Act, Action, Grantee, NAMESPACE};
use casemate_tlog::note::Signer;

use support::{House, SECRET, app};

/// Starts ledger and broker on ports of their own; they end with the test.
fn serve(house: &House) -> Client {
    let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
    let url = |l: &TcpListener| format!("http://{}", l.local_addr().unwrap());
    let (ledger, broker) = (listen(), listen());
    let (ledger_url, broker_url) = (url(&ledger), url(&broker));
    let signer = Signer::from_seed(&house.world.log.origin(), &[1; 32]).unwrap();
    let log = Arc::new(Log::create(&house.temp.path().join("served"), signer).unwrap());
    std::thread::spawn(move || casemate_ledger::service::serve(ledger, log));
    let log = Arc::new(Ledger::new(&ledger_url, &house.trust.signed.ledger.vkey).unwrap());
    let (trust, clock) = (house.trust.clone(), Arc::new(SystemClock));
    let opened = Broker::open(&house.data_dir(), trust, &house.inside(), log, clock).unwrap();
    std::thread::spawn(move || casemate_broker::serve(broker, Arc::new(opened)));
    Client::new(&broker_url)
}

/// An act made now by the real clock.
fn now(act: Act) -> Act {
    let created = jiff::Timestamp::now();
    let expires = jiff::Timestamp::from_second(created.as_second() + 600).unwrap();
    Act { created, expires, ..act }
}

#[test]
fn acts_lists_and_refusals_cross_the_wire() {
    let house = House::new();
    let client = serve(&house);
    let trust = &house.trust.signed;
    let info = client.info(trust).unwrap();
    assert_eq!((info.epoch, info.version), (1, 1));
    let sign = |act: &Act| {
        let bytes = act.to_bytes().unwrap();
        let people = [&house.world.alice, &house.world.bob];
        let signatures = people.map(|p| p.sign(NAMESPACE, &bytes).to_armored()).to_vec();
        (bytes, signatures)
    };
    let (bytes, signatures) = sign(&now(house.act(1, house.put_action("db", SECRET))));
    let (_, change) = client.act(trust, &bytes, signatures.clone(), None).unwrap();
    assert_eq!(change.epoch, 2);
    assert!(matches!(change.cause, Cause::Act { people, .. } if people.len() == 2));
    client.act(trust, &bytes, signatures, None).unwrap();
    let to = Grantee::Measurement(app());
    let (bytes, signatures) = sign(&now(house.act(2, Action::Grant { name: "db".into(), to })));
    client.act(trust, &bytes, signatures[..1].to_vec(), None).map(drop).unwrap_err();
    client.act(trust, &bytes, signatures, None).unwrap();
    let list = client.list(trust).unwrap();
    assert_eq!((list.epoch, list.secrets.len()), (3, 1));
    assert_eq!(list.secrets[0].grants, [Grantee::Measurement(app())]);

    let (bytes, signatures) = sign(&house.act(3, Action::Delete { name: "db".into() }));
    let refusal = client.act(trust, &bytes, signatures, None).map(drop).unwrap_err();
    assert!(refusal.code().starts_with("CM-"), "{refusal}");
    assert!(matches!(refusal, ServiceError::Refused(_)));

    let answer = client.relay("/v1/challenge", b"{}").unwrap();
    let challenge: Challenge = serde_json::from_slice(&answer).unwrap();
    assert_eq!(challenge.nonce.len(), 44);
    let answer = client.relay("/v1/release", b"{}").unwrap();
    let problem: Problem = serde_json::from_slice(&answer).unwrap();
    assert_eq!(problem.code, "CM-BROK-0001");
    assert!(client.relay("/v1/act", b"{}").is_err());

    let mut stranger = trust.clone();
    stranger.broker.key = house.world.signer.public().spki_base64();
    assert_eq!(client.info(&stranger).unwrap_err().code(), "CM-SERV-0031");
    assert_eq!(Client::new("http://127.0.0.1:1").info(trust).unwrap_err().code(), "CM-SERV-0030");
}
