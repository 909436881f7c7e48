//! Every attack that must be refused, each with the code it must end in.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casemate_provenance::source::Oid;

use super::repository::{Signed, text};
use super::stage::{Outcome, Stage, copy_tree, run as run_command};
use super::{RUN, SECRET_NAME, World};
use crate::failure::{self, Failure};
use crate::output;

const VERIFY: [&str; 6] =
    ["verify", "out/greeter", "--bundle", "out/bundle.json", "--trust", ".casemate/trust.json"];

/// Runs them all.
///
/// # Errors
/// If an attack could not be made; whether it was refused is noted on the stage.
pub fn run(stage: &mut Stage, world: &mut World) -> Result<(), Failure> {
    stage.part("6  Attacks on the source");
    sources(stage, world)?;
    stage.part("7  Attacks on the build");
    builds(stage, world)?;
    stage.part("8  Attacks on the release");
    releases(stage, world)?;
    stage.part("9  Attacks on the running program and its secret");
    secrets(stage)?;
    stage.part("10 Attacks on the evidence");
    evidence(stage)?;
    stage.part("11 Attacks on the ledger");
    ledger(stage)?;
    Ok(())
}

fn sources(stage: &mut Stage, world: &mut World) -> Result<(), Failure> {
    let World { developers: d, story, .. } = world;
    let evil = [("siphash.c", format!("{}\n/* helpful */\n", text("siphash.c")))];
    let cases = [
        ("a commit that nobody signed", "CM-SRC-0020", Signed { as_who: &d.emil, by: None }),
        (
            "a commit signed by a stranger",
            "CM-SRC-0022",
            Signed { as_who: &d.mallory, by: Some(&d.mallory) },
        ),
        (
            "a commit signed by a key that has run out",
            "CM-SRC-0024",
            Signed { as_who: &d.emil, by: Some(&d.emil_old) },
        ),
        (
            "Fatima's commit under Dora's name",
            "CM-SRC-0026",
            Signed { as_who: &d.dora, by: Some(&d.fatima) },
        ),
    ];
    for (attack, code, signed) in cases {
        let commit = story.branch(&signed, "Improve the hash", &evil)?;
        let outcome = build(stage, &commit)?;
        stage.refused(attack, code, &outcome);
    }
    Ok(())
}

/// Builds a commit into a directory that is gone afterwards.
fn build(stage: &Stage, commit: &Oid) -> Result<Outcome, Failure> {
    let outcome = stage.casemate(&build_args(commit))?;
    let _ = fs::remove_dir_all(stage.path("attack"));
    Ok(outcome)
}

fn build_args(commit: &Oid) -> Vec<String> {
    let commit = commit.to_string();
    ["build", "--repo", "hello-release", "--rev", &commit, "-o", "attack"]
        .map(String::from)
        .to_vec()
}

fn builds(stage: &mut Stage, world: &mut World) -> Result<(), Failure> {
    let World { developers: d, story, .. } = world;
    let dora = Signed { as_who: &d.dora, by: Some(&d.dora) };
    let makefile = |recipe: &str| {
        let rule = format!("{}\nextra:\n\t{recipe}\n", text("Makefile"));
        [("Makefile", rule.replacen("all: greeter", "all: greeter extra", 1))]
    };

    let commit =
        story.branch(&dora, "Use a tool nobody declared", &makefile("apt-get --version"))?;
    let outcome = build(stage, &commit)?;
    stage.refused("a tool of a package that is not declared", "CM-BUILD-0024", &outcome);

    let reach = "bash -c 'echo x > /dev/tcp/127.0.0.1/80'";
    let commit = story.branch(&dora, "Phone home", &makefile(reach))?;
    let outcome = build(stage, &commit)?;
    stage.refused("a build step that uses the network", "CM-BUILD-0041", &outcome);

    let undeclared = Undeclared::plant()?;
    let read = format!("cat {}", undeclared.path.display());
    let commit = story.branch(&dora, "Read a file of the machine", &makefile(&read))?;
    let outcome = build(stage, &commit)?;
    stage.refused("a file that is neither source nor toolchain", "CM-BUILD-0030", &outcome);
    drop(undeclared);

    let outcome = with_replaced_tool(stage, &story.head)?;
    stage.refused("a compiler replaced on PATH", "CM-BUILD-0023", &outcome);

    let commit = story.branch(&dora, "Build slowly", &makefile("sleep 4"))?;
    let outcome = swap_while_building(stage, &commit)?;
    stage.refused("SUNSPOT: source swapped while the compiler runs", "CM-BUILD-0012", &outcome);
    Ok(())
}

