//! A shell in an enclave behind a real terminal.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use casemate_enclave::{StreamSource, end_like, start};
use common::{child, eventually, options, tools};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

/// Both ends of a new terminal.
fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).expect("terminal");
    rustix::pty::unlockpt(&master).expect("unlocking");
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).expect("slave");
    (master, slave)
}

#[test]
fn a_shell_has_its_terminal_job_control_and_the_window_s_size() {
    let (master, slave) = terminal();
    let size =
        |rows, columns| Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size(33, 77)).expect("size");
    let before = tcgetattr(&slave).expect("modes");
    let stream = || Stdio::from(slave.try_clone().expect("clone"));
    let mut command = child("shell", None);
    command.stdin(stream()).stdout(stream()).stderr(stream());
    let mut starter = command.spawn().expect("starting");
    drop(command);

    let seen = Arc::new(Mutex::new(String::new()));
    let (sink, from) = (Arc::clone(&seen), master.try_clone().expect("clone"));
    std::thread::spawn(move || {
        let (mut from, mut buffer) = (std::fs::File::from(from), [0; 4096]);
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            sink.lock().expect("text").push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    });
    let mut keyboard = std::fs::File::from(master.try_clone().expect("clone"));
    let mut expect = |keys: &str, wanted: &str| {
        keyboard.write_all(keys.as_bytes()).expect("typing");
        eventually(&format!("{wanted:?} after {keys:?}"), || {
            seen.lock().expect("text").contains(wanted)
        });
    };
    expect("", "$ ");
    expect("stty size\r", "33 77");
    expect("tty\r", "/dev/pts/0");
    expect("echo $((6*7))\r", "\r\n42\r\n");
    expect("sleep 1000\r", "sleep 1000");
    std::thread::sleep(std::time::Duration::from_millis(300));
    expect("\x03", "^C");
    expect("echo status $?\r", "status 130");
    expect("sleep 1001 &\r", "sleep 1001");
    expect("jobs\r", "Running");
    expect("kill %1; wait; echo jobs done\r", "\r\njobs done");
    tcsetwinsize(&master, size(44, 88)).expect("size");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(starter.id() as i32).expect("pid"),
        rustix::process::Signal::WINCH,
    )
    .expect("signal");
    std::thread::sleep(std::time::Duration::from_millis(300));
    expect("stty size\r", "44 88");
    assert_ne!(tcgetattr(&slave).expect("modes").local_modes, before.local_modes, "not raw");
    expect("exit 3\r", "exit");
    assert_eq!(starter.wait().expect("waiting").code(), Some(3));
    assert_eq!(tcgetattr(&slave).expect("modes").local_modes, before.local_modes, "left raw");
}

#[test]
#[ignore = "played by children of other tests"]
fn role_of_a_child_process() {
    if std::env::var("CASEMATE_TEST_ROLE").as_deref() != Ok("shell") {
        return;
    }
    let text = format!(
        "{}[enclave]\nenv = {{ PS1 = \"$ \" }}\n",
        tools(&["/bin/stty", "/usr/bin/tty", "/bin/sleep"])
    );
    let mut options = options(&text, &["/bin/sh", "-i"]);
    options.streams = [StreamSource::Inherit, StreamSource::Inherit, StreamSource::Inherit];
    options.forward_signals = true;
    end_like(start(options).expect("start").wait().expect("wait"));
}
