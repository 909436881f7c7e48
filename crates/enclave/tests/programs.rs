//! Ordinary programs, unchanged: exit codes, signals, streams, environment, and what they see.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;

use casemate_enclave::{Exit, Program, StreamSource, end_like, measure, start};
use casemate_spec::Coded as _;
use common::{
    child, eventually, file_with, is_root, options, processes_with, run, shell, spec, start_piped,
    tools,
};

#[test]
fn returns_the_program_s_exit_code() {
    for code in [0, 1, 42, 255] {
        assert_eq!(shell("", &format!("exit {code}")).exit, Exit::Code(code));
    }
    assert_eq!(run(options("", &["true"])).exit, Exit::Code(0));
    assert_eq!(run(options("", &["/bin/false"])).exit, Exit::Code(1));
}

#[test]
fn tells_which_signal_killed_the_program() {
    for signal in [9, 15, 11, 6] {
        assert_eq!(shell("", &format!("kill -{signal} $$")).exit, Exit::Signal(signal));
    }
}

#[test]
fn forwards_signals_to_the_program() {
    let script = "trap 'echo got usr1; exit 7' USR1; echo ready; while :; do :; done";
    let (stdout, out) = std::io::pipe().expect("pipe");
    let mut options = options("", &["/bin/sh", "-c", script]);
    options.streams[1] = StreamSource::Fd(out.into());
    let running = start(options).expect("start");
    let mut reader = std::io::BufReader::new(stdout);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line).expect("reading");
    assert_eq!(line, "ready\n");
    running.signal(10).expect("signal");
    assert_eq!(running.wait().expect("wait"), Exit::Code(7));
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("reading");
    assert_eq!(rest, "got usr1\n");
}

#[test]
fn pipes_ten_megabytes_through_unchanged() {
    let bytes: Vec<u8> =
        (0..10u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (stdin, mut to) = std::io::pipe().expect("pipe");
    let (mut from, stdout) = std::io::pipe().expect("pipe");
    let mut options = options("", &["cat"]);
    options.streams[0] = StreamSource::Fd(stdin.into());
    options.streams[1] = StreamSource::Fd(stdout.into());
    let running = start(options).expect("start");
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || to.write_all(&sent).expect("writing"));
    let mut got = Vec::new();
    from.read_to_end(&mut got).expect("reading");
    writer.join().expect("writer");
    assert_eq!(running.wait().expect("wait"), Exit::Code(0));
    assert!(got == bytes, "{} bytes came back", got.len());
}

#[test]
fn passes_files_as_streams_and_lets_them_be_opened_again() {
    let dir = tempfile::tempdir().expect("directory");
    let mut options = options("", &["/bin/sh", "-c", "read a; echo $a; echo again > /dev/stderr"]);
    options.streams[0] = StreamSource::Fd(file_with(dir.path(), b"one\ntwo\n"));
    let log = dir.path().join("log");
    let file = std::fs::File::create(&log).expect("creating");
    let (mut from, stdout) = std::io::pipe().expect("pipe");
    options.streams[1] = StreamSource::Fd(stdout.into());
    options.streams[2] = StreamSource::Fd(file.into());
    assert_eq!(start(options).expect("start").wait().expect("wait"), Exit::Code(0));
    let mut text = String::new();
    from.read_to_string(&mut text).expect("reading");
    assert_eq!(text, "one\n");
    assert_eq!(std::fs::read_to_string(log).expect("reading"), "again\n");
}

#[test]
fn has_the_spec_s_environment_and_nothing_of_the_caller_s() {
    let text = "[enclave]\nenv = { GREETING = \"hello\" }\npass_env = [\"LANG\"]\n";
    let mut options = options(text, &["env"]);
    options.pass_env.insert("LANG".into(), "C.UTF-8".into());
    let output = run(options);
    let mut lines: Vec<&str> = output.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines[..2], ["GREETING=hello", "LANG=C.UTF-8"]);
    assert!(lines[2].starts_with("PATH=/usr/local/sbin:"));
    assert_eq!(lines.len(), 3, "{lines:?}");
}

#[test]
fn refuses_a_variable_that_the_spec_does_not_let_pass() {
    let mut options = options("", &["env"]);
    options.pass_env.insert("LD_PRELOAD".into(), "/tmp/x.so".into());
    assert_eq!(start(options).expect_err("not in pass_env").code(), "CM-ENCL-0040");
}

