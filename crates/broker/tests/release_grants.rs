//! Secrets for a release: who runs it as it was granted gets them, wherever it lies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use casemate_broker::{ActRequest, Broker, BrokerError, Detail, frame_of};
use casemate_spec::spec::Spec;
use casemate_spec::workload::{NodeKind, RootEntry, RootManifest, Workload, WorkloadDetail};
use casemate_spec::{Coded as _, Sha256, Sha384};
use casemate_statement::act::{Act, Action, Grantee};
use casemate_statement::bundle::ReleaseBundle;
use casemate_statement::json::Base64;

use support::world::World;
use support::{Ask, House, SECRET};

fn code<T>(result: Result<T, BrokerError>) -> &'static str {
    result.err().expect("a refusal").code()
}

fn file(path: &str, content: &[u8]) -> RootEntry {
    RootEntry {
        path: path.into(),
        kind: NodeKind::File,
        mode: 0o755,
        size: content.len() as u64,
        sha256: Some(Sha256::of(content)),
        target: None,
    }
}

/// The released program at `path` with a library and arguments.
fn detail(path: &str, program: &[u8], library: &[u8], argument: &str) -> Detail {
    Detail {
        spec: Spec::minimal().effective(vec![path.into(), argument.into()], None),
        root: RootManifest::new(vec![file(path, program), file("/lib/libc.so.6", library)]),
    }
}

fn honest(path: &str) -> Detail {
    detail(path, b"hello, world\n", b"libc", "--serve")
}

fn workload(detail: &Detail, agent: &[u8]) -> Workload {
    Workload {
        spec: detail.spec.digest().unwrap(),
        root: detail.root.digest().unwrap(),
        agent: Sha384::of(agent),
        production: true,
    }
}

fn grant(house: &House, bundle: &ReleaseBundle) -> Act {
    let detail = honest("/build/out/hello");
    let workload = workload(&detail, b"agent");
    let whole = WorkloadDetail {
        measurement: workload.measurement().unwrap(),
        workload,
        spec: serde_json::to_value(&detail.spec).unwrap(),
        root: detail.root,
    };
    let (program, frame) = frame_of(&whole).unwrap();
    let bundle = bundle.digest().unwrap();
    let to = Grantee::Release { bundle, artifacts: vec![program], frame };
    house.act_random(Action::Grant { name: "db".into(), to })
}

fn request(house: &House, act: &Act, bundle: &ReleaseBundle) -> ActRequest {
    let people = [&house.world.alice, &house.world.bob];
    let bundle = Some(Base64(bundle.to_bytes().unwrap()));
    ActRequest { bundle, ..house.request(act, &people) }
}

/// A broker that keeps `db` for a release.
fn stocked(house: &mut House) -> (Broker, ReleaseBundle) {
    let bundle = house.world.released();
    let broker = house.start();
    house.put(&broker, "db", SECRET).unwrap();
    broker.act(&request(house, &grant(house, &bundle), &bundle)).unwrap();
    (broker, bundle)
}

fn fetch(
    house: &House,
    broker: &Broker,
    detail: &Detail,
    agent: &[u8],
) -> Result<Vec<u8>, BrokerError> {
    let ask = Ask::new(broker, "db");
    let record = ask.record(&house.world.platform, &workload(detail, agent), false);
    let mut request = ask.request(&record);
    request.workload = Some(detail.clone());
    Ok(ask.open(&broker.release(&request)?, &house.trust, "db"))
}

#[test]
fn the_released_program_gets_the_secret_wherever_it_lies() {
    let mut house = House::new();
    let (broker, _) = stocked(&mut house);
    for path in ["/build/out/hello", "/srv/hello"] {
        assert_eq!(fetch(&house, &broker, &honest(path), b"agent").unwrap(), SECRET);
    }
}

