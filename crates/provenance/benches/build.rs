//! An observed build beside the same build run natively, alternating in one run.
//!
//! Prints the ratios of processor time (user and system, of all processes) and of wall time, each
//! as the median over the rounds. The project is a generated one of 35 C files. Needs root.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use casemate_provenance::build::{Helper, Request, SourceFile, SourceMode, SourceTree, run};
use casemate_spec::Sha256;
use casemate_spec::spec::Build;
use nix::sys::resource::{UsageWho, getrusage};

const FILES: usize = 35;

/// Functions in each file: about 0.15 s of compiler time, as ordinary C files need.
const FUNCTIONS: usize = 12;

fn main() {
    if !nix::unistd::geteuid().is_root() {
        println!("build: skipped, observing a build needs root");
        return;
    }
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(7);
    let files = project();
    let (mut cpu, mut wall, mut materials) = (Vec::new(), Vec::new(), 0);
    let (mut least_native, mut least_traced) = (f64::MAX, f64::MAX);
    // One unmeasured round fills the page cache for both.
    for round in 0..=rounds {
        let native = measure(|| native(&files));
        let mut seen = 0;
        let traced = measure(|| seen = observed(&files));
        if round > 0 {
            cpu.push(traced.0 / native.0);
            wall.push(traced.1 / native.1);
            materials = seen;
            least_native = least_native.min(native.0);
            least_traced = least_traced.min(traced.0);
            println!(
                "round {round}: native {:.3} s cpu {:.3} s wall, observed {:.3} s cpu {:.3} s wall",
                native.0, native.1, traced.0, traced.1
            );
        }
    }
    println!("build: {FILES} C files, {materials} materials, {rounds} rounds, medians");
    println!("build: observed / native cpu  {:.3}", median(&mut cpu));
    println!("build: observed / native wall {:.3}", median(&mut wall));
    println!(
        "build: observed / native cpu  {:.3} (least of each, for a busy machine)",
        least_traced / least_native
    );
}

/// Seconds of processor time of all child processes and of this one, and of wall time.
fn measure(work: impl FnOnce()) -> (f64, f64) {
    let (before, start) = (processor_time(), Instant::now());
    work();
    (processor_time() - before, start.elapsed().as_secs_f64())
}

fn processor_time() -> f64 {
    [UsageWho::RUSAGE_CHILDREN, UsageWho::RUSAGE_SELF]
        .into_iter()
        .map(|who| getrusage(who).expect("usage"))
        .flat_map(|usage| [usage.user_time(), usage.system_time()])
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
        .sum()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn native(files: &BTreeMap<String, String>) {
    let dir = tempfile::tempdir_in("/dev/shm").expect("tmpfs");
    write_project(dir.path(), files);
    let status = Command::new("/usr/bin/make")
        .args(["-s", "-j2"])
        .current_dir(dir.path())
        .env_clear()
        .envs([
            ("PATH", "/usr/bin:/bin"),
            ("HOME", "/tmp"),
            ("LANG", "C.UTF-8"),
            ("SOURCE_DATE_EPOCH", "1"),
        ])
        .status()
        .expect("make");
    assert!(status.success());
    fs::copy(dir.path().join("program"), dir.path().join("copy")).expect("artifact");
}

fn observed(files: &BTreeMap<String, String>) -> usize {
    let dir = tempfile::tempdir_in("/dev/shm").expect("tmpfs");
    let (source, output) = (dir.path().join("source"), dir.path().join("out"));
    fs::create_dir(&output).expect("directory");
    write_project(&source, files);
    let entry =
        |text: &String| SourceFile { sha256: Sha256::of(text.as_bytes()), mode: SourceMode::File };
    let request = Request {
        source: SourceTree {
            root: source,
            files: files.iter().map(|(path, text)| (path.clone(), entry(text))).collect(),
        },
        host_root: PathBuf::from("/"),
        build: Build {
            fetch: Vec::new(),
            steps: vec![["make", "-s", "-j2"].map(str::to_owned).to_vec()],
            artifacts: vec!["program".into()],
            toolchain: ["gcc", "make", "libc6-dev"].map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
        },
        source_date_epoch: 1,
        resolver: PathBuf::from("/etc/resolv.conf"),
        output,
        helper: Helper {
            program: PathBuf::from(env!("CARGO_BIN_EXE_casemate-build-helper")),
            arguments: Vec::new(),
        },
    };
    run(&request, &|_| {}).expect("an honest build").materials.len()
}

fn write_project(to: &Path, files: &BTreeMap<String, String>) {
    for (path, text) in files {
        let file = to.join(path);
        fs::create_dir_all(file.parent().expect("parent")).expect("directory");
        fs::write(file, text).expect("source file");
    }
}

/// A program of 35 files that include ordinary headers and hold enough code to be worth compiling.
fn project() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut declarations = String::from(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <math.h>\n",
    );
    let mut calls = String::new();
    for file in 0..FILES - 1 {
        let mut text = String::from(
            "#include \"all.h\"\n#include <time.h>\n#include <errno.h>\n#include <pthread.h>\n",
        );
        for function in 0..FUNCTIONS {
            let _ = write!(
                text,
                "static double part{function}(const double *v, int n, char *s) {{\n\
                 \tdouble a = {function}.5;\n\
                 \tfor (int i = 0; i < n; i++) {{ a = a * v[i] + (i % {m}) - v[n - 1 - i]; if (a > 1e6) a /= {m}.25; }}\n\
                 \tsnprintf(s, 64, \"%s-%d-%.3f\", \"f{file}\", n, a);\n\
                 \tfor (size_t i = 0; i < strlen(s); i++) s[i] = (char)(s[i] ^ {m});\n\
                 \treturn a + s[0];\n}}\n",
                m = function % 7 + 2
            );
        }
        let _ = writeln!(
            text,
            "double work{file}(const double *v, int n) {{ char s[64]; double a = 0;"
        );
        for function in 0..FUNCTIONS {
            let _ = writeln!(text, "\ta += part{function}(v, n, s);");
        }
        text.push_str("\treturn a; }\n");
        let _ = writeln!(declarations, "double work{file}(const double *v, int n);");
        let _ = writeln!(calls, "\ta += work{file}(v, 8);");
        files.insert(format!("src/work{file}.c"), text);
    }
    files.insert("src/all.h".into(), declarations);
    files.insert(
        "src/main.c".into(),
        format!("#include \"all.h\"\nint main(void) {{ double v[8] = {{1,2,3,4,5,6,7,8}}, a = 0;\n{calls}\tprintf(\"%f\\n\", a); return 0; }}\n"),
    );
    files.insert(
        "Makefile".into(),
        "CFLAGS = -O2\nOBJECTS = $(patsubst %.c,%.o,$(wildcard src/*.c))\n\
         program: $(OBJECTS)\n\t$(CC) -o $@ $^ -lm\n$(OBJECTS): src/all.h\n"
            .into(),
    );
    files
}
