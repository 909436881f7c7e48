//! What the signer signs, and what it does not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../service/tests/support/inside.rs"]
mod inside;
#[path = "../../verify/tests/support/mod.rs"]
mod world;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use casemate_service::testing::{Fault, TestClock, TestLog};
use casemate_signer::client::Client;
use casemate_signer::{Signer, SignerError};
use casemate_spec::trust::TrustFile;
use casemate_spec::{Coded as _, Sha256};
use casemate_statement::bundle::ReleaseBundle;
use casemate_verify::{ArtifactDigest, verify_release};
use tempfile::TempDir;

use inside::{Inside, workload};
use world::{NOW, World, hello, next_version};

struct House {
    temp: TempDir,
    world: World,
    log: Arc<TestLog>,
}

impl House {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut world = World::new();
        let inside = Inside { platform: &world.platform, workload: workload("signer") };
        let genesis = casemate_signer::genesis(&temp.path().join("signer"), &inside).unwrap();
        world.trust.signed.signer.measurement =
            genesis.verify(&world.trust.signed.tees, NOW).unwrap();
        world.trust.signed.signer.key = genesis.key("signing").unwrap().into();
        let log = TestLog::open(&temp.path().join("log"), &world.log.origin(), &[1; 32]).unwrap();
        // The bundles' own entries come before: a verdict is logged after what it is about.
        for leaf in 0u8..50 {
            log.append(&[leaf]).unwrap();
        }
        Self { temp, world, log: Arc::new(log) }
    }

    fn data_dir(&self) -> PathBuf {
        self.temp.path().join("signer")
    }

    fn try_start_with(&self, trust: &TrustFile) -> Result<Signer, SignerError> {
        let inside = Inside { platform: &self.world.platform, workload: workload("signer") };
        let clock = Arc::new(TestClock::new(NOW));
        Signer::open(&self.data_dir(), trust.clone(), &inside, self.log.clone(), clock)
    }

    fn start(&self) -> Signer {
        self.try_start_with(&self.world.trust).unwrap()
    }

    /// The bundle is accepted by anyone who has the trust file.
    fn accepts(&self, artifact: &ArtifactDigest, bundle: &ReleaseBundle) -> bool {
        verify_release(artifact, bundle, &self.world.trust, NOW).result().is_ok()
    }

    /// How many leaves the signer has made.
    fn leaves(&self) -> u64 {
        self.log.size() - 50
    }

    fn refuses(&self, signer: &Signer, bundle: &ReleaseBundle) -> &'static str {
        let before = self.log.size();
        let refusal = signer.sign(bundle.clone()).expect_err("a refusal").code();
        assert_eq!(self.log.size(), before, "a refused bundle left a leaf");
        refusal
    }
}

#[test]
fn an_approved_bundle_is_signed_and_verifies() {
    let mut house = House::new();
    let bundle = house.world.approved();
    assert!(!house.accepts(&hello(), &bundle));
    let signed = house.start().sign(bundle).unwrap();
    assert!(house.accepts(&hello(), &signed));
    assert_eq!(house.leaves(), 3, "a verdict and two artifacts");
}

#[test]
fn a_signature_that_nobody_would_accept_is_not_given_out() {
    let mut house = House::new();
    let bundle = house.world.approved();
    let dir = house.temp.path().join("other-log");
    let log = TestLog::open(&dir, &house.world.log.origin(), &[1; 32]).unwrap();
    house.log = Arc::new(log);
    // In this log the verdict comes before the approvals: it is not the log they are in.
    assert_eq!(house.start().sign(bundle).err().unwrap().code(), "CM-SIGN-0002");
}

#[test]
fn the_same_bundle_has_the_same_signatures_and_no_second_leaf() {
    let mut house = House::new();
    let bundle = house.world.approved();
    let signer = house.start();
    let first = signer.sign(bundle.clone()).unwrap();
    let envelope = |b: &ReleaseBundle| b.release.as_ref().unwrap().envelope().unwrap().clone();
    for again in [signer.sign(bundle.clone()).unwrap(), signer.sign(first.clone()).unwrap()] {
        assert_eq!(envelope(&again), envelope(&first));
    }
    drop(signer);
    let after_restart = house.start().sign(bundle).unwrap();
    assert_eq!(envelope(&after_restart), envelope(&first));
    assert_eq!(house.leaves(), 3);
}

#[test]
fn a_stop_before_or_after_the_ledger_knows_signs_once() {
    for fault in [Fault::RequestLost, Fault::AnswerLost] {
        let mut house = House::new();
        let bundle = house.world.approved();
        let signer = house.start();
        house.log.set_fault(fault);
        assert_eq!(signer.sign(bundle.clone()).err().unwrap().code(), "CM-SERV-0030");
        drop(signer);
        house.log.set_fault(Fault::None);
        let signed = house.start().sign(bundle).unwrap();
        assert!(house.accepts(&hello(), &signed));
        assert_eq!(house.leaves(), 3, "{fault:?}");
    }
}

#[test]
fn a_bundle_whose_entries_the_log_forked_away_is_refused() {
    let mut house = House::new();
    let bundle = house.world.approved();
    let signer = house.start();
    house.log.set_fault(Fault::Forked);
    assert_eq!(house.refuses(&signer, &bundle), "CM-SERV-0020");
    house.log.set_fault(Fault::None);
    assert!(house.accepts(&hello(), &signer.sign(bundle).unwrap()));
}