#[test]
fn sees_only_its_own_files() {
    let dir = tempfile::tempdir().expect("directory");
    let secret = dir.path().join("host-file");
    std::fs::write(&secret, "of the host").expect("writing");
    let script = format!("cat {} || echo invisible; ls /; ls /home /root /var", secret.display());
    let output = shell(&tools(&["/bin/cat", "/bin/ls"]), &script);
    assert!(output.stdout.starts_with("invisible\n"), "{output:?}");
    assert!(!output.stdout.contains("of the host"));
    for name in ["root", "home", "boot", "srv", "work", "sys"] {
        assert!(!output.stdout.lines().any(|l| l == name), "{name} in {output:?}");
    }
}

#[test]
fn sees_only_its_own_processes() {
    let output = shell(&tools(&["/bin/ls"]), "ls /proc; echo; cd /proc; echo [0-9]*");
    let own = output.stdout.lines().last().expect("a line");
    assert!(own.split(' ').count() <= 2, "{own}");
    assert!(!own.split(' ').any(|pid| pid == "1"), "the agent is visible: {own}");
}

#[test]
fn has_no_network_but_loopback() {
    let output = shell(&tools(&["/bin/cat"]), "cat /proc/net/dev /proc/net/route");
    let devices: Vec<&str> = output.stdout.lines().filter(|l| l.contains(':')).collect();
    assert_eq!(devices.len(), 1, "{devices:?}");
    assert!(devices[0].trim_start().starts_with("lo:"));
}

#[test]
fn can_not_write_to_its_root_but_to_tmp() {
    let script =
        "for f in /x /usr/x /etc/x /dev/x /bin/x; do echo a 2>/dev/null > $f && echo $f; done;
        echo fine > /tmp/x && cat /tmp/x";
    let output = shell(&tools(&["/bin/cat"]), script);
    assert_eq!(output.stdout, "fine\n", "{output:?}");
}

#[test]
fn leaves_nothing_of_what_it_wrote() {
    let name = format!("casemate-test-{}", std::process::id());
    let script = format!("echo gone > /tmp/{name}; echo gone > /dev/shm/{name}; ls /tmp");
    let output = shell(&tools(&["/bin/ls"]), &script);
    assert_eq!(output.stdout.trim(), name);
    assert!(!std::path::Path::new("/tmp").join(&name).exists());
    assert!(!std::path::Path::new("/dev/shm").join(&name).exists());
}

#[test]
fn runs_scripts_with_their_interpreter() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("script");
    for (first, code) in [("#!/bin/sh -e", 5), ("#!/usr/bin/env sh", 6)] {
        std::fs::write(&path, format!("{first}\nexit {code}\n")).expect("writing");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("mode");
        let output = run(options("", &[path.to_str().expect("utf-8")]));
        assert_eq!(output.exit, Exit::Code(code), "{output:?}");
    }
}

#[test]
fn gives_memory_and_shared_volumes() {
    let dir = tempfile::tempdir().expect("directory");
    let (rw, ro) = (dir.path().join("rw"), dir.path().join("ro"));
    std::fs::create_dir(&rw).expect("mkdir");
    std::fs::create_dir(&ro).expect("mkdir");
    std::fs::write(ro.join("in"), "input").expect("writing");
    let text = format!(
        "{}[[volume]]\npath = \"/data\"\nkind = \"untrusted\"\nsource = {rw:?}\n\
         [[volume]]\npath = \"/in\"\nkind = \"untrusted\"\nsource = {ro:?}\nread_only = true\n\
         [[volume]]\npath = \"/mem/x\"\nkind = \"memory\"\n",
        tools(&["/bin/cat"])
    );
    let script =
        "cat /in/in > /data/out; echo m > /mem/x/f; cat /mem/x/f; echo x > /in/y || echo no";
    let output = shell(&text, script);
    assert_eq!(output.stdout, "m\nno\n", "{output:?}");
    assert_eq!(std::fs::read_to_string(rw.join("out")).expect("reading"), "input");
}

#[test]
fn reaps_what_the_program_leaves_behind() {
    let (running, streams) = start_piped(options(
        &tools(&["/bin/sleep"]),
        &["/bin/sh", "-c", "(sleep 4321 &) ; (exit 3 &) ; echo done"],
    ));
    assert_eq!(running.wait().expect("wait"), Exit::Code(0));
    assert_eq!(streams().0, "done\n");
    assert!(processes_with("sleep\x004321").is_empty());
}