/// A file in /usr that no package owns, gone when dropped.
struct Undeclared {
    path: std::path::PathBuf,
}

impl Undeclared {
    fn plant() -> Result<Self, Failure> {
        let name = format!("casemate-demo-{}", std::process::id());
        let path = Path::new("/usr/local/share").join(name);
        fs::write(&path, "not declared\n")
            .map_err(|e| failure::io(&path.display().to_string(), &e))?;
        Ok(Self { path })
    }
}

impl Drop for Undeclared {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Shows `/usr` with another compiler in it (`$1` for `$2`, a directory `$3` to work in) and runs
/// the rest. The overlay lies in memory, in a mount namespace of its own: the machine is not touched.
const REPLACE_TOOL: &str = r#"
set -e
evil=$1 tool=$2 work=$3; shift 3
mount -t tmpfs tmpfs "$work"
mkdir -p "$work/work" "$work/upper${tool%/*}"
cp -p "$evil" "$work/upper$tool"
mount -t overlay -o "lowerdir=/usr,upperdir=$work/upper,workdir=$work/work" overlay /usr
exec "$@"
"#;

/// Builds on a machine whose compiler driver has one byte more.
fn with_replaced_tool(stage: &Stage, commit: &Oid) -> Result<Outcome, Failure> {
    let compiler = fs::canonicalize("/usr/bin/gcc").map_err(|e| failure::io("/usr/bin/gcc", &e))?;
    let evil = stage.path("evil-gcc");
    let mut bytes = fs::read(&compiler).map_err(|e| failure::io("compiler", &e))?;
    bytes.push(0);
    fs::write(&evil, bytes).map_err(|e| failure::io("compiler", &e))?;
    let mode = fs::metadata(&compiler).map_err(|e| failure::io("compiler", &e))?.permissions();
    fs::set_permissions(&evil, mode).map_err(|e| failure::io("compiler", &e))?;
    let exe = std::env::current_exe().map_err(|e| failure::io("this program's path", &e))?;
    let work = stage.path("overlay");
    fs::create_dir_all(&work).map_err(|e| failure::io("overlay", &e))?;
    let tool = compiler.strip_prefix("/usr").unwrap_or(&compiler);
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", REPLACE_TOOL, "sh"])
        .arg(&evil)
        .arg(Path::new("/").join(tool))
        .arg(&work)
        .arg(exe)
        .args(build_args(commit))
        .current_dir(stage.path(""))
        .stdin(Stdio::null());
    run_command(&mut command)
}

/// While the build sleeps, writes to its source through `/proc`, as root on the host can.
fn swap_while_building(stage: &Stage, commit: &Oid) -> Result<Outcome, Failure> {
    let mut command = stage.command(&build_args(commit));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|e| failure::io("casemate build", &e))?;
    let swapped = swap_source();
    let output = child.wait_with_output().map_err(|e| failure::io("casemate build", &e))?;
    let _ = fs::remove_dir_all(stage.path("attack"));
    if !swapped {
        output::line("       (the source was never reached)");
    }
    Ok(Outcome::of(&output))
}

