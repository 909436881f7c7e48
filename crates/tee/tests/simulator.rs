//! The simulated device and its client, in one mount namespace.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_evidence::{Expect, Record, appraise};
use casemate_spec::binding::{Purpose, report_data};
use casemate_spec::workload::Workload;
use casemate_spec::{Coded, Sha256, Sha384};
use casemate_tee::TeeError;
use casemate_tee::sealing::hardware_key;
use casemate_tee::sim::{Launch, Platform, SimHandle, Simulator};
use casemate_tee::tsm::Client;

struct Device {
    dir: tempfile::TempDir,
    platform: Arc<Platform>,
    handle: Option<SimHandle>,
}

impl Device {
    fn start(debug: bool) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let platform = Arc::new(Platform::create(&dir.path().join("sim")).expect("platform"));
        fs::create_dir(dir.path().join("tsm")).expect("directory");
        let mut device = Self { dir, platform, handle: None };
        device.handle = Some(device.launch(Launch { agent: agent(), debug }));
        device
    }

    fn launch(&self, launch: Launch) -> SimHandle {
        let tree: OwnedFd = File::open(self.tsm()).expect("directory").into();
        Simulator::start(Arc::clone(&self.platform), launch, tree).expect("simulator")
    }

    fn tsm(&self) -> std::path::PathBuf {
        self.dir.path().join("tsm")
    }

    fn client(&self) -> Client {
        Client::new(&self.tsm().join("report"))
    }
}

fn agent() -> Sha384 {
    Sha384::of(b"agent")
}

fn workload() -> Workload {
    Workload {
        spec: Sha256::of(b"spec"),
        root: Sha256::of(b"root"),
        agent: agent(),
        production: true,
    }
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock");
    now.as_secs().cast_signed()
}

fn evidence(client: &Client, purpose: Purpose, nonce: &[u8], spki: &[u8]) -> Record {
    let workload = workload();
    let measurement = workload.measurement().expect("measurement");
    let data = report_data(purpose, nonce, spki, &measurement);
    let report = client.report(&data).expect("report");
    assert_eq!(report.provider, "sev_guest");
    assert_eq!(report.generation, 1);
    Record::snp(&report.outblob, &report.auxblob, &workload).expect("record")
}

#[test]
fn its_evidence_passes_the_verifier_and_only_under_its_own_root() {
    let (device, other) = (Device::start(false), Device::start(false));
    let nonce = [7; 32];
    let record = evidence(&device.client(), Purpose::SecretRelease, &nonce, b"key");
    let record = Record::parse(&record.to_json()).expect("record");
    let expect = Expect { purpose: Purpose::SecretRelease, nonce: Some(&nonce), spki: b"key" };
    let verdict =
        |expect: &Expect<'_>, p: &Platform| appraise(&record, expect, &[p.accepted_tee()], now());
    let accepted = verdict(&expect, &device.platform);
    let claims = accepted.result().expect("accepted");
    assert!(claims.simulated && !claims.debug);
    assert_eq!(claims.launch, agent());
    assert_eq!(claims.workload, workload());

    let code = |expect: &Expect<'_>, p: &Platform| {
        verdict(expect, p).result().expect_err("refused").code()
    };
    assert_eq!(code(&expect, &other.platform), "CM-EVID-0010", "another simulated root");
    let replayed = Expect { nonce: Some(&[8; 32]), ..expect };
    assert_eq!(code(&replayed, &device.platform), "CM-EVID-0032", "another nonce");
    let other_key = Expect { spki: b"other", ..expect };
    assert_eq!(code(&other_key, &device.platform), "CM-EVID-0032", "another key");
}

#[test]
fn a_debuggable_launch_is_refused_by_the_verifier() {
    let device = Device::start(true);
    let record = evidence(&device.client(), Purpose::StatementKey, b"", b"key");
    let expect = Expect { purpose: Purpose::StatementKey, nonce: None, spki: b"key" };
    let verdict = appraise(&record, &expect, &[device.platform.accepted_tee()], now());
    assert_eq!(verdict.result().expect_err("refused").code(), "CM-EVID-0020");
}

#[test]
fn many_clients_at_once_each_get_their_own_report() {
    let device = Device::start(false);
    std::thread::scope(|scope| {
        for id in 0..8u8 {
            let client = device.client();
            scope.spawn(move || {
                for round in 0..25u8 {
                    let mut data = [id; 64];
                    data[0] = round;
                    let report = client.report(&data).expect("report");
                    assert_eq!(report.outblob.len(), 1184);
                    assert_eq!(report.outblob[0x50..0x90], data);
                }
            });
        }
    });
    let left = fs::read_dir(device.tsm().join("report")).expect("tree").count();
    assert_eq!(left, 0, "every entry was removed");
}

#[test]
fn one_entry_can_be_used_again_and_counts_its_generations() {
    let device = Device::start(false);
    let entry = Entry::make(&device);
    for round in 1..=5u8 {
        entry.write_inblob(&[round; 64]);
        let report = entry.read("outblob");
        assert_eq!(report.len(), 1184);
        assert_eq!(report[0x50..0x90], [round; 64]);
        assert_eq!(entry.read("outblob").len(), 1184, "another opening, another report");
        assert!(!entry.read("auxblob").is_empty());
        assert_eq!(entry.read("generation"), format!("{round}\n").into_bytes());
    }
}

