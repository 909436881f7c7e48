//! The simulated device is one thread, which ends with its handle. Alone in its process, because
//! it counts threads and descriptors.
#![allow(clippy::expect_used)]

use std::fs::{self, File};
use std::sync::Arc;

use casemate_spec::Sha384;
use casemate_tee::sim::{Launch, Platform, Simulator};
use casemate_tee::tsm::Client;

#[test]
fn each_device_is_one_thread_that_ends_with_its_handle() {
    let dir = tempfile::tempdir().expect("directory");
    let platform = Arc::new(Platform::create(dir.path()).expect("platform"));
    let count = |what: &str| fs::read_dir(format!("/proc/self/{what}")).expect("proc").count();
    let (threads, descriptors) = (count("task"), count("fd"));
    for round in 0..20 {
        let tsm = dir.path().join(format!("tsm-{round}"));
        fs::create_dir(&tsm).expect("directory");
        let tree = File::open(&tsm).expect("directory").into();
        let launch = Launch { agent: Sha384::of(b"agent"), debug: false };
        let handle = Simulator::start(Arc::clone(&platform), launch, tree).expect("simulator");
        for _ in 0..10 {
            Client::new(&tsm.join("report")).report(&[1; 64]).expect("report");
        }
        assert_eq!(count("task"), threads + 1);
        drop(handle);
    }
    assert_eq!((count("task"), count("fd")), (threads, descriptors));
}