#[test]
fn says_what_is_wrong_with_a_program_that_can_not_start() {
    let dir = tempfile::tempdir().expect("directory");
    let write = |name: &str, text: &[u8], mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("writing");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&path, mode).expect("mode");
        path.to_str().expect("utf-8").to_owned()
    };
    let code =
        |program: &str| measure(&Program::new(spec(""), [program])).expect_err("refused").code();
    assert_eq!(code("no-such-program"), "CM-ENCL-0011");
    assert_eq!(code("/no/such/program"), "CM-ENCL-0011");
    assert_eq!(code(&write("plain", b"#!/bin/sh\n", 0o644)), "CM-ENCL-0012");
    assert_eq!(code(dir.path().to_str().expect("utf-8")), "CM-ENCL-0012");
    assert_eq!(code(&write("text", b"hello\n", 0o755)), "CM-ENCL-0013");
    assert_eq!(code(&write("cut", b"\x7fELF\x02\x01\x01", 0o755)), "CM-ENCL-0013");
    assert_eq!(code(&write("script", b"#!/no/such/interpreter\n", 0o755)), "CM-ENCL-0015");
    let mut missing = std::fs::read("/bin/true").expect("reading");
    let at = missing.windows(9).position(|w| w == b"libc.so.6").expect("a needed name");
    missing[at..at + 9].copy_from_slice(b"libX.so.6");
    assert_eq!(code(&write("missing", &missing, 0o755)), "CM-ENCL-0014");
    let no_program = measure(&Program::new(spec(""), Vec::<String>::new()));
    assert_eq!(no_program.expect_err("none").code(), "CM-ENCL-0010");
}

#[test]
fn runs_a_directory_as_root() {
    let dir = tempfile::tempdir().expect("directory");
    let root = dir.path();
    for path in ["bin", "lib64", "lib/x86_64-linux-gnu", "proc", "dev"] {
        std::fs::create_dir_all(root.join(path)).expect("mkdir");
    }
    let libc = std::fs::canonicalize("/lib/x86_64-linux-gnu/libc.so.6").expect("libc");
    for (from, to) in [
        ("/bin/sh", "bin/dash"),
        ("/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
        (libc.to_str().expect("utf-8"), "lib/x86_64-linux-gnu/libc.so.6"),
    ] {
        std::fs::copy(from, root.join(to)).expect("copying");
    }
    std::os::unix::fs::symlink("dash", root.join("bin/sh")).expect("link");
    std::fs::write(root.join("greeting"), "hello from the tree\n").expect("writing");
    let text = format!("[enclave]\nroot = \"dir:{}\"\n", root.display());
    let output = run(options(&text, &["sh", "-c", "read x < /greeting; echo $x; echo /*"]));
    assert_eq!(
        output.stdout,
        "hello from the tree\n/bin /dev /etc /greeting /lib /lib64 /proc /tmp\n"
    );
}

#[test]
fn can_not_do_what_only_the_host_may() {
    let script = "for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern; do
            (echo x > $f) 2>/dev/null && echo wrote $f; done;
        cat /proc/kcore 2>/dev/null | head -c 1;
        mount -t tmpfs none /tmp 2>/dev/null && echo mounted;
        unshare -U true 2>/dev/null && echo new user namespace;
        unshare -m true 2>/dev/null && echo new mount namespace;
        kill -9 1 2>/dev/null && echo killed the agent;
        cat /proc/1/environ 2>/dev/null && echo read the agent;
        grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; ulimit -c";
    let text = tools(&[
        "/bin/cat",
        "/bin/mount",
        "/usr/bin/unshare",
        "/bin/grep",
        "/bin/true",
        "/usr/bin/head",
    ]);
    let output = shell(&text, script);
    assert_eq!(output.stdout, "NoNewPrivs:\t1\nSeccomp:\t2\n0\n", "{output:?}");
}

#[test]
fn an_ordinary_user_has_the_same_enclave() {
    if !is_root() {
        return; // All other tests run as an ordinary user then.
    }
    let output = child("ordinary", Some(65534)).output().expect("running");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("uid 65534 wrote fine"), "{text}");
    // And every other test here, once more as that user.
    let mut all = std::process::Command::new(std::env::current_exe().expect("own path"));
    all.args(["--skip", "ordinary_user", "--skip", "compilers"]);
    all.uid(65534).gid(65534).current_dir("/").env("TMPDIR", "/tmp").env("HOME", "/");
    let output = all.output().expect("running");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn kill_9_of_the_starter_leaves_nothing() {
    for user in [None, Some(65534).filter(|_| is_root())] {
        let marker = format!("99{}", std::process::id());
        let mut starter =
            child("sleeper", user).env("CASEMATE_TEST_MARKER", &marker).spawn().expect("starting");
        let needle = format!("sleep\0{marker}");
        eventually("the program's start", || !processes_with(&needle).is_empty());
        let inside = processes_with(&needle)[0];
        let namespace = std::fs::read_link(format!("/proc/{inside}/ns/mnt")).expect("namespace");
        starter.kill().expect("killing");
        starter.wait().expect("waiting");
        eventually("the program's end", || processes_with(&needle).is_empty());
        eventually("the namespace's end", || !namespace_lives(&namespace));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains("/sys/kernel/config/tsm"));
    }
}