/// Finds the step's root among all processes and opens its source for writing. Whether the open
/// is denied or not, the build has seen it.
fn swap_source() -> bool {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) {
        let roots =
            fs::read_dir("/proc").into_iter().flatten().flatten().map(|e| e.path().join("root"));
        for root in roots {
            let source = root.join("build/source/siphash.c");
            if source.exists() {
                // The first compile is over by now or under way; either way the tree is in use.
                let _ = fs::write(&source, "int backdoor;\n");
                return true;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

fn releases(stage: &mut Stage, world: &World) -> Result<(), Failure> {
    flip(stage, "out/greeter", "tampered", 4096)?;
    let args =
        ["verify", "tampered", "--bundle", "out/bundle.json", "--trust", ".casemate/trust.json"];
    stage.attack("one byte of the artifact changed", "CM-VERI-0003", &args)?;

    replace_text(
        stage,
        "out/bundle.json",
        "bundle-x.json",
        "\"logIndex\": \"1\"",
        "\"logIndex\": \"0\"",
    )?;
    let mut args = VERIFY;
    args[3] = "bundle-x.json";
    let outcome = stage.casemate(&args)?;
    stage.refused("a log entry of the bundle changed", "CM-", &outcome);

    let head = world.story.head.to_string();
    stage.casemate(&["build", "--repo", "hello-release", "--rev", &head, "-o", "again"])?;
    let approve = |key: &'static str| ["approve", "again/bundle.json", "--key", key];
    stage.casemate(&approve("keys/alice"))?;
    stage.casemate(&approve("keys/alice"))?;
    stage.attack("one approver counted twice", "CM-VERI-0054", &["sign", "again/bundle.json"])?;
    stage.attack("an approval by somebody else", "CM-CLI-0041", &approve("keys/mallory"))?;

    let print = stage.casemate(&["approve", "out/bundle.json", "--print"])?;
    fs::write(stage.path("other.statement"), print.stdout)
        .map_err(|e| failure::io("statement", &e))?;
    let signed = casemate_statement::sshsig::sign(
        world.carol.pem.as_bytes(),
        None,
        casemate_statement::approval::NAMESPACE,
        &fs::read(stage.path("other.statement")).map_err(|e| failure::io("statement", &e))?,
    )?;
    fs::write(stage.path("other.sig"), signed.to_armored())
        .map_err(|e| failure::io("signature", &e))?;
    stage.attack(
        "an approval of another artifact",
        "CM-STMT-",
        &["approve", "again/bundle.json", "--signature", "other.sig"],
    )?;

    replace_text(
        stage,
        ".casemate/trust.json",
        "trust-x.json",
        "\"release\": 2",
        "\"release\": 1",
    )?;
    let mut args = VERIFY;
    args[5] = "trust-x.json";
    stage.attack("the trust file altered", "CM-VERI-0001", &args)?;
    Ok(())
}

fn secrets(stage: &mut Stage) -> Result<(), Failure> {
    flip_to_executable(stage, "out/greeter", "evil/greeter")?;
    let mut args = RUN;
    args[4] = "evil/greeter";
    stage.attack("one byte of the program changed", "CM-BROK-0006", &args)?;
    stage.casemate(&["measure", "-o", "good.json", "--", "out/greeter"])?;
    stage.casemate(&["measure", "-o", "evil.json", "--", "evil/greeter"])?;
    let diff = stage.casemate(&["measure", "--diff", "good.json", "evil.json"])?;
    stage.must(diff.stdout.contains("greeter"), "measure --diff names the file");

    let args = [&RUN[..], &["--extra"]].concat();
    stage.attack("an argument added", "CM-BROK-0006", &args)?;

    let spec = "hello-release/casemate.toml";
    replace_text(stage, spec, "env.toml", "env = {", "env = { LD_DEBUG = \"all\",")?;
    let mut args = RUN;
    args[2] = "env.toml";
    stage.attack("a variable of the environment changed", "CM-BROK-0006", &args)?;

    replace_text(stage, spec, "debug.toml", "[enclave]", "[enclave]\nproduction = false")?;
    args[2] = "debug.toml";
    let outcome = stage.casemate(&args)?;
    output_usage(stage, "a debuggable enclave asks for a secret", &outcome);

    let act = [
        "secret",
        "grant",
        SECRET_NAME,
        "--measurement",
        ZERO,
        "--key",
        "keys/alice",
        "--key",
        "keys/alice",
    ];
    stage.attack("one approver signs an act twice", "CM-", &act)?;
    Ok(())
}

/// 48 zero bytes.
const ZERO: &str = "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000";

/// An attack that is refused before anything starts, as a spec that can not take effect.
fn output_usage(stage: &mut Stage, what: &str, outcome: &Outcome) {
    stage.must(
        outcome.status == 2 && outcome.says("CM-SPEC-0012"),
        &format!("{what}: refused (CM-SPEC-0012)"),
    );
}

fn evidence(stage: &mut Stage) -> Result<(), Failure> {
    let (nonce, other) = ("a1".repeat(32), "b2".repeat(32));
    let produced = stage.casemate(&[
        "evidence",
        "produce",
        "--nonce",
        &nonce,
        "-o",
        "evidence.json",
        "--",
        "out/greeter",
    ])?;
    let verify = |file: &str, nonce: &str| {
        ["evidence", "verify", file, "--trust", ".casemate/trust.json", "--nonce", nonce]
            .map(String::from)
    };
    let honest = stage.casemate(&verify("evidence.json", &nonce))?;
    stage.must(produced.status == 0 && honest.status == 0, "honest evidence is accepted");
    let outcome = stage.casemate(&verify("evidence.json", &other))?;
    stage.refused("evidence played again to another nonce", "CM-EVID-0032", &outcome);

    let keys = ["--approver", "mallory=keys/mallory.pub", "--threshold", "1"];
    stage.casemate(&[&["--dir", "rogue", "init"][..], &keys].concat())?;
    stage.casemate(&[
        "--dir",
        "rogue",
        "evidence",
        "produce",
        "--nonce",
        &nonce,
        "-o",
        "rogue.json",
        "--",
        "out/greeter",
    ])?;
    let outcome = stage.casemate(&verify("rogue.json", &nonce))?;
    stage.refused("evidence from another simulated root", "CM-EVID-0010", &outcome);

    fs::write(stage.path("debuggable.toml"), "version = 1\n[enclave]\nproduction = false\n")
        .map_err(|e| failure::io("spec", &e))?;
    stage.casemate(&[
        "evidence",
        "produce",
        "--spec",
        "debuggable.toml",
        "--nonce",
        &nonce,
        "-o",
        "debug.json",
        "--",
        "out/greeter",
    ])?;
    let outcome = stage.casemate(&verify("debug.json", &nonce))?;
    stage.refused("evidence with the debug bit", "CM-EVID-0020", &outcome);
    Ok(())
}

/// Changes something in a copy of the log, given its directory and its newest entries.
type Tamper = fn(&Path, &Path) -> std::io::Result<()>;

fn ledger(stage: &mut Stage) -> Result<(), Failure> {
    let shown = stage.casemate(&["ledger", "show", "--format", "json"])?;
    fs::write(stage.path("known.json"), &shown.stdout)
        .map_err(|e| failure::io("checkpoint", &e))?;
    let honest = stage.casemate(&["ledger", "verify", "--known", "known.json"])?;
    stage.must(honest.status == 0, "the honest log is accepted");
    let log = stage.path(".casemate/ledger/log");
    let entries = newest_entries(&log.join("tile/entries"))?;
    let cases: [(&str, &str, Tamper); 3] = [
        ("a leaf edited", "CM-LEDG-0001", |log, entries| {
            let path = log.join(entries);
            let mut bytes = fs::read(&path)?;
            if let Some(byte) = bytes.get_mut(40) {
                *byte ^= 1;
            }
            fs::write(path, bytes)
        }),
        ("a tile removed", "CM-LEDG-000", |log, entries| fs::remove_file(log.join(entries))),
        ("the log cut short", "CM-LEDG-000", |log, entries| {
            let path = log.join(entries);
            let bytes = fs::read(&path)?;
            fs::write(path, &bytes[..bytes.len() / 2])
        }),
    ];
    for (attack, code, tamper) in cases {
        let copy = stage.path("log-x");
        let _ = fs::remove_dir_all(&copy);
        copy_tree(&log, &copy)?;
        let relative = entries.strip_prefix(&log).unwrap_or(&entries);
        tamper(&copy, relative).map_err(|e| failure::io("tampering", &e))?;
        stage.attack(
            attack,
            code,
            &["ledger", "verify", "--log", "log-x", "--known", "known.json"],
        )?;
    }
    rolled_back(stage)
}

/// An older copy of the whole log, put back.
fn rolled_back(stage: &mut Stage) -> Result<(), Failure> {
    let old = stage.path("log-old");
    copy_tree(&stage.path(".casemate/ledger/log"), &old)?;
    stage.casemate(&[
        "secret",
        "revoke",
        SECRET_NAME,
        "--key",
        "keys/alice",
        "--key",
        "keys/bob",
    ])?;
    let shown = stage.casemate(&["ledger", "show", "--format", "json"])?;
    fs::write(stage.path("newer.json"), &shown.stdout)
        .map_err(|e| failure::io("checkpoint", &e))?;
    stage.attack(
        "an older copy of the log put back",
        "CM-LEDG-0004",
        &["ledger", "verify", "--log", "log-old", "--known", "newer.json"],
    )?;
    stage.attack("the secret after its grant was revoked", "CM-BROK-0006", &RUN)
}

/// The entry bundle that was written last.
fn newest_entries(dir: &Path) -> Result<std::path::PathBuf, Failure> {
    let mut files = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in
            fs::read_dir(&dir).map_err(|e| failure::io(&dir.display().to_string(), &e))?.flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if let Ok(time) = entry.metadata().and_then(|m| m.modified()) {
                files.push((time, path));
            }
        }
    }
    files.sort();
    files.pop().map(|(_, path)| path).ok_or_else(|| failure::usage("demo: the log has no entries"))
}

/// Copies a file with one byte changed.
fn flip(stage: &Stage, from: &str, to: &str, at: usize) -> Result<(), Failure> {
    let mut bytes = fs::read(stage.path(from)).map_err(|e| failure::io(from, &e))?;
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1;
    }
    fs::write(stage.path(to), bytes).map_err(|e| failure::io(to, &e))
}

