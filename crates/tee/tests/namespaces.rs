//! The real arrangement: the device outside, the client inside user and mount namespaces on a
//! tmpfs made there, of which only a directory descriptor comes out.
//!
//! This binary starts itself again: as `outside` (the starting half, with the simulator) and as
//! `inside` (the agent, below `unshare -Urm`). Run as root it tries root and an ordinary user.
#![allow(clippy::expect_used, clippy::print_stderr)]

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use casemate_evidence::{Expect, Record, appraise};
use casemate_spec::binding::{Purpose, report_data};
use casemate_spec::workload::Workload;
use casemate_spec::{Sha256, Sha384};
use casemate_tee::sealing::hardware_key;
use casemate_tee::sim::{Launch, Platform, Simulator};
use casemate_tee::tsm::Client;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

const ROLE: &str = "CASEMATE_TEE_TEST_ROLE";
const NOBODY: u32 = 65534;

#[test]
fn works_for_this_user_inside_user_and_mount_namespaces() {
    run_outside(None);
}

#[test]
fn works_for_an_ordinary_user_inside_user_and_mount_namespaces() {
    if rustix::process::geteuid().is_root() {
        run_outside(Some(NOBODY));
    }
}

/// Starts the outside half as `user` and expects it to succeed.
fn run_outside(user: Option<u32>) {
    let dir = tempfile::tempdir().expect("directory");
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(dir.path(), open).expect("mode");
    // The build directory may be closed to other users.
    let program = dir.path().join("helper");
    std::fs::copy(std::env::current_exe().expect("own path"), &program).expect("copy");
    let mut command = role(&mut Command::new(&program), "outside", "outside_half");
    command.env("TMPDIR", dir.path()).current_dir(dir.path());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = command.output().expect("starting the outside half");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if text.contains("NO NAMESPACES") {
        eprintln!("not tested: this machine gives user {user:?} no user namespaces");
        return;
    }
    assert!(output.status.success() && text.contains("EVIDENCE ACCEPTED"), "{text}");
}

fn role(command: &mut Command, role: &str, test: &str) -> Command {
    let mut out = Command::new(command.get_program());
    out.args(command.get_args());
    out.args(["--exact", test, "--nocapture", "--include-ignored"]).env(ROLE, role);
    out
}

fn workload() -> Workload {
    Workload {
        spec: Sha256([1; 32]),
        root: Sha256([2; 32]),
        agent: Sha384::of(b"agent"),
        production: true,
    }
}

#[test]
#[ignore = "a half of the tests above"]
fn outside_half() {
    if std::env::var(ROLE).as_deref() != Ok("outside") {
        return;
    }
    let probe = Command::new("unshare").args(["-Urm", "true"]).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|s| s.success()) {
        eprintln!("NO NAMESPACES");
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    let platform = Arc::new(Platform::create(dir.path()).expect("platform"));
    let (mut ours, theirs) = UnixStream::pair().expect("socket pair");
    let mut command = Command::new("unshare");
    command.arg("-Urm").arg(std::env::current_exe().expect("own path"));
    let mut inside = role(&mut command, "inside", "inside_half")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .expect("starting the inside half");
    let tree = receive(&ours);
    let launch = Launch { agent: workload().agent, debug: false };
    let _device = Simulator::start(Arc::clone(&platform), launch, tree).expect("simulator");
    ours.write_all(b"g").expect("go");
    let mut json = Vec::new();
    ours.read_to_end(&mut json).expect("record");
    assert!(inside.wait().expect("inside half").success());

    let record = Record::parse(&json).expect("record");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock");
    let expect = Expect { purpose: Purpose::Attest, nonce: Some(&[3; 32]), spki: b"" };
    let verdict =
        appraise(&record, &expect, &[platform.accepted_tee()], now.as_secs().cast_signed());
    assert_eq!(verdict.result().expect("accepted").workload, workload());
    eprintln!("EVIDENCE ACCEPTED");
}

#[test]
#[ignore = "a half of the tests above"]
fn inside_half() {
    if std::env::var(ROLE).as_deref() != Ok("inside") {
        return;
    }
    let mount = tempfile::tempdir().expect("directory");
    let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
    rustix::mount::mount("tmpfs", mount.path(), "tmpfs", flags, c"mode=0700").expect("tmpfs");
    let mut channel: UnixStream =
        std::io::stdin().as_fd().try_clone_to_owned().expect("socket").into();
    send(&channel, &File::open(mount.path()).expect("directory").into());
    channel.read_exact(&mut [0]).expect("go");

    let record = evidence(mount.path());
    assert_eq!(hardware_key(mount.path()).expect("key").len(), 32);
    channel.write_all(&record.to_json()).expect("sending");
    drop(channel);
    rustix::mount::unmount(mount.path(), rustix::mount::UnmountFlags::DETACH).expect("unmount");
}

fn evidence(tsm: &Path) -> Record {
    let workload = workload();
    let measurement = workload.measurement().expect("measurement");
    let data = report_data(Purpose::Attest, &[3; 32], b"", &measurement);
    let client = Client::new(&tsm.join("report"));
    for _ in 0..20 {
        client.report(&data).expect("report");
    }
    let report = client.report(&data).expect("report");
    Record::snp(&report.outblob, &report.auxblob, &workload).expect("record")
}

fn send(channel: &UnixStream, fd: &OwnedFd) {
    let fds = [fd.as_fd()];
    let mut space = [MaybeUninit::uninit(); 64];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(channel, &[IoSlice::new(b"d")], &mut control, SendFlags::empty()).expect("sending");
}

fn receive(channel: &UnixStream) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); 64];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(channel, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())
        .expect("receiving");
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.next().expect("a descriptor")
}
