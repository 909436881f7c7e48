//! What works, and what it leaves in the record.

use std::io::Read;
use std::net::TcpListener;
use std::process::Command;

use casemate_provenance::build::{Class, Event};

use crate::world::{World, class_at, owned, privileged};

#[test]
fn builds_a_c_project_and_names_every_input() {
    if !privileged() {
        return;
    }
    let world = World::c_project();
    let output = world.run().output();
    let hello = world.request.output.join("hello");
    let printed = Command::new(&hello).output().expect("the artifact runs").stdout;
    assert_eq!(printed, b"hello world\n");
    assert_eq!(output.artifacts[0].name, "hello");
    assert!(output.artifacts[0].executable);
    let bytes = std::fs::read(&hello).expect("artifact");
    assert_eq!(output.artifacts[0].sha256, casemate_spec::Sha256::of(&bytes));
    assert_eq!(class_at(&output, "/usr/include/stdio.h"), "libc6-dev");
    assert_eq!(class_at(&output, "/usr/bin/make"), "make");
    assert_eq!(class_at(&output, "/usr/bin/mkdir"), "coreutils");
    assert_eq!(class_at(&output, "/build/source/src/main.c"), "Source");
    assert_eq!(class_at(&output, "/build/source/src/greet.h"), "Source");
    assert_eq!(class_at(&output, "/build/source/src/main.o"), "Generated");
    let cc1 = output.materials.iter().find(|m| m.path.ends_with("/cc1")).expect("the compiler");
    let Class::Toolchain { package, version, purl, .. } = &cc1.class else {
        panic!("{:?}", cc1.class)
    };
    assert!(package.starts_with("cpp-"), "{package}");
    assert!(!version.is_empty() && purl.starts_with("pkg:deb/debian/cpp-"), "{purl}");
    let on_disk = std::fs::read(&cc1.path).expect("the real compiler");
    assert_eq!(cc1.sha256, casemate_spec::Sha256::of(&on_disk));
    assert!(output.started > 1_700_000_000 && output.finished >= output.started);
}

#[test]
fn the_same_build_gives_the_same_artifact_twice() {
    if !privileged() {
        return;
    }
    let digest = || World::c_project().run().output().artifacts[0].sha256;
    assert_eq!(digest(), digest());
}

#[test]
fn builds_with_python_and_perl() {
    if !privileged() {
        return;
    }
    let world = World::new(
        &[
            ("gen.py", "import json, hashlib\nopen('a', 'w').write(json.dumps({'x': hashlib.sha256(b'').hexdigest()}))\n"),
            ("gen.pl", "use strict; use File::Spec; open my $f, '>', 'b'; print $f File::Spec->catfile('x', 'y'), \"\\n\";\n"),
        ],
        &[&["python3.11", "gen.py"], &["perl", "gen.pl"], &["python3.11", "gen.py"]],
        &["a", "b"],
    )
    .toolchain(&["python3.11", "perl"]);
    let output = world.run().output();
    assert_eq!(std::fs::read_to_string(world.request.output.join("b")).expect("b"), "x/y\n");
    assert_eq!(class_at(&output, "/usr/lib/python3.11/json/__init__.py"), "libpython3.11-stdlib");
    assert!(
        output.materials.iter().all(|m| !m.path.starts_with("/usr/") || !m.path.ends_with(".pyc"))
    );
    assert!(output.withheld.iter().all(|p| p.starts_with("/usr/")), "{:?}", output.withheld);
}

#[test]
fn a_step_has_no_privileges_no_network_and_a_plain_environment() {
    if !privileged() {
        return;
    }
    let mut world = World::shell(
        &[("x", "")],
        "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status; id -u; env | sort; cat /proc/net/dev; \
         ls /; ls /etc; hostname; unshare -U true && echo escaped; touch /usr/x /etc/x 2>/dev/null && echo writable; \
         echo $$; touch out",
    );
    world.request.build.env.insert("CFLAGS".into(), "-O1".into());
    world.request.build.toolchain.push("hostname".into());
    let told = world.run();
    let printed = told.printed();
    let _ = told.output();
    for expected in [
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapInh:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "\n65530\n",
        "\nCFLAGS=-O1\n",
        "\nHOME=/tmp\nLANG=C.UTF-8\n",
        "\nPATH=/usr/bin:/bin\n",
        "\nSOURCE_DATE_EPOCH=1700000000\n",
        "\nbuild\n",
        "\n2\n",
    ] {
        assert!(printed.contains(expected), "no {expected:?} in\n{printed}");
    }
    let interfaces: Vec<_> =
        printed.lines().filter(|l| l.contains(": ") && l.contains(" 0 ")).collect();
    assert!(interfaces.iter().all(|l| l.trim_start().starts_with("lo:")), "{interfaces:?}");
    assert!(!printed.contains("escaped") && !printed.contains("writable"), "{printed}");
    assert!(!printed.contains("ld.so.cache") && !printed.contains("shadow"), "{printed}");
}

#[test]
fn what_a_fetch_step_leaves_behind_becomes_a_material() {
    if !privileged() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("address").port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the step connects");
        std::io::Write::write_all(&mut stream, b"downloaded\n").expect("sending");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut [0; 16]);
    });
    let download = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3 >vendor.txt; mkdir -p /tmp/cache; echo c >/tmp/cache/c"
    );
    let mut world = World::shell(&[("x", "x\n")], "cat x vendor.txt /tmp/cache/c > out");
    world.request.build.fetch = owned(&[&["bash", "-ec", &download]]);
    let output = world.run().output();
    server.join().expect("server");
    assert_eq!(
        std::fs::read_to_string(world.request.output.join("out")).expect("out"),
        "x\ndownloaded\nc\n"
    );
    assert_eq!(class_at(&output, "/build/source/vendor.txt"), "Fetched");
    assert_eq!(class_at(&output, "/tmp/cache/c"), "Fetched");
    assert_eq!(class_at(&output, "/build/source/x"), "Source");
    assert!(output.commands[0].fetch && !output.commands[1].fetch);
}

#[test]
fn pipes_background_processes_and_deleted_files_are_no_obstacle() {
    if !privileged() {
        return;
    }
    let world = World::shell(
        &[("in", "text\n")],
        "mkfifo p; (cat in > p) & cat p > a; wait; exec 4<a; rm a; cat <&4 > out; cat /proc/self/fd/4 >> out; \
         sleep 1000 & (setsid sleep 1000 &) ; echo x > /dev/null; head -c 8 /dev/urandom > r; sed -i s/text/TEXT/ in; cat in >> out",
    );
    let output = world.run().output();
    assert_eq!(
        std::fs::read_to_string(world.request.output.join("out")).expect("out"),
        "text\ntext\nTEXT\n"
    );
    assert!(output.materials.iter().all(|m| !m.path.starts_with("/dev/")));
    let classes: Vec<_> = output
        .materials
        .iter()
        .filter(|m| m.path == "/build/source/in")
        .map(|m| m.class.clone())
        .collect();
    assert!(classes.contains(&Class::Source) && classes.contains(&Class::Generated), "{classes:?}");
}

#[test]
fn a_step_that_tries_the_network_in_vain_is_reported() {
    if !privileged() {
        return;
    }
    let world =
        World::shell(&[("x", "")], "bash -c 'exec 3<>/dev/tcp/192.0.2.1/80' || true; touch out");
    let told = world.run();
    assert!(told.events.iter().any(|e| matches!(e, Event::NetworkAttempts { attempts: 1.., .. })));
    assert!(told.output().commands[0].network_attempts > 0);
}
