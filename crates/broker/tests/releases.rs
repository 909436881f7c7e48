//! Who gets a secret, and who does not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_broker::{Broker, BrokerError, ReleaseRequest};
use casemate_service::testing::Fault;
use casemate_spec::workload::Workload;
use casemate_spec::{Coded as _, Sha256, Sha384};

use support::world::NOW;
use support::world::platform::Platform;
use support::{Ask, House, SECRET, workload};

fn code<T>(result: Result<T, BrokerError>) -> &'static str {
    result.err().expect("a refusal").code()
}

#[test]
fn a_granted_workload_gets_its_secret_and_the_ledger_has_the_receipt_first() {
    let house = House::new();
    let broker = house.stocked();
    let before = house.log.size();
    assert_eq!(house.fetch(&broker, &workload("app"), "db").unwrap(), SECRET);
    assert_eq!(house.log.size(), before + 1);
    let named = |text: &[u8]| {
        house.log.statements().iter().any(|s| s.windows(text.len()).any(|w| w == text))
    };
    assert!(named(b"https://casemate.dev/receipt/v1"));
    assert!(!named(SECRET));
    assert!(!named(BASE64_STANDARD.encode(SECRET).as_bytes()));
}

#[test]
fn nothing_leaves_without_a_receipt() {
    let house = House::new();
    let broker = house.stocked();
    for fault in [Fault::RequestLost, Fault::AnswerLost] {
        house.log.set_fault(fault);
        assert_eq!(code(house.fetch(&broker, &workload("app"), "db")), "CM-SERV-0030");
    }
    house.log.set_fault(Fault::None);
    assert_eq!(house.fetch(&broker, &workload("app"), "db").unwrap(), SECRET);
}

#[test]
fn a_workload_that_differs_in_anything_is_refused() {
    let house = House::new();
    let broker = house.stocked();
    let honest = workload("app");
    for other in [
        Workload { spec: Sha256::of(b"other argv"), ..honest.clone() },
        Workload { root: Sha256::of(b"other library"), ..honest.clone() },
        Workload { agent: Sha384::of(b"other agent"), ..honest.clone() },
    ] {
        assert_eq!(code(house.fetch(&broker, &other, "db")), "CM-BROK-0006");
    }
    assert_eq!(house.fetch(&broker, &honest, "db").unwrap(), SECRET);
}

#[test]
fn a_secret_that_is_not_granted_or_not_there_is_refused() {
    let house = House::new();
    let broker = house.stocked();
    house.put(&broker, "other", b"x").unwrap();
    assert_eq!(code(house.fetch(&broker, &workload("app"), "other")), "CM-BROK-0006");
    assert_eq!(code(house.fetch(&broker, &workload("app"), "none")), "CM-BROK-0005");
    assert_eq!(house.fetch(&broker, &workload("app"), "db").unwrap(), SECRET);
}

/// Sends a request that is honest but for what `spoil` does to it.
fn spoiled(
    house: &House,
    broker: &Broker,
    spoil: impl FnOnce(&mut ReleaseRequest, &Ask),
) -> &'static str {
    let ask = Ask::new(broker, "db");
    let mut request = ask.request(&ask.record(&house.world.platform, &workload("app"), false));
    spoil(&mut request, &ask);
    code(broker.release(&request))
}

#[test]
fn a_replayed_nonce_is_refused() {
    let house = House::new();
    let broker = house.stocked();
    let ask = Ask::new(&broker, "db");
    let request = ask.request(&ask.record(&house.world.platform, &workload("app"), false));
    assert!(broker.release(&request).is_ok());
    assert_eq!(code(broker.release(&request)), "CM-BROK-0003");
}

#[test]
fn a_nonce_is_used_up_by_a_refusal_too() {
    let house = House::new();
    let broker = house.stocked();
    let ask = Ask::new(&broker, "none");
    let mut request = ask.request(&ask.record(&house.world.platform, &workload("app"), false));
    assert_eq!(code(broker.release(&request)), "CM-BROK-0005");
    request.names = vec!["db".into()];
    assert_eq!(code(broker.release(&request)), "CM-BROK-0003");
}