#[test]
fn a_bundle_without_a_quorum_of_different_people_is_refused() {
    let mut house = House::new();
    let signer = house.start();
    let built = house.world.built();
    let w = &mut house.world;
    let mut lone = built.clone();
    World::approve(&mut w.log, &mut lone, &w.alice);
    let mut twice = lone.clone();
    World::approve(&mut w.log, &mut twice, &w.alice2);
    let mut stranger = lone.clone();
    World::approve(&mut w.log, &mut stranger, &w.mallory);
    let mut honest = lone.clone();
    World::approve(&mut w.log, &mut honest, &w.bob);
    assert_eq!(house.refuses(&signer, &built), "CM-VERI-0054");
    assert_eq!(house.refuses(&signer, &lone), "CM-VERI-0054");
    assert_eq!(house.refuses(&signer, &twice), "CM-VERI-0053");
    assert_eq!(house.refuses(&signer, &stranger), "CM-VERI-0052");
    assert!(signer.sign(honest).is_ok());
}

#[test]
fn an_altered_bundle_is_refused_with_every_failed_check() {
    let mut house = House::new();
    let signer = house.start();
    let honest = house.world.approved();
    let mut altered = honest.clone();
    altered.artifacts[0].sha256 = Sha256::of(b"evil");
    let refusal = signer.sign(altered).err().unwrap();
    assert!(refusal.code().starts_with("CM-VERI-"));
    assert!(refusal.to_string().matches("CM-VERI-").count() >= 1, "{refusal}");
    let mut swapped = honest.clone();
    swapped.approvals[0] = house.world.approved().approvals[0].clone();
    assert!(house.refuses(&signer, &swapped).starts_with("CM-VERI-"));
    assert!(signer.sign(honest).is_ok());
}

#[test]
fn a_bundle_of_another_builder_or_log_is_refused() {
    let mut house = House::new();
    let signer = house.start();
    let mut parts = house.world.parts();
    let stranger = world::platform::Platform::new("Simulated ARK two");
    let spki = parts.key.public().spki().to_vec();
    let purpose = casemate_spec::binding::Purpose::StatementKey;
    parts.record = stranger.record(purpose, None, &spki, &house.world.workload, false);
    let mut foreign = house.world.assemble(parts);
    World::approve(&mut house.world.log, &mut foreign, &house.world.alice);
    World::approve(&mut house.world.log, &mut foreign, &house.world.bob);
    assert_eq!(house.refuses(&signer, &foreign), "CM-VERI-0010");
    let honest = std::mem::replace(&mut house.world.log, world::Log::new("casemate.test/log", 2));
    let elsewhere = house.world.approved();
    assert!(house.refuses(&signer, &elsewhere).starts_with("CM-VERI-004"));
    house.world.log = honest;
    let bundle = house.world.approved();
    assert!(signer.sign(bundle).is_ok());
}

#[test]
fn another_or_an_older_trust_file_is_refused_and_a_successor_is_followed() {
    let house = House::new();
    drop(house.start());
    let code = |t: &TrustFile| house.try_start_with(t).err().expect("a refusal").code();
    let w = &house.world;
    let mut altered = w.trust.clone();
    altered.signed.thresholds.release = 1;
    assert_eq!(code(&altered), "CM-VERI-0072");
    let mut stranger = w.trust.clone();
    stranger.signed.signer.key = w.signer.public().spki_base64();
    assert_eq!(code(&stranger), "CM-SERV-0010");
    let next = next_version(&w.trust, |t| t.thresholds.release = 3, &[&w.alice, &w.bob]);
    assert!(house.try_start_with(&next).is_ok());
    assert_eq!(code(&w.trust), "CM-VERI-0070");
}

#[test]
fn a_signer_without_its_key_or_of_another_workload_does_not_start() {
    let house = House::new();
    let other = Inside { platform: &house.world.platform, workload: workload("other") };
    let refused = casemate_signer::genesis(&house.data_dir(), &other).err().unwrap();
    assert_eq!(refused.code(), "CM-SERV-0003");
    std::fs::remove_file(house.data_dir().join("keys.sealed")).unwrap();
    let refused = house.try_start_with(&house.world.trust).err().unwrap();
    assert_eq!(refused.code(), "CM-SERV-0004");
}

#[test]
fn bundles_and_refusals_cross_the_wire() {
    let mut house = House::new();
    let bundle = house.world.approved();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()));
    let signer = Arc::new(house.start());
    std::thread::spawn(move || casemate_signer::serve(listener, signer));
    let info = client.info(&house.world.trust.signed).unwrap();
    assert_eq!(info.trust, house.world.trust.signed.digest().unwrap());
    let signed = client.sign(&bundle).unwrap();
    assert!(house.accepts(&hello(), &signed));
    let refusal = client.sign(&house.world.built()).err().unwrap();
    assert_eq!(refusal.code(), "CM-VERI-0054");
    assert!(refusal.fix().is_some());
    let mut stranger = house.world.trust.signed.clone();
    stranger.signer.key = house.world.signer.public().spki_base64();
    assert_eq!(client.info(&stranger).err().unwrap().code(), "CM-SERV-0031");
}