#[test]
fn kill_9_of_the_agent_ends_the_program_and_is_reported() {
    let marker = format!("98{}", std::process::id());
    let running = start(options("", &["sleep", &marker])).expect("start");
    let needle = format!("sleep\0{marker}");
    eventually("the program's start", || !processes_with(&needle).is_empty());
    let agent = rustix::process::Pid::from_raw(running.id() as i32).expect("pid");
    rustix::process::kill_process(agent, rustix::process::Signal::KILL).expect("killing");
    assert_eq!(running.wait().expect_err("no exit status").code(), "CM-ENCL-0033");
    eventually("the program's end", || processes_with(&needle).is_empty());
}

#[test]
fn the_caller_can_end_as_the_program_did() {
    use std::os::unix::process::ExitStatusExt as _;
    let status = child("killed", None).status().expect("running");
    assert_eq!(status.signal(), Some(15));
}

fn namespace_lives(wanted: &std::path::Path) -> bool {
    std::fs::read_dir("/proc").expect("/proc").flatten().any(|entry| {
        std::fs::read_link(entry.path().join("ns/mnt")).is_ok_and(|found| found == wanted)
    })
}

#[test]
#[ignore = "played by children of other tests"]
fn role_of_a_child_process() {
    match std::env::var("CASEMATE_TEST_ROLE").as_deref() {
        Ok("ordinary") => {
            let script = "echo fine > /tmp/x; read x < /tmp/x; (echo no > /x) 2>/dev/null;
                echo uid $(id -u) wrote $x; kill -3 $$";
            let output = shell(&tools(&["/usr/bin/id"]), script);
            std::io::stdout().lock().write_all(output.stdout.as_bytes()).expect("writing");
            assert_eq!(output.exit, Exit::Signal(3), "{output:?}");
        }
        Ok("sleeper") => {
            let marker = std::env::var("CASEMATE_TEST_MARKER").expect("marker");
            let _ = run(options("", &["sleep", &marker]));
        }
        Ok("killed") => end_like(shell("", "kill -15 $$").exit),
        _ => {}
    }
}

#[test]
fn runs_compilers_static_programs_and_threads() {
    let dir = tempfile::tempdir().expect("directory");
    let source = dir.path().join("hello.c");
    let code = "#include <stdio.h>\n#include <pthread.h>\n#include <math.h>\n\
        static void *f(void *x) { *(int *)x = 42; return 0; }\n\
        int main(int n, char **v) { int x = 0; pthread_t t; pthread_create(&t, 0, f, &x);\n\
        pthread_join(t, 0); printf(\"%d %s %.1f\\n\", x, v[n - 1], sqrt(n)); return 0; }\n";
    std::fs::write(&source, code).expect("writing");
    // A compiler in an enclave, its parts named as trusted files.
    let text = format!(
        "[files]\ntrusted = [{source:?}, \"/usr/lib/gcc/x86_64-linux-gnu/**\", \"/usr/include/**\", \
         \"/usr/bin/as\", \"/usr/bin/ld\", \"/usr/lib/x86_64-linux-gnu/*.{{o,a}}\", \
         \"/usr/lib/x86_64-linux-gnu/lib{{c,m,gcc_s,mvec}}.so*\"]\n\
         [[volume]]\npath = \"/out\"\nkind = \"untrusted\"\nsource = {:?}\n",
        dir.path().join("out")
    );
    std::fs::create_dir(dir.path().join("out")).expect("mkdir");
    let source = source.to_str().expect("utf-8");
    for kind in ["-static", "-O2"] {
        let compiler =
            run(options(&text, &["/usr/bin/gcc", kind, "-o", "/out/hello", source, "-lm"]));
        assert_eq!(compiler.exit, Exit::Code(0), "{compiler:?}");
        let program = dir.path().join("out/hello");
        let output = run(options("", &[program.to_str().expect("utf-8"), "yes"]));
        assert_eq!(output.stdout, "42 yes 1.4\n", "{output:?}");
    }
}

