//! Each attack refused with its own code, beside the honest twin.

use std::fs;
use std::io::{BufRead, BufReader, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use casemate_provenance::build::Event;
use rustix::thread::CapabilitySet;

use crate::world::{World, class_at, privileged, root_of_the_step, script};

#[test]
fn refuses_to_build_without_the_privilege_to_observe() {
    let world = World::c_project();
    if nix::unistd::geteuid().is_root() {
        let mut sets = rustix::thread::capabilities(None).expect("capabilities");
        sets.effective.remove(CapabilitySet::SYS_ADMIN);
        rustix::thread::set_capabilities(None, sets).expect("dropping one, in this thread only");
    }
    let (code, text) = world.run().refusal();
    assert_eq!(code, "CM-BUILD-0001");
    assert!(text.contains("CAP_SYS_ADMIN"), "{text}");
}

#[test]
fn refuses_a_replaced_tool_on_the_path() {
    if !privileged() {
        return;
    }
    let mut world = World::c_project();
    let host = world.private_host();
    let output = world.run().output();
    assert_eq!(class_at(&output, "/usr/bin/make"), "make");
    script(&host.join("usr/bin/make"), "exec /usr/bin/gcc -o bin/hello src/*.c");
    let (code, text) = world.run().refusal();
    assert_eq!(code, "CM-BUILD-0023");
    assert!(text.contains("/usr/bin/make") && text.contains("package make"), "{text}");
}

#[test]
fn refuses_a_replaced_header() {
    if !privileged() {
        return;
    }
    let mut world = World::c_project();
    let host = world.private_host();
    let header = host.join("usr/include/stdio.h");
    let honest = fs::read(&header).expect("header");
    fs::write(&header, [honest.as_slice(), b"\n#define printf(...) 0\n"].concat())
        .expect("overlay");
    let (code, text) = world.run().refusal();
    assert_eq!(code, "CM-BUILD-0023");
    assert!(text.contains("libc6-dev") && text.contains("cc1"), "{text}");
    fs::write(&header, honest).expect("overlay");
    world.run().output();
}

#[test]
fn refuses_an_undeclared_file() {
    if !privileged() {
        return;
    }
    let mut world = World::shell(
        &[("x", "")],
        "test -e /usr/local/share/blob; cat x > out; cat /usr/local/share/blob >> out",
    );
    let host = world.private_host();
    fs::create_dir_all(host.join("usr/local/share")).expect("overlay");
    fs::write(host.join("usr/local/share/blob"), "payload").expect("overlay");
    let (code, text) = world.run().refusal();
    assert_eq!(code, "CM-BUILD-0030");
    assert!(text.contains("/usr/local/share/blob") && text.contains("cat"), "{text}");
    world.request.build.steps[0][2] = "test -e /usr/local/share/blob; cat x > out".into();
    world.run().output();
}

#[test]
fn refuses_a_wrapper_in_usr_local_bin_even_if_called_by_name() {
    if !privileged() {
        return;
    }
    let mut world = World::shell(&[("x", "")], "/usr/local/bin/cc --version > out");
    let host = world.private_host();
    script(&host.join("usr/local/bin/cc"), "exec /usr/bin/gcc \"$@\"");
    assert_eq!(world.run().refusal().0, "CM-BUILD-0030");
    world.request.build.steps[0][2] = "cc --version > out".into();
    world.run().output();
}

#[test]
fn refuses_a_package_that_is_not_declared_and_names_it() {
    if !privileged() {
        return;
    }
    let world = World::shell(&[("x", "")], "python3.11 -c 1 > out");
    let (code, text) = world.run().refusal();
    assert_eq!(code, "CM-BUILD-0024");
    assert!(text.contains("python3.11-minimal"), "{text}");
    world.toolchain(&["python3.11-minimal"]).run().output();
}

#[test]
fn refuses_a_toolchain_that_is_missing_or_pinned_otherwise() {
    if !privileged() {
        return;
    }
    let world = World::c_project().toolchain(&["no-such-compiler"]);
    assert_eq!(world.run().refusal().0, "CM-BUILD-0020");
    let world = World::c_project().toolchain(&["make=0.1"]);
    let (code, text) = world.run().refusal();
    assert_eq!(code, "CM-BUILD-0021");
    let version = text.rsplit(' ').next().expect("the installed version").to_owned();
    World::c_project().toolchain(&["gcc", "libc6-dev", &format!("make={version}")]).run().output();
}

#[test]
fn refuses_the_network_in_a_build_step() {
    if !privileged() {
        return;
    }
    let world =
        World::shell(&[("x", "")], "bash -c 'exec 3<>/dev/tcp/192.0.2.1/80; cat <&3 > out'");
    let (code, text) = world.run().refusal();
    assert_eq!(code, "CM-BUILD-0041");
    assert!(text.contains("192.0.2.1"), "{text}");
    let world = World::shell(&[("x", "")], "bash -c 'cat </dev/tcp/localhost/80 > out'");
    assert_eq!(world.run().refusal().0, "CM-BUILD-0041");
    World::shell(&[("x", "")], "cat x > out").run().output();
}

#[test]
fn refuses_a_name_look_up_in_a_build_step() {
    if !privileged() {
        return;
    }
    let script = "import socket; socket.getaddrinfo('example.org', 80)";
    let world = World::new(&[("x", "")], &[&["python3.11", "-c", script]], &["x"])
        .toolchain(&["python3.11"]);
    let (code, text) = world.run().refusal();
    assert_eq!(code, "CM-BUILD-0041", "{text}");
}

/// Calls `attack` once, when the step says it is ready.
fn when_ready(world: &World, attack: &dyn Fn()) -> crate::world::Told {
    let done = AtomicBool::new(false);
    world.run_with(&|event| {
        if matches!(event, Event::Output { text } if text.contains("READY"))
            && !done.swap(true, Ordering::SeqCst)
        {
            attack();
        }
    })
}

#[test]
fn refuses_source_opened_from_outside_during_the_step() {
    if !privileged() {
        return;
    }
    let world =
        World::shell(&[("opened.c", "int x;\n")], "echo READY; sleep 1; cat opened.c > out");
    let outcome = Mutex::new(None);
    let told = when_ready(&world, &|| {
        let root = root_of_the_step("opened.c").expect("the step runs");
        *outcome.lock().expect("lock") = Some(
            fs::write(root.join("build/source/opened.c"), "int evil;\n").map_err(|e| e.kind()),
        );
    });
    assert_eq!(told.refusal().0, "CM-BUILD-0012");
    let outcome = outcome.into_inner().expect("lock").expect("the attack took place");
    assert_eq!(outcome, Err(std::io::ErrorKind::PermissionDenied));
    when_ready(&world, &|| {}).output();
}

#[test]
fn refuses_source_swapped_from_outside_after_it_was_hashed() {
    if !privileged() {
        return;
    }
    // Known files raise no event when opened; the write does.
    let world = World::shell(
        &[("known.c", "int x;\n")],
        "cat known.c > out; echo READY; sleep 1; cat known.c > out",
    );
    let told = when_ready(&world, &|| {
        let root = root_of_the_step("known.c").expect("the step runs");
        let file = root.join("build/source/known.c");
        let mut file =
            fs::File::options().write(true).open(file).expect("known files raise no event");
        file.write_all(b"int y;\n").and_then(|()| file.rewind()).expect("swapped");
        file.write_all(b"int x;\n").expect("put back");
    });
    let (code, text) = told.refusal();
    assert_eq!(code, "CM-BUILD-0011", "{text}");
    when_ready(&world, &|| {}).output();
}

#[test]
fn refuses_source_renamed_from_outside() {
    if !privileged() {
        return;
    }
    let world = World::shell(
        &[("ren-a.c", "int a;\n"), ("ren-b.c", "int b;\n")],
        "echo READY; sleep 1; cat ren-a.c > out",
    );
    let told = when_ready(&world, &|| {
        let source = root_of_the_step("ren-a.c").expect("the step runs").join("build/source");
        fs::rename(source.join("ren-b.c"), source.join("ren-a.c"))
            .expect("renamed without an open");
    });
    assert_eq!(told.refusal().0, "CM-BUILD-0011");
}

/// A build that reads `stdio.h` before and after a pause in which it can be attacked.
fn pausing_compile(world: &mut World) -> PathBuf {
    let compile = "gcc -c -o a.o a.c; echo READY; sleep 1; gcc -c -o out a.c";
    *world = World::shell(
        &[("a.c", "#include <stdio.h>\nint main(void) { return puts(\"x\"); }\n")],
        compile,
    );
    world.private_host().join("usr/include/stdio.h")
}

#[test]
fn refuses_a_header_swapped_while_the_compiler_runs_and_put_back() {
    if !privileged() {
        return;
    }
    let mut world = World::c_project();
    let header = pausing_compile(&mut world);
    // The overlay's own copy first, so that the attack writes to the inode that was hashed.
    let honest = fs::read(&header).expect("header");
    fs::write(&header, &honest).expect("overlay");
    when_ready(&world, &|| {}).output();
    let told = when_ready(&world, &|| {
        fs::write(&header, b"#define puts(x) 0\n")
            .and_then(|()| fs::write(&header, &honest))
            .expect("swap and restore");
    });
    let (code, text) = told.refusal();
    assert_eq!(code, "CM-BUILD-0026");
    assert!(text.contains("/usr/include/stdio.h"), "{text}");
}

#[test]
fn refuses_a_header_swapped_by_rename_while_the_compiler_runs() {
    if !privileged() {
        return;
    }
    let mut world = World::c_project();
    let header = pausing_compile(&mut world);
    let (evil, kept) = (header.with_file_name("evil.h"), header.with_file_name("kept.h"));
    fs::write(&evil, b"#define puts(x) 0\n").expect("overlay");
    let told = when_ready(&world, &|| {
        fs::rename(&header, &kept).and_then(|()| fs::rename(&evil, &header)).expect("swap");
    });
    let (code, text) = told.refusal();
    assert_eq!(code, "CM-BUILD-0023");
    assert!(text.contains("/usr/include/stdio.h"), "{text}");
}

#[test]
fn refuses_a_header_that_someone_holds_open_for_writing() {
    if !privileged() {
        return;
    }
    let mut world = World::c_project();
    let host = world.private_host();
    let writer =
        fs::File::options().append(true).open(host.join("usr/include/stdio.h")).expect("overlay");
    assert_eq!(world.run().refusal().0, "CM-BUILD-0026");
    drop(writer);
    world.run().output();
}

#[test]
fn refuses_a_tree_that_is_not_the_verified_one() {
    if !privileged() {
        return;
    }
    let world = World::c_project();
    let main = world.request.source.root.join("src/main.c");
    let honest = fs::read(&main).expect("source");
    for attack in ["changed", "missing", "link", "extra"] {
        let extra = world.request.source.root.join("extra.c");
        match attack {
            "changed" => fs::write(&main, "int main(void) { return 1; }\n").expect("write"),
            "missing" => fs::remove_file(&main).expect("remove"),
            "link" => std::os::unix::fs::symlink("greet.c", &main).expect("link"),
            _ => fs::write(&extra, "").expect("write"),
        }
        let (code, text) = world.run().refusal();
        assert_eq!(code, "CM-BUILD-0010", "{attack}: {text}");
        let _ = fs::remove_file(&extra);
        let _ = fs::remove_file(&main);
        if attack != "missing" {
            fs::write(&main, &honest).expect("restore");
        }
    }
    fs::write(&main, &honest).expect("restore");
    world.run().output();
}

#[test]
fn refuses_artifacts_that_are_missing_or_links() {
    if !privileged() {
        return;
    }
    let world = World::shell(&[("x", "")], "true");
    assert_eq!(world.run().refusal().0, "CM-BUILD-0050");
    for step in ["ln -s /etc/passwd out", "ln -s x out", "mkdir out", "mkfifo out"] {
        assert_eq!(World::shell(&[("x", "")], step).run().refusal().0, "CM-BUILD-0051", "{step}");
    }
    let mut world = World::shell(&[("x", "")], "mkdir d; touch d/out; ln -s d l");
    world.request.build.artifacts = vec!["l/out".into()];
    assert_eq!(world.run().refusal().0, "CM-BUILD-0051");
    world.request.build.artifacts = vec!["d/out".into()];
    world.run().output();
}

#[test]
fn a_failing_step_says_which_how_and_its_last_words() {
    if !privileged() {
        return;
    }
    let (code, text) =
        World::shell(&[("x", "")], "echo first; echo last words >&2; exit 7").run().refusal();
    assert_eq!(code, "CM-BUILD-0040");
    assert!(text.contains("status 7") && text.contains("last words"), "{text}");
    let missing = World::new(&[("x", "")], &[&["no-such-program"]], &["x"]);
    let (code, text) = missing.run().refusal();
    assert_eq!(code, "CM-BUILD-0040");
    assert!(text.contains("could not be started"), "{text}");
}

/// Processes whose command line names this world's directory or that sleep for this long.
fn alive(mark: &str) -> bool {
    fs::read_dir("/proc").expect("proc").filter_map(Result::ok).any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).any(|word| word == mark.as_bytes())
    })
}

