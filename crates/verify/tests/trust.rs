//! A trust file is replaced by its proper successor and by nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use casemate_spec::Coded as _;
use casemate_spec::trust::{Trust, TrustFile};
use casemate_verify::trust::{check_signatures, check_successor};
use support::{PersonKey, World, at, next_version, signed};

#[track_caller]
fn assert_refused(old: &TrustFile, new: &TrustFile, code: &str) {
    assert_eq!(check_successor(old, new).expect_err("accepted").code(), code);
}

#[test]
fn accepts_the_next_version_signed_by_both_quorums() {
    let world = World::new();
    let one = &world.trust;
    let keys = [&world.alice, &world.bob];
    let two = next_version(one, |t| t.thresholds.release = 3, &keys);
    let three = next_version(&two, |t| t.thresholds.release = 1, &keys);
    for (old, new) in [(one, one), (one, &two), (&two, &three), (&three, &three)] {
        assert!(check_successor(old, new).is_ok());
        assert!(check_signatures(new).is_ok());
        let read = TrustFile::parse(&serde_json::to_vec(new).unwrap()).unwrap();
        assert!(check_successor(old, &read).is_ok());
    }
}

#[test]
fn refuses_an_older_version() {
    let world = World::new();
    let two = next_version(&world.trust, |_| {}, &[&world.alice, &world.bob]);
    assert!(check_successor(&world.trust, &two).is_ok());
    assert_refused(&two, &world.trust, "CM-VERI-0070");
}

#[test]
fn refuses_another_installation_and_an_altered_file() {
    let world = World::new();
    let mut other = world.trust.clone();
    other.signed.created = at(1);
    assert_refused(&world.trust, &other, "CM-VERI-0072");
    let keys = [&world.alice, &world.bob];
    let two = next_version(&other, |_| {}, &keys);
    assert!(check_successor(&other, &two).is_ok());
    assert_refused(&world.trust, &two, "CM-VERI-0071");
}

#[test]
fn refuses_a_version_that_skips_or_forks() {
    let world = World::new();
    let keys = [&world.alice, &world.bob];
    let two = next_version(&world.trust, |_| {}, &keys);
    let fork = next_version(&world.trust, |t| t.thresholds.admin = 1, &keys);
    let three = next_version(&two, |_| {}, &keys);
    assert!(check_successor(&two, &three).is_ok());
    assert_refused(&world.trust, &three, "CM-VERI-0073");
    assert_refused(&fork, &three, "CM-VERI-0073");
}

#[test]
fn refuses_fewer_people_than_the_threshold() {
    let world = World::new();
    for keys in [vec![], vec![&world.alice], vec![&world.alice, &world.alice2]] {
        let two = next_version(&world.trust, |_| {}, &keys);
        assert_refused(&world.trust, &two, "CM-VERI-0074");
        assert_eq!(check_signatures(&two).expect_err("accepted").code(), "CM-VERI-0074");
    }
    let two = next_version(&world.trust, |_| {}, &[&world.alice, &world.carol]);
    assert!(check_successor(&world.trust, &two).is_ok());
}

#[test]
fn needs_the_old_quorum_and_the_new_one() {
    let world = World::new();
    let replaced = |t: &mut Trust| {
        t.approvers.retain(|a| a.name == "alice");
        t.approvers.push(casemate_spec::trust::Approver {
            name: "dave".into(),
            keys: vec![PersonKey::new(20).line],
        });
    };
    let dave = PersonKey::new(20);
    let (alice, bob) = (&world.alice, &world.bob);
    let refused = [vec![alice, &dave], vec![alice, bob]];
    for keys in refused {
        let two = next_version(&world.trust, replaced, &keys);
        assert_refused(&world.trust, &two, "CM-VERI-0074");
    }
    let two = next_version(&world.trust, replaced, &[alice, bob, &dave]);
    assert!(check_successor(&world.trust, &two).is_ok());
    assert!(check_signatures(&two).is_ok());
}

#[test]
fn refuses_strangers_and_signatures_over_something_else() {
    let world = World::new();
    let (alice, bob) = (&world.alice, &world.bob);
    let two = next_version(&world.trust, |_| {}, &[alice, bob, &world.mallory]);
    assert_refused(&world.trust, &two, "CM-VERI-0075");
    let mut two = next_version(&world.trust, |_| {}, &[alice, bob]);
    two.signed.thresholds.trust = 1;
    assert_refused(&world.trust, &two, "CM-VERI-0075");
    assert_eq!(check_signatures(&two).expect_err("accepted").code(), "CM-VERI-0075");
    let bytes = casemate_spec::canonical::to_vec(&two.signed).unwrap();
    let mut two = signed(two.signed, &[alice, bob]);
    two.signatures[0].sshsig = alice.sign("casemate-act", &bytes).to_armored();
    assert_refused(&world.trust, &two, "CM-VERI-0075");
}
