//! Source trees, requests and hosts for build tests.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use casemate_provenance::build::{
    BuildError, Class, Event, Helper, Output, Request, SourceFile, SourceMode, SourceTree, run,
};
use casemate_spec::spec::Build;
use casemate_spec::{Coded, Sha256};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

/// Whether this process can observe at all; without it only the refusal can be tested.
pub fn privileged() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: observing a build needs root; the refusal itself is tested");
    }
    root
}

/// A directory with a source tree and one for artifacts.
pub struct World {
    _dir: tempfile::TempDir,
    pub request: Request,
}

/// A build's outcome with what it told.
pub struct Told {
    pub result: Result<Output, BuildError>,
    pub events: Vec<Event>,
}

impl Told {
    pub fn output(self) -> Output {
        let printed = self.printed();
        self.result.unwrap_or_else(|e| panic!("{}: {e}\n{printed}", e.code()))
    }

    /// The code of the refusal, and its text.
    pub fn refusal(self) -> (&'static str, String) {
        let error = self.result.expect_err("the build should have been refused");
        (error.code(), error.to_string())
    }

    pub fn printed(&self) -> String {
        let text = |e: &Event| match e {
            Event::Output { text } => Some(text.clone()),
            _ => None,
        };
        self.events.iter().filter_map(text).collect()
    }
}

impl World {
    /// A source tree of `files` and a build of `steps` with gcc and make.
    pub fn new(files: &[(&str, &str)], steps: &[&[&str]], artifacts: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (source, output) = (dir.path().join("source"), dir.path().join("out"));
        fs::create_dir(&source).expect("source directory");
        fs::create_dir(&output).expect("output directory");
        let request = Request {
            source: SourceTree { root: source, files: BTreeMap::new() },
            host_root: PathBuf::from("/"),
            build: Build {
                fetch: Vec::new(),
                steps: owned(steps),
                artifacts: artifacts.iter().map(|a| (*a).to_owned()).collect(),
                toolchain: vec!["gcc".into(), "make".into(), "libc6-dev".into()],
                env: BTreeMap::new(),
            },
            source_date_epoch: 1_700_000_000,
            resolver: PathBuf::from("/etc/resolv.conf"),
            output,
            helper: Helper {
                program: PathBuf::from(env!("CARGO_BIN_EXE_casemate-build-helper")),
                arguments: Vec::new(),
            },
        };
        let mut world = Self { _dir: dir, request };
        for (path, text) in files {
            world.add(path, text);
        }
        world
    }

    /// A step of the shell.
    pub fn shell(files: &[(&str, &str)], script: &str) -> Self {
        Self::new(files, &[&["sh", "-ec", script]], &["out"])
    }

    /// A small real C project.
    pub fn c_project() -> Self {
        Self::new(
            &[
                (
                    "Makefile",
                    "bin/hello: src/main.o src/greet.o\n\tmkdir -p bin\n\t$(CC) -o $@ $^\n",
                ),
                (
                    "src/main.c",
                    "#include \"greet.h\"\nint main(void) { greet(\"world\"); return 0; }\n",
                ),
                ("src/greet.h", "void greet(const char *);\n"),
                (
                    "src/greet.c",
                    "#include <stdio.h>\n#include \"greet.h\"\nvoid greet(const char *n) { printf(\"hello %s\\n\", n); }\n",
                ),
            ],
            &[&["make", "-j2"]],
            &["bin/hello"],
        )
    }

    pub fn add(&mut self, path: &str, text: &str) {
        let file = self.request.source.root.join(path);
        fs::create_dir_all(file.parent().expect("inside")).expect("directories");
        fs::write(&file, text).expect("source file");
        let entry = SourceFile { sha256: Sha256::of(text.as_bytes()), mode: SourceMode::File };
        self.request.source.files.insert(path.into(), entry);
    }

    pub fn toolchain(mut self, packages: &[&str]) -> Self {
        self.request.build.toolchain = packages.iter().map(|p| (*p).to_owned()).collect();
        self
    }

    pub fn run(&self) -> Told {
        self.run_with(&|_| {})
    }

    /// Runs the build; `at` is called with each event while the build goes on.
    pub fn run_with(&self, at: &dyn Fn(&Event)) -> Told {
        let events = Mutex::new(Vec::new());
        let result = run(&self.request, &|event| {
            at(&event);
            events.lock().expect("events").push(event);
        });
        Told { result, events: events.into_inner().expect("events") }
    }

    /// Gives the build a host of its own: this host's `/usr` under an overlay, so that tools can be
    /// replaced without touching the real ones. The calling thread gets a mount namespace for it.
    ///
    /// Nothing real is ever mounted below a directory that a test removes: the overlay lies on a
    /// tmpfs over `/mnt` that only this thread sees, and the package database is reached by links.
    pub fn private_host(&mut self) -> PathBuf {
        unshare(CloneFlags::CLONE_NEWNS).expect("mount namespace");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .expect("private mounts");
        mount("test", "/mnt", "tmpfs", MountFlags::empty(), None).expect("tmpfs");
        let host = PathBuf::from("/mnt/host");
        for directory in ["upper", "work", "host/usr", "host/var/lib"] {
            fs::create_dir_all(Path::new("/mnt").join(directory)).expect("directory");
        }
        let layers = c"lowerdir=/usr,upperdir=/mnt/upper,workdir=/mnt/work";
        mount("test", host.join("usr"), "overlay", MountFlags::empty(), Some(layers))
            .expect("overlay");
        let device = |path: &Path| fs::metadata(path).expect("directory").dev();
        assert_ne!(
            device(&host.join("usr")),
            device(Path::new("/usr")),
            "writes must not reach the real /usr"
        );
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, host.join(name)).expect("link")
        };
        link("/var/lib/dpkg", "var/lib/dpkg");
        link("/etc", "etc");
        for name in ["bin", "sbin", "lib", "lib64"] {
            link(&format!("usr/{name}"), name);
        }
        self.request.host_root = host.clone();
        host
    }
}

/// Writes an executable shell script.
pub fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("parent")).expect("directories");
    let _ = fs::remove_file(path);
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mode");
}

pub fn owned(commands: &[&[&str]]) -> Vec<Vec<String>> {
    commands.iter().map(|c| c.iter().map(|w| (*w).to_owned()).collect()).collect()
}

/// The package of the material at `path`, or its class.
pub fn class_at(output: &Output, path: &str) -> String {
    let class = output.materials.iter().find(|m| m.path == path).map(|m| m.class.clone());
    match class {
        Some(Class::Toolchain { package, .. }) => package,
        Some(other) => format!("{other:?}"),
        None => "absent".into(),
    }
}

/// The root of a process of the running step, as root outside the build can reach it.
pub fn root_of_the_step(marker: &str) -> Option<PathBuf> {
    fs::read_dir("/proc").ok()?.filter_map(Result::ok).find_map(|entry| {
        let root = entry.path().join("root");
        root.join("build/source").join(marker).symlink_metadata().is_ok().then_some(root)
    })
}
