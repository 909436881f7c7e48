//! What a quorum can have the broker do, and what nobody can.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use casemate_broker::{ACT_LIFETIME_SECONDS, ActRequest, Broker, BrokerError, MAX_VALUE};
use casemate_spec::{Coded as _, Sha256};
use casemate_statement::act::{Act, Action, Grantee};
use casemate_statement::json::Base64;

use support::world::{NOW, at};
use support::{House, SECRET, app, workload};

fn code<T>(result: Result<T, BrokerError>) -> &'static str {
    result.err().expect("a refusal").code()
}

fn revoke(from: Option<Grantee>) -> Action {
    Action::Revoke { name: "db".into(), from }
}

fn refused(house: &House, broker: &Broker, request: &ActRequest) -> &'static str {
    let before = house.log.size();
    let refusal = code(broker.act(request));
    assert_eq!(house.log.size(), before, "a refused act left a leaf");
    refusal
}

#[test]
fn an_act_needs_as_many_different_people_as_the_threshold() {
    let house = House::new();
    let broker = house.stocked();
    let act = house.act(1, revoke(None));
    let w = &house.world;
    for (people, expected) in [
        (vec![], "CM-STMT-0052"),
        (vec![&w.alice], "CM-STMT-0052"),
        (vec![&w.alice, &w.alice], "CM-STMT-0051"),
        (vec![&w.alice, &w.alice2], "CM-STMT-0051"),
        (vec![&w.alice, &w.mallory], "CM-STMT-0050"),
        (vec![&w.alice, &w.bob, &w.mallory], "CM-STMT-0050"),
    ] {
        assert_eq!(refused(&house, &broker, &house.request(&act, &people)), expected);
    }
    assert!(broker.act(&house.request(&act, &[&w.alice2, &w.carol])).is_ok());
    assert_eq!(code(house.fetch(&broker, &workload("app"), "db")), "CM-BROK-0006");
}

#[test]
fn an_altered_act_is_refused() {
    let house = House::new();
    let broker = house.stocked();
    let (alice, bob) = (&house.world.alice, &house.world.bob);
    let honest = house.request(&house.act(1, revoke(None)), &[alice, bob]);
    let other = house.act(1, revoke(Some(Grantee::Measurement(app()))));
    let swapped = ActRequest { act: Base64(other.to_bytes().unwrap()), ..honest.clone() };
    assert_eq!(refused(&house, &broker, &swapped), "CM-STMT-0006");
    let mut loose = honest.act.0.clone();
    loose.push(b'\n');
    let loose = ActRequest { act: Base64(loose), ..honest.clone() };
    assert!(refused(&house, &broker, &loose).starts_with("CM-STMT-"));
    assert!(broker.act(&honest).is_ok());
}

#[test]
fn an_act_under_another_trust_file_is_refused() {
    let house = House::new();
    let broker = house.stocked();
    let act = Act { trust: Sha256::of(b"another"), ..house.act(1, revoke(None)) };
    assert_eq!(code(house.apply(&broker, &act)), "CM-BROK-0009");
}

#[test]
fn an_act_from_the_future_or_the_past_is_refused() {
    let house = House::new();
    let broker = house.stocked();
    let made = |seconds: i64| Act {
        created: at(NOW + seconds),
        expires: at(NOW + seconds + 7200),
        ..house.act_random(revoke(None))
    };
    assert_eq!(code(house.apply(&broker, &made(61))), "CM-BROK-0010");
    assert_eq!(code(house.apply(&broker, &made(-ACT_LIFETIME_SECONDS - 1))), "CM-BROK-0011");
    let expired = Act { expires: at(NOW), created: at(NOW - 10), ..made(0) };
    assert_eq!(code(house.apply(&broker, &expired)), "CM-STMT-0040");
    assert!(house.apply(&broker, &made(60)).is_ok());
    assert!(house.apply(&broker, &made(-ACT_LIFETIME_SECONDS + 60)).is_ok());
}

#[test]
fn setting_the_clock_back_does_not_revive_an_old_act() {
    let house = House::new();
    let broker = house.stocked();
    let grant = house.act(1, Action::Grant { name: "db".into(), to: Grantee::Measurement(app()) });
    house.apply(&broker, &grant).unwrap();
    // Two hours later the grant is revoked, and its act is no longer remembered.
    house.clock.set(NOW + 7200);
    let later =
        Act { created: at(NOW + 7200), expires: at(NOW + 7300), ..house.act(2, revoke(None)) };
    house.apply(&broker, &later).unwrap();
    house.clock.set(NOW);
    assert_eq!(code(house.apply(&broker, &grant)), "CM-BROK-0011");
    assert_eq!(code(house.fetch(&broker, &workload("app"), "db")), "CM-BROK-0006");
}