#[test]
fn one_byte_of_program_library_argument_or_agent_is_another_workload() {
    let mut house = House::new();
    let (broker, _) = stocked(&mut house);
    let program = detail("/srv/hello", b"hello, World\n", b"libc", "--serve");
    let library = detail("/srv/hello", b"hello, world\n", b"libC", "--serve");
    let argument = detail("/srv/hello", b"hello, world\n", b"libc", "--servE");
    let mut environment = honest("/srv/hello");
    environment.spec.env.insert("LD_PRELOAD".into(), "/lib/libc.so.6".into());
    for other in [program, library, argument, environment] {
        assert_eq!(code(fetch(&house, &broker, &other, b"agent")), "CM-BROK-0006");
    }
    let refusal = fetch(&house, &broker, &honest("/srv/hello"), b"Agent").err().unwrap();
    assert!(refusal.to_string().contains("agent differs"), "{refusal}");
    assert_eq!(fetch(&house, &broker, &honest("/srv/hello"), b"agent").unwrap(), SECRET);
}

#[test]
fn a_workload_that_lies_about_its_spec_or_root_is_refused() {
    let mut house = House::new();
    let (broker, _) = stocked(&mut house);
    let evil = detail("/srv/hello", b"evil", b"libc", "--serve");
    let ask = Ask::new(&broker, "db");
    let record = ask.record(&house.world.platform, &workload(&evil, b"agent"), false);
    let mut lie = ask.request(&record);
    lie.workload = Some(honest("/srv/hello"));
    assert_eq!(code(broker.release(&lie)), "CM-BROK-0007");
    let ask = Ask::new(&broker, "db");
    let record = ask.record(&house.world.platform, &workload(&honest("/a"), b"agent"), false);
    assert_eq!(code(broker.release(&ask.request(&record))), "CM-BROK-0006");
}

#[test]
fn a_grant_needs_the_very_bundle_it_names_and_the_bundle_must_verify() {
    let mut house = House::new();
    let bundle = house.world.released();
    let mut unsigned = house.world.approved();
    World::approve(&mut house.world.log, &mut unsigned, &house.world.carol);
    let broker = house.start();
    house.put(&broker, "db", SECRET).unwrap();
    let act = grant(&house, &bundle);
    assert_eq!(code(house.apply(&broker, &act)), "CM-BROK-0015");
    let other = house.world.released();
    assert_eq!(code(broker.act(&request(&house, &act, &other))), "CM-BROK-0015");
    let early = grant(&house, &unsigned);
    assert_eq!(code(broker.act(&request(&house, &early, &unsigned))), "CM-VERI-0060");
    let mut altered = bundle.clone();
    altered.artifacts[0].sha256 = Sha256::of(b"evil");
    let forged = grant(&house, &altered);
    assert_eq!(code(broker.act(&request(&house, &forged, &altered))), "CM-BROK-0015");
    assert!(broker.act(&request(&house, &act, &bundle)).is_ok());
}

#[test]
fn a_bundle_with_an_altered_artifact_is_refused_even_if_the_act_names_that() {
    let mut house = House::new();
    let mut bundle = house.world.released();
    bundle.artifacts[0].sha256 = Sha256::of(b"evil");
    let broker = house.start();
    house.put(&broker, "db", SECRET).unwrap();
    let mut act = grant(&house, &bundle);
    if let Action::Grant { to: Grantee::Release { artifacts, .. }, .. } = &mut act.action {
        *artifacts = vec![Sha256::of(b"evil")];
    }
    assert!(code(broker.act(&request(&house, &act, &bundle))).starts_with("CM-VERI-"));
}

#[test]
fn a_release_loses_its_grant_by_name() {
    let mut house = House::new();
    let (broker, bundle) = stocked(&mut house);
    let Action::Grant { to, name } = grant(&house, &bundle).action else { panic!("a grant") };
    house.apply(&broker, &house.act_random(Action::Revoke { name, from: Some(to) })).unwrap();
    assert_eq!(code(fetch(&house, &broker, &honest("/srv/hello"), b"agent")), "CM-BROK-0006");
}