/// Copies a program with one byte of a string constant changed, so that it still runs.
fn flip_to_executable(stage: &Stage, from: &str, to: &str) -> Result<(), Failure> {
    let mut bytes = fs::read(stage.path(from)).map_err(|e| failure::io(from, &e))?;
    if let Some(at) = bytes.windows(5).position(|w| w == b"Hello") {
        bytes[at] = b'J';
    }
    let to = stage.path(to);
    let shown = to.display().to_string();
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|e| failure::io(&shown, &e))?;
    }
    fs::write(&to, bytes).map_err(|e| failure::io(&shown, &e))?;
    let mode = fs::metadata(stage.path(from)).map_err(|e| failure::io(from, &e))?.permissions();
    fs::set_permissions(&to, mode).map_err(|e| failure::io(&shown, &e))
}

/// Copies a text file with one place changed.
fn replace_text(stage: &Stage, from: &str, to: &str, old: &str, new: &str) -> Result<(), Failure> {
    let text = fs::read_to_string(stage.path(from)).map_err(|e| failure::io(from, &e))?;
    if !text.contains(old) {
        return Err(failure::usage(format!("demo: {from} holds no {old:?}")));
    }
    fs::write(stage.path(to), text.replacen(old, new, 1)).map_err(|e| failure::io(to, &e))
}