#[test]
fn an_expired_nonce_and_one_of_before_a_restart_are_refused() {
    let house = House::new();
    let broker = house.stocked();
    let late = spoiled(&house, &broker, |_, _| house.clock.set(NOW + 60));
    assert_eq!(late, "CM-BROK-0004");
    let ask = Ask::new(&broker, "db");
    let request = ask.request(&ask.record(&house.world.platform, &workload("app"), false));
    drop(broker);
    assert_eq!(code(house.start().release(&request)), "CM-BROK-0003");
}

#[test]
fn evidence_for_another_key_or_nonce_is_refused() {
    let house = House::new();
    let broker = house.stocked();
    let other_key = spoiled(&house, &broker, |request, _| {
        let other = Ask::new(&broker, "db");
        request.envelope_key = BASE64_STANDARD.encode(other.key.spki());
    });
    let other_nonce = spoiled(&house, &broker, |request, _| {
        request.nonce = BASE64_STANDARD.encode(Ask::new(&broker, "db").nonce);
    });
    assert!(other_key.starts_with("CM-EVID-"), "{other_key}");
    assert_eq!(other_key, other_nonce);
}

#[test]
fn evidence_of_another_root_a_debug_enclave_or_another_purpose_is_refused() {
    let house = House::new();
    let broker = house.stocked();
    let stranger = Platform::new("Simulated ARK two");
    let evidence = |record: casemate_evidence::Record| String::from_utf8(record.to_json()).unwrap();
    let root = spoiled(&house, &broker, |request, ask| {
        request.evidence = evidence(ask.record(&stranger, &workload("app"), false));
    });
    let debug = spoiled(&house, &broker, |request, ask| {
        request.evidence = evidence(ask.record(&house.world.platform, &workload("app"), true));
    });
    let purpose = spoiled(&house, &broker, |request, ask| {
        let purpose = casemate_spec::binding::Purpose::Attest;
        let (nonce, spki) = (Some(&ask.nonce), ask.key.spki());
        let platform = &house.world.platform;
        request.evidence = evidence(platform.record(purpose, nonce, spki, &workload("app"), false));
    });
    for refusal in [root, debug, purpose] {
        assert!(refusal.starts_with("CM-EVID-"), "{refusal}");
    }
    assert_ne!(root, debug);
}

#[test]
fn a_debuggable_workload_is_refused_even_if_it_is_granted() {
    let house = House::new();
    let broker = house.stocked();
    let debuggable = Workload { production: false, ..workload("app") };
    let measurement = debuggable.measurement().unwrap();
    let grantee = casemate_statement::act::Grantee::Measurement(measurement);
    house.grant(&broker, "db", grantee).unwrap();
    assert_eq!(code(house.fetch(&broker, &debuggable, "db")), "CM-EVID-0033");
    assert_eq!(house.fetch(&broker, &workload("app"), "db").unwrap(), SECRET);
}

#[test]
fn a_key_that_is_no_envelope_key_is_refused_before_anything_is_logged() {
    let house = House::new();
    let broker = house.stocked();
    let ask = Ask::new(&broker, "db");
    let platform = &house.world.platform;
    let purpose = casemate_spec::binding::Purpose::SecretRelease;
    let record = platform.record(purpose, Some(&ask.nonce), b"no key", &workload("app"), false);
    let mut request = ask.request(&record);
    request.envelope_key = BASE64_STANDARD.encode(b"no key");
    let before = house.log.size();
    assert_eq!(code(broker.release(&request)), "CM-SEAL-0001");
    assert_eq!(house.log.size(), before);
}

#[test]
fn names_are_bounded() {
    let house = House::new();
    let broker = house.stocked();
    for names in [vec![], vec!["a".to_owned(); 65], vec!["../x".to_owned()]] {
        assert_eq!(spoiled(&house, &broker, |r, _| r.names = names), "CM-BROK-0001");
    }
}

#[test]
fn many_workloads_are_served_at_once() {
    let house = House::new();
    let broker = house.stocked();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(house.fetch(&broker, &workload("app"), "db").unwrap(), SECRET);
                }
            });
        }
    });
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_request_parser_panic(text in ".{0,300}") {
        let _ = serde_json::from_str::<ReleaseRequest>(&text);
        let _ = serde_json::from_str::<casemate_broker::ActRequest>(&text);
    }
}