fn appears(mark: &str) -> bool {
    within_seconds(|| alive(mark))
}

fn gone(mark: &str) -> bool {
    within_seconds(|| !alive(mark))
}

fn within_seconds(come_true: impl Fn() -> bool) -> bool {
    (0..250).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        come_true()
    })
}

/// The ancestor of a step's process that is number 1 of the build's own pid namespace.
fn observer_of(root: &Path) -> i32 {
    let mut pid: i32 =
        root.parent().and_then(|p| p.file_name()?.to_str()?.parse().ok()).expect("pid");
    let depth = |pid: i32| status_field(pid, "NSpid:").len();
    let builder = depth(std::process::id().cast_signed());
    while depth(pid) != builder + 1 {
        pid = status_field(pid, "PPid:")[0].parse().expect("parent");
    }
    pid
}

fn status_field(pid: i32, name: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find(|l| l.starts_with(name)).expect("field");
    line.split_whitespace().skip(1).map(str::to_owned).collect()
}

#[test]
fn a_killed_observer_fails_the_build_and_leaves_nothing() {
    if !privileged() {
        return;
    }
    let world = World::shell(&[("killed-observer", "")], "echo READY; sleep 7654321; touch out");
    let told = when_ready(&world, &|| {
        assert!(appears("7654321"), "the step runs");
        let pid = observer_of(&root_of_the_step("killed-observer").expect("the step runs"));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
            .expect("kill");
    });
    assert_eq!(told.refusal().0, "CM-BUILD-0004");
    assert!(gone("7654321"), "the step outlived its observer");
}

#[test]
fn everything_ends_when_the_process_that_asked_for_the_build_does() {
    if !privileged() {
        return;
    }
    let world = World::shell(&[("x", "")], "echo READY; sleep 7654322");
    let mut text = serde_json::to_vec(&world.request).expect("request");
    text.push(b'\n');
    let mut warden = Command::new("unshare")
        .args([
            "--pid",
            "--fork",
            "--kill-child",
            env!("CARGO_BIN_EXE_casemate-build-helper"),
            "warden",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the observer");
    let mut input = warden.stdin.take().expect("pipe");
    input.write_all(&text).expect("request");
    let mut lines = BufReader::new(warden.stdout.take().expect("pipe")).lines();
    assert!(lines.any(|line| line.is_ok_and(|l| l.contains("READY"))));
    assert!(appears("7654322"));
    drop(input);
    assert!(gone("7654322"), "the step outlived the builder");
    let _ = warden.wait();
}

#[test]
fn leaves_no_mount_behind() {
    if !privileged() {
        return;
    }
    World::c_project().run().output();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains("casemate"), "{mounts}");
}
