//! Stops at any moment, restored copies, second brokers, other ledgers, other trust files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use casemate_broker::{Broker, BrokerError};
use casemate_service::testing::{Fault, TestLog};
use casemate_spec::Coded as _;
use casemate_statement::act::{Act, Action, Grantee};

use support::world::next_version;
use support::{House, Inside, SECRET, app, workload};

fn code<T>(result: Result<T, BrokerError>) -> &'static str {
    result.err().expect("a refusal").code()
}

type Copy = BTreeMap<String, Vec<u8>>;

fn copy(dir: &Path) -> Copy {
    let name = |e: &fs::DirEntry| e.file_name().into_string().unwrap();
    let files = fs::read_dir(dir).unwrap().map(Result::unwrap);
    files.filter(|e| e.path().is_file()).map(|e| (name(&e), fs::read(e.path()).unwrap())).collect()
}

fn put_back(dir: &Path, files: &Copy) {
    fs::remove_dir_all(dir).unwrap();
    fs::create_dir_all(dir).unwrap();
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

fn revoke_all(house: &House) -> Act {
    house.act_random(Action::Revoke { name: "db".into(), from: None })
}

#[test]
fn secrets_and_grants_outlive_a_restart() {
    let house = House::new();
    drop(house.stocked());
    let size = house.log.size();
    let broker = house.start();
    assert_eq!(house.log.size(), size, "a restart is no change");
    assert_eq!(house.fetch(&broker, &workload("app"), "db").unwrap(), SECRET);
    for (name, bytes) in copy(&house.data_dir()) {
        assert!(!bytes.windows(SECRET.len()).any(|w| w == SECRET), "{name} holds the secret");
    }
}

#[test]
fn an_old_copy_of_the_state_is_refused_and_the_newest_is_not() {
    let house = House::new();
    let broker = house.stocked();
    drop(broker);
    let old = copy(&house.data_dir());
    let broker = house.start();
    house.apply(&broker, &revoke_all(&house)).unwrap();
    drop(broker);
    let new = copy(&house.data_dir());
    put_back(&house.data_dir(), &old);
    assert_eq!(code(house.try_start()), "CM-BROK-0020");
    // The state alone, beside what was read of the ledger since.
    let mut mixed = new.clone();
    mixed.insert("state.sealed".into(), old["state.sealed"].clone());
    put_back(&house.data_dir(), &mixed);
    assert_eq!(code(house.try_start()), "CM-BROK-0020");
    put_back(&house.data_dir(), &new);
    assert_eq!(code(house.fetch(&house.start(), &workload("app"), "db")), "CM-BROK-0006");
}

#[test]
fn a_state_that_was_removed_or_altered_is_refused() {
    let house = House::new();
    drop(house.stocked());
    let whole = copy(&house.data_dir());
    let mut without = whole.clone();
    without.remove("state.sealed");
    put_back(&house.data_dir(), &without);
    assert_eq!(code(house.try_start()), "CM-BROK-0020");
    without.remove("ledger.sealed");
    put_back(&house.data_dir(), &without);
    assert_eq!(code(house.try_start()), "CM-BROK-0020");
    for name in ["state.sealed", "ledger.sealed", "keys.sealed"] {
        let mut altered = whole.clone();
        *altered.get_mut(name).unwrap().last_mut().unwrap() ^= 1;
        put_back(&house.data_dir(), &altered);
        assert_eq!(code(house.try_start()), "CM-SERV-0003", "{name}");
    }
    let mut keyless = whole.clone();
    keyless.remove("keys.sealed");
    put_back(&house.data_dir(), &keyless);
    assert_eq!(code(house.try_start()), "CM-SERV-0004");
    // What was read of the ledger can be read again.
    let mut unread = whole;
    unread.remove("ledger.sealed");
    put_back(&house.data_dir(), &unread);
    assert!(house.try_start().is_ok());
}

#[test]
fn a_stop_before_or_after_the_ledger_knows_finishes_the_change_at_the_next_start() {
    for fault in [Fault::RequestLost, Fault::AnswerLost] {
        let house = House::new();
        let broker = house.stocked();
        let (size, act) = (house.log.size(), revoke_all(&house));
        house.log.set_fault(fault);
        assert_eq!(code(house.apply(&broker, &act)), "CM-SERV-0030");
        drop(broker);
        house.log.set_fault(Fault::None);
        let broker = house.start();
        assert_eq!(house.log.size(), size + 1, "{fault:?}: one leaf, not two");
        assert_eq!(code(house.fetch(&broker, &workload("app"), "db")), "CM-BROK-0006");
        house.apply(&broker, &act).unwrap();
        assert_eq!(house.log.size(), size + 1, "{fault:?}: sent again, still one leaf");
    }
}

#[test]
fn a_running_broker_finishes_what_the_ledger_missed_before_anything_else() {
    for fault in [Fault::RequestLost, Fault::AnswerLost] {
        let house = House::new();
        let broker = house.stocked();
        let (size, act) = (house.log.size(), revoke_all(&house));
        house.log.set_fault(fault);
        assert_eq!(code(house.apply(&broker, &act)), "CM-SERV-0030");
        assert_eq!(code(house.fetch(&broker, &workload("app"), "db")), "CM-SERV-0030");
        house.log.set_fault(Fault::None);
        assert_eq!(code(house.fetch(&broker, &workload("app"), "db")), "CM-BROK-0006");
        house.apply(&broker, &act).unwrap();
        assert_eq!(house.log.size(), size + 1, "{fault:?}");
        house.grant(&broker, "db", Grantee::Measurement(app())).unwrap();
        assert_eq!(house.fetch(&broker, &workload("app"), "db").unwrap(), SECRET);
    }
}

#[test]
fn a_stop_between_sealing_the_state_and_clearing_away_is_no_harm() {
    let house = House::new();
    let broker = house.stocked();
    house.log.set_fault(Fault::AnswerLost);
    assert!(house.apply(&broker, &revoke_all(&house)).is_err());
    house.log.set_fault(Fault::None);
    drop(broker);
    let pending = copy(&house.data_dir())["pending.sealed"].clone();
    drop(house.start());
    fs::write(house.data_dir().join("pending.sealed"), pending).unwrap();
    let broker = house.start();
    assert!(!house.data_dir().join("pending.sealed").exists());
    assert_eq!(code(house.fetch(&broker, &workload("app"), "db")), "CM-BROK-0006");
}

#[test]
fn a_pending_change_that_lost_against_another_is_refused() {
    let house = House::new();
    let broker = house.stocked();
    house.log.set_fault(Fault::RequestLost);
    assert!(
        house
            .grant(&broker, "db", Grantee::Measurement(workload("spy").measurement().unwrap()))
            .is_err()
    );
    house.log.set_fault(Fault::None);
    drop(broker);
    let with_pending = copy(&house.data_dir());
    let mut without = with_pending.clone();
    without.remove("pending.sealed");
    put_back(&house.data_dir(), &without);
    let broker = house.start();
    house.apply(&broker, &revoke_all(&house)).unwrap();
    drop(broker);
    put_back(&house.data_dir(), &with_pending);
    assert_eq!(code(house.try_start()), "CM-BROK-0021");
}

fn second(house: &House, dir: &Path) -> Broker {
    let inside = Inside { platform: &house.world.platform, workload: workload("broker") };
    let (log, clock) = (house.log.clone(), house.clock.clone());
    Broker::open(dir, house.trust.clone(), &inside, log, clock).unwrap()
}

#[test]
fn of_two_brokers_with_the_same_keys_the_one_that_missed_a_change_stops() {
    let house = House::new();
    drop(house.stocked());
    let files = copy(&house.data_dir());
    let elsewhere = house.temp.path().join("copy");
    fs::create_dir(&elsewhere).unwrap();
    put_back(&elsewhere, &files);
    let (first, copied) = (house.start(), second(&house, &elsewhere));
    assert_eq!(house.fetch(&copied, &workload("app"), "db").unwrap(), SECRET);
    house.apply(&first, &revoke_all(&house)).unwrap();
    // The copy does not know of the revocation, and must not release what was revoked.
    assert_eq!(code(house.fetch(&copied, &workload("app"), "db")), "CM-BROK-0020");
    assert_eq!(code(house.grant(&copied, "db", Grantee::Measurement(app()))), "CM-BROK-0021");
    assert_eq!(code(house.fetch(&copied, &workload("app"), "db")), "CM-BROK-0021");
    // The first is not disturbed by what the copy tried.
    house.grant(&first, "db", Grantee::Measurement(app())).unwrap();
    assert_eq!(house.fetch(&first, &workload("app"), "db").unwrap(), SECRET);
    drop(first);
    assert!(house.try_start().is_ok());
}

#[test]
fn a_second_process_on_the_same_files_is_refused() {
    let house = House::new();
    let broker = house.start();
    assert_eq!(code(house.try_start()), "CM-SERV-0002");
    drop(broker);
    assert!(house.try_start().is_ok());
}

/// The house with another log under the same key.
fn with_log(mut house: House, name: &str) -> House {
    let dir = house.temp.path().join(name);
    house.log = Arc::new(TestLog::open(&dir, &house.world.log.origin(), &[1; 32]).unwrap());
    house
}

#[test]
fn a_ledger_that_was_rolled_back_forked_or_replaced_is_refused() {
    let house = House::new();
    drop(house.stocked());
    let size = house.log.size();
    let house = with_log(house, "empty");
    assert_eq!(code(house.try_start()), "CM-SERV-0020");
    for i in 0..size + 2 {
        house.log.append(format!("leaf {i}").as_bytes()).unwrap();
    }
    assert_eq!(code(house.try_start()), "CM-SERV-0020");
    let house = with_log(house, "log-of-nobody");
    assert_eq!(code(house.try_start()), "CM-SERV-0020");
}

#[test]
fn a_broker_that_has_forgotten_the_ledger_still_refuses_one_without_its_state() {
    let house = House::new();
    drop(house.stocked());
    fs::remove_file(house.data_dir().join("ledger.sealed")).unwrap();
    let house = with_log(house, "another");
    house.log.append(b"leaf").unwrap();
    assert_eq!(code(house.try_start()), "CM-SERV-0020");
}

#[test]
fn another_or_an_older_trust_file_is_refused_and_a_successor_is_followed() {
    let house = House::new();
    drop(house.stocked());
    let mut altered = house.trust.clone();
    altered.signed.thresholds.admin = 1;
    assert_eq!(code(house.try_start_with(&altered)), "CM-VERI-0072");
    let w = &house.world;
    let unsigned = next_version(&house.trust, |t| t.thresholds.admin = 1, &[&w.alice]);
    assert_eq!(code(house.try_start_with(&unsigned)), "CM-VERI-0074");
    let next = next_version(&house.trust, |t| t.thresholds.admin = 3, &[&w.alice, &w.bob]);
    let broker = house.try_start_with(&next).unwrap();
    assert_eq!(code(house.apply(&broker, &revoke_all(&house))), "CM-BROK-0009");
    let act = Act { trust: next.signed.digest().unwrap(), ..revoke_all(&house) };
    assert_eq!(code(house.apply(&broker, &act)), "CM-STMT-0052");
    assert_eq!(house.fetch(&broker, &workload("app"), "db").unwrap(), SECRET);
    drop(broker);
    assert_eq!(code(house.try_start()), "CM-VERI-0070");
    assert!(house.try_start_with(&next).is_ok());
}

#[test]
fn a_trust_file_that_names_another_broker_is_refused() {
    let house = House::new();
    let named: [fn(&mut casemate_spec::trust::BrokerTrust); 3] =
        [|b| b.key = "AA==".into(), |b| b.envelope_key = "AA==".into(), |b| b.measurement = app()];
    for change in named {
        let mut other = house.trust.clone();
        change(&mut other.signed.broker);
        assert_eq!(code(house.try_start_with(&other)), "CM-SERV-0010");
    }
    assert!(house.try_start().is_ok());
}

#[test]
fn genesis_gives_the_same_keys_again_and_no_others_to_another_workload() {
    let house = House::new();
    let again = casemate_broker::genesis(&house.data_dir(), &house.inside()).unwrap();
    assert_eq!(again.key("signing").unwrap(), house.trust.signed.broker.key);
    let other = Inside { platform: &house.world.platform, workload: workload("other") };
    assert_eq!(code(casemate_broker::genesis(&house.data_dir(), &other)), "CM-SERV-0003");
}
