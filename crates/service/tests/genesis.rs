//! Keys that come out of a genesis, and whether they are believed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/inside.rs"]
mod inside;
#[path = "../../verify/tests/support/mod.rs"]
mod world;

use casemate_service::pin::{self, Step};
use casemate_service::{Genesis, ServiceError, ledger};
use casemate_spec::Coded as _;

use inside::{Inside, workload};
use world::platform::Platform;
use world::{NOW, World, next_version};

fn code<T>(result: Result<T, ServiceError>) -> &'static str {
    result.err().expect("a refusal").code()
}

#[test]
fn a_genesis_is_believed_under_its_own_platform_only() {
    let (here, elsewhere) =
        (Platform::new("Simulated ARK one"), Platform::new("Simulated ARK two"));
    let inside = Inside { platform: &here, workload: workload("a") };
    let genesis = Genesis::attest("a", &[("x", b"key x"), ("y", b"key y")], &inside).unwrap();
    let measurement = workload("a").measurement().unwrap();
    assert_eq!(genesis.verify(&[here.accepted_tee()], NOW).unwrap(), measurement);
    assert!(code(genesis.verify(&[elsewhere.accepted_tee()], NOW)).starts_with("CM-EVID-"));
}

#[test]
fn a_genesis_with_a_swapped_key_or_of_two_workloads_is_refused() {
    let platform = Platform::new("Simulated ARK one");
    let tees = [platform.accepted_tee()];
    let of = |name: &str| {
        let inside = Inside { platform: &platform, workload: workload(name) };
        Genesis::attest(name, &[("x", b"key x"), ("y", b"key y")], &inside).unwrap()
    };
    let (a, b) = (of("a"), of("b"));
    assert!(a.verify(&tees, NOW).is_ok());
    let mut swapped = a.clone();
    swapped.keys[0].spki = a.keys[1].spki.clone();
    assert!(code(swapped.verify(&tees, NOW)).starts_with("CM-EVID-"));
    let mut mixed = a.clone();
    mixed.keys[1] = b.keys[1].clone();
    assert_eq!(code(mixed.verify(&tees, NOW)), "CM-SERV-0011");
    assert_eq!(code(a.key("z").map(str::to_owned)), "CM-SERV-0011");
    assert_eq!(code(Genesis { keys: vec![], ..a }.verify(&tees, NOW)), "CM-SERV-0011");
}

#[test]
fn the_ledger_s_genesis_may_be_repeated_and_its_key_is_attested() {
    let temp = tempfile::tempdir().unwrap();
    let platform = Platform::new("Simulated ARK one");
    let inside = Inside { platform: &platform, workload: workload("ledger") };
    let first = ledger::genesis(temp.path(), &inside).unwrap();
    let again = ledger::genesis(temp.path(), &inside).unwrap();
    assert_eq!(first.key("note").unwrap(), again.key("note").unwrap());
    let measurement = first.verify(&[platform.accepted_tee()], NOW).unwrap();
    assert_eq!(measurement, workload("ledger").measurement().unwrap());
    let vkey = ledger::vkey_of(&first).unwrap();
    assert!(vkey.name().starts_with("casemate.dev/log/"));
    assert!(casemate_ledger::audit::verify_dir(&ledger::log_dir(temp.path()), &vkey, None).is_ok());
}

#[test]
fn a_trust_file_is_followed_forward_only() {
    let world = World::new();
    let people = [&world.alice, &world.bob];
    let one = world.trust.clone();
    let two = next_version(&one, |t| t.thresholds.admin = 1, &people);
    let three = next_version(&two, |t| t.thresholds.admin = 2, &people);
    assert_eq!(pin::check(None, &one).unwrap(), Step::Forward);
    assert_eq!(pin::check(Some(&one), &one).unwrap(), Step::Same);
    assert_eq!(pin::check(Some(&one), &two).unwrap(), Step::Forward);
    assert_eq!(code(pin::check(Some(&two), &one)), "CM-VERI-0070");
    assert_eq!(code(pin::check(Some(&one), &three)), "CM-VERI-0073");
    let mut other = one.clone();
    other.signed.thresholds.release = 1;
    assert_eq!(code(pin::check(Some(&one), &other)), "CM-VERI-0072");
    let stranger = next_version(&other, |_| {}, &people);
    assert_eq!(code(pin::check(Some(&one), &stranger)), "CM-VERI-0071");
}

#[test]
fn a_trust_file_is_read_with_its_signatures() {
    let world = World::new();
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("trust.json");
    let write = |file| std::fs::write(&path, serde_json::to_vec(file).unwrap()).unwrap();
    assert_eq!(code(pin::load(&path)), "CM-SERV-0001");
    write(&world.trust);
    assert_eq!(pin::load(&path).unwrap(), world.trust);
    let lone = next_version(&world.trust, |_| {}, &[&world.alice]);
    write(&lone);
    assert_eq!(code(pin::load(&path)), "CM-VERI-0074");
    std::fs::write(&path, b"{}").unwrap();
    assert_eq!(code(pin::load(&path)), "CM-TRUST-0001");
}