#[test]
fn report_data_of_another_size_gets_no_report() {
    let device = Device::start(false);
    let entry = Entry::make(&device);
    for size in [1usize, 63, 65, 100_000] {
        entry.write_inblob(&vec![1; size]);
        assert!(entry.read("outblob").is_empty(), "{size} bytes");
        assert!(entry.read("auxblob").is_empty(), "{size} bytes");
    }
    entry.write_inblob(&[1; 64]);
    assert_eq!(entry.read("outblob").len(), 1184, "the honest twin");
}

#[test]
fn without_report_data_there_is_no_report() {
    let device = Device::start(false);
    assert!(Entry::make(&device).read("outblob").is_empty());
}

#[test]
fn clients_that_die_half_way_leave_the_device_working() {
    let device = Device::start(false);
    let report = device.tsm().join("report");
    for round in 0..200 {
        let path = report.join(format!("dead-{round}"));
        fs::create_dir(&path).expect("entry");
        if round % 4 > 0 {
            // Opened and let go, without ever being read.
            let _ = OpenOptions::new().write(true).open(path.join("inblob"));
        }
        if round % 4 > 1 {
            let _ = File::open(path.join("outblob"));
        }
        let _ = fs::remove_dir_all(&path);
        let _ = fs::remove_dir_all(&path);
    }
    device.client().report(&[1; 64]).expect("report");
}

#[test]
fn names_that_lead_elsewhere_lead_nowhere() {
    let device = Device::start(false);
    let report = device.tsm().join("report");
    let outside = device.dir.path().join("outside");
    fs::create_dir(&outside).expect("directory");
    std::os::unix::fs::symlink(&outside, report.join("link")).expect("link");
    fs::write(report.join("file"), b"x").expect("file");
    device.client().report(&[1; 64]).expect("report");
    assert_eq!(fs::read_dir(&outside).expect("directory").count(), 0);
}

#[test]
fn too_many_entries_stay_empty_until_others_go() {
    let device = Device::start(false);
    let report = device.tsm().join("report");
    let paths: Vec<_> = (0..64).map(|i| report.join(format!("e{i}"))).collect();
    for path in &paths {
        fs::create_dir(path).expect("entry");
    }
    let refused = device.client().report(&[1; 64]);
    assert!(matches!(refused, Err(TeeError::Device { .. })), "{refused:?}");
    fs::remove_dir_all(&paths[0]).expect("removing");
    device.client().report(&[1; 64]).expect("report");
}

#[test]
fn nobody_hangs_when_the_device_is_gone() {
    let mut device = Device::start(false);
    let entry = Entry::make(&device);
    entry.write_inblob(&[1; 64]);
    let handle = device.handle.take().expect("running");
    assert!(handle.is_running());
    let start = Instant::now();
    drop(handle);
    let refused = device.client().report(&[1; 64]);
    assert!(matches!(refused, Err(TeeError::Device { .. })), "{refused:?}");
    assert!(hardware_key(&device.tsm()).is_err());
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_sealing_key_stays_over_restarts_and_differs_by_agent() {
    let mut device = Device::start(false);
    let first = hardware_key(&device.tsm()).expect("key");
    assert_eq!(first, hardware_key(&device.tsm()).expect("key"), "asked twice");
    device.handle = None;
    let restart = |agent| {
        fs::remove_dir_all(device.tsm()).expect("tree");
        fs::create_dir(device.tsm()).expect("tree");
        let _handle = device.launch(Launch { agent, debug: false });
        hardware_key(&device.tsm()).expect("key")
    };
    assert_eq!(first, restart(agent()));
    assert_ne!(first, restart(Sha384::of(b"another agent")));
}

#[test]
fn without_a_device_there_is_no_evidence_and_no_key() {
    let dir = tempfile::tempdir().expect("directory");
    let refused = Client::new(&dir.path().join("report")).report(&[0; 64]);
    assert!(matches!(refused, Err(TeeError::NoDevice { .. })));
    assert!(matches!(hardware_key(dir.path()), Err(TeeError::NoDevice { .. })));
}

#[test]
#[ignore = "a measurement, not a test"]
fn measure_the_time_of_one_report() {
    let device = Device::start(false);
    let client = device.client();
    client.report(&[0; 64]).expect("report");
    let start = Instant::now();
    for _ in 0..200 {
        client.report(&[0; 64]).expect("report");
    }
    panic!("{:?} per report", start.elapsed() / 200);
}

struct Entry(std::path::PathBuf);

impl Entry {
    fn make(device: &Device) -> Self {
        let path = device.tsm().join("report/entry");
        fs::create_dir(&path).expect("entry");
        let start = Instant::now();
        while !path.join("inblob").exists() {
            assert!(start.elapsed() < Duration::from_secs(2), "the entry was not filled");
            std::thread::sleep(Duration::from_millis(1));
        }
        Self(path)
    }

    fn write_inblob(&self, bytes: &[u8]) {
        let mut file = OpenOptions::new().write(true).open(self.0.join("inblob")).expect("inblob");
        file.write_all(bytes).expect("writing");
    }

    /// A plain blocking read, as `cat` does.
    fn read(&self, name: &str) -> Vec<u8> {
        read(&self.0.join(name))
    }
}

fn read(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    File::open(path).expect("attribute").read_to_end(&mut out).expect("reading");
    out
}