#[test]
fn an_act_sent_twice_is_applied_once_and_has_one_receipt() {
    let house = House::new();
    let broker = house.stocked();
    let act = house.act(1, revoke(None));
    let first = house.apply(&broker, &act).unwrap();
    let size = house.log.size();
    house.grant(&broker, "db", Grantee::Measurement(app())).unwrap();
    let again = house.apply(&broker, &act).unwrap();
    assert_eq!(first.statement, again.statement);
    assert_eq!(first.receipt.log_index, again.receipt.log_index);
    assert_eq!(house.log.size(), size + 1, "only the grant was logged");
    assert_eq!(house.fetch(&broker, &workload("app"), "db").unwrap(), SECRET);
    drop(broker);
    let broker = house.start();
    assert_eq!(house.apply(&broker, &act).unwrap().receipt.log_index, first.receipt.log_index);
}

#[test]
fn another_act_with_a_used_id_is_refused() {
    let house = House::new();
    let broker = house.stocked();
    house.apply(&broker, &house.act(1, revoke(None))).unwrap();
    let other = house.act(1, Action::Delete { name: "db".into() });
    assert_eq!(code(house.apply(&broker, &other)), "CM-BROK-0012");
}

#[test]
fn a_value_is_bound_to_its_name_and_trust_file_and_bounded() {
    let house = House::new();
    let broker = house.stocked();
    let Action::Put { value, .. } = house.put_action("db", b"new") else { panic!("a put") };
    let moved = Action::Put { name: "elsewhere".into(), value };
    assert_eq!(code(house.apply(&broker, &house.act(1, moved))), "CM-BROK-0013");
    let mut other = house.trust.signed.clone();
    other.thresholds.admin = 1;
    let value = casemate_broker::seal_value(&other, "db", b"new").unwrap();
    let foreign = Action::Put { name: "db".into(), value };
    assert_eq!(code(house.apply(&broker, &house.act(2, foreign))), "CM-BROK-0013");
    let large = casemate_broker::seal_value(&house.trust.signed, "db", &vec![0; MAX_VALUE + 1]);
    assert_eq!(code(large), "CM-BROK-0013");
    house.put(&broker, "db", &vec![7; MAX_VALUE]).unwrap();
    assert_eq!(house.fetch(&broker, &workload("app"), "db").unwrap(), vec![7; MAX_VALUE]);
}

#[test]
fn putting_a_secret_again_keeps_its_grants() {
    let house = House::new();
    let broker = house.stocked();
    house.put(&broker, "db", b"rotated").unwrap();
    assert_eq!(house.fetch(&broker, &workload("app"), "db").unwrap(), b"rotated");
}

#[test]
fn revoking_takes_one_grant_and_deleting_takes_all() {
    let house = House::new();
    let broker = house.stocked();
    let second = workload("second").measurement().unwrap();
    house.grant(&broker, "db", Grantee::Measurement(second)).unwrap();
    let one = revoke(Some(Grantee::Measurement(app())));
    house.apply(&broker, &house.act(1, one.clone())).unwrap();
    assert_eq!(code(house.fetch(&broker, &workload("app"), "db")), "CM-BROK-0006");
    assert_eq!(house.fetch(&broker, &workload("second"), "db").unwrap(), SECRET);
    assert_eq!(code(house.apply(&broker, &house.act(2, one))), "CM-BROK-0008");
    house.apply(&broker, &house.act(3, Action::Delete { name: "db".into() })).unwrap();
    assert_eq!(code(house.fetch(&broker, &workload("second"), "db")), "CM-BROK-0005");
    assert_eq!(code(house.apply(&broker, &house.act(4, revoke(None)))), "CM-BROK-0005");
}

#[test]
fn the_ledger_names_the_people_and_not_the_value() {
    let house = House::new();
    let broker = house.start();
    let answer = house.put(&broker, "db", SECRET).unwrap();
    let statement = String::from_utf8(answer.statement.payload.0.clone()).unwrap();
    for part in ["\"alice\"", "\"bob\"", "\"put\"", "\"db\"", "\"epoch\":2"] {
        assert!(statement.contains(part), "{part} is not in {statement}");
    }
    assert!(!statement.contains("ciphertext"));
}