#[test]
fn runs_an_interpreter_with_its_modules() {
    let Some(python) = ["/usr/bin/python3", "/usr/local/bin/python3"]
        .into_iter()
        .find(|p| std::path::Path::new(p).exists())
    else {
        return; // Not every machine has one.
    };
    let text = "[files]\ntrusted = [\"/usr/lib/python3*/**\"]\n";
    let script = "import json, hashlib, subprocess, threading, sqlite3; print(json.dumps([1, 2]))";
    let output = run(options(text, &[python, "-c", script]));
    assert_eq!(output.stdout, "[1, 2]\n", "{output:?}");
}

#[test]
fn finds_libraries_where_only_the_linker_s_cache_would() {
    let dir = tempfile::tempdir().expect("directory");
    let compile = |arguments: &[&str], code: &str| {
        let source = dir.path().join("x.c");
        std::fs::write(&source, code).expect("writing");
        let status = std::process::Command::new("gcc")
            .args(arguments)
            .arg(source)
            .current_dir(dir.path())
            .args(arguments.iter().filter(|a| a.starts_with("-l")))
            .status()
            .expect("gcc");
        assert!(status.success());
    };
    std::fs::create_dir(dir.path().join("lib")).expect("mkdir");
    compile(&["-shared", "-fPIC", "-o", "lib/libseven.so"], "int seven(void) { return 7; }");
    let main = "int seven(void); int main(void) { return seven(); }";
    let program = dir.path().join("main");
    let path = program.to_str().expect("utf-8");
    compile(&["-o", "main", "-Wl,-rpath,$ORIGIN/lib", "-Llib", "-lseven"], main);
    assert_eq!(run(options("", &[path])).exit, Exit::Code(7));
    compile(&["-o", "main", "-Llib", "-lseven"], main);
    assert_eq!(
        measure(&Program::new(spec(""), [path])).expect_err("not found").code(),
        "CM-ENCL-0014"
    );
    let text = format!("[enclave]\nenv = {{ LD_LIBRARY_PATH = {:?} }}\n", dir.path().join("lib"));
    assert_eq!(run(options(&text, &[path])).exit, Exit::Code(7));
}

#[test]
fn the_build_observer_keeps_what_it_needs() {
    let text = tools(&["/bin/grep", "/bin/mount", "/usr/bin/readlink"]);
    let script = "grep CapEff /proc/self/status; mount -t tmpfs none /tmp && echo mounted;
        readlink /proc/self/ns/net /proc/self/fd/$CASEMATE_HOST_NETNS";
    let mut wanted = options(&text, &["/bin/sh", "-c", script]);
    wanted.program.observer = true;
    if !is_root() {
        assert_eq!(start(wanted).expect_err("needs root").code(), "CM-ENCL-0040");
        return;
    }
    let output = run(wanted);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let kept = u64::from_str_radix(lines[0].rsplit('\t').next().expect("hex"), 16).expect("hex");
    assert!(kept & (1 << 21) != 0, "no CAP_SYS_ADMIN in {kept:x}");
    assert!(kept & (1 << 16) == 0, "CAP_SYS_MODULE in {kept:x}");
    assert_eq!(lines[1], "mounted", "{output:?}");
    let host = std::fs::read_link("/proc/self/ns/net").expect("namespace");
    assert_ne!(lines[2], host.to_str().expect("utf-8"));
    assert_eq!(lines[3], host.to_str().expect("utf-8"));
}

#[test]
fn the_probe_finds_what_this_machine_uses() {
    let findings = casemate_enclave::probe();
    assert!(findings.iter().any(|f| f.name == "namespaces"));
    for finding in findings.iter().filter(|f| f.needed) {
        assert!(finding.ok, "enclaves run here, but: {finding:?}");
    }
    assert!(findings.iter().all(|f| f.ok == f.fix.is_none()));
}

#[test]
fn measures_the_same_inside_and_outside() {
    let options = options(&tools(&["/bin/ls"]), &["/bin/sh", "-c", "exit 0"]);
    let outside = measure(&options.program).expect("measure");
    let running = start(options).expect("start");
    assert_eq!(running.measurement(), outside.measurement);
    assert_eq!(*running.workload(), outside.workload);
    running.wait().expect("wait");
}

#[test]
fn one_changed_byte_is_another_measurement_and_named() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("program");
    let program = || Program::new(spec(""), [path.to_str().expect("utf-8")]);
    std::fs::copy("/bin/true", &path).expect("copying");
    let before = measure(&program()).expect("measure");
    assert_eq!(before.measurement, measure(&program()).expect("measure").measurement);
    let mut bytes = std::fs::read(&path).expect("reading");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).expect("writing");
    let after = measure(&program()).expect("measure");
    assert_ne!(before.measurement, after.measurement);
    let differences = before.compare(&after);
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(differences[0].what, path.to_str().expect("utf-8"));
}
