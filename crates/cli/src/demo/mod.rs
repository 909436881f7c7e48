//! `casemate demo`: the main job on a repository of its own, then every attack on it.
//!
//! The demo only ever calls this binary as a user would, in a directory of its own. It succeeds if
//! each step did what it says and each attack ended in exactly its code.

mod attacks;
mod cast;
mod repository;
mod stage;

use std::fs;
use std::path::Path;

use casemate_spec::Kind;

use self::cast::Person;
use self::repository::{Developers, Story};
use self::stage::{Outcome, Stage};
use crate::args::Demo;
use crate::bundles::now;
use crate::failure::{self, Failure};
use crate::output;

/// The key that the greeter greets with: 32 hexadecimal digits.
const SECRET: &str = "00112233445566778899aabbccddeeff\n";

/// Name of the secret in the example's casemate.toml.
const SECRET_NAME: &str = "greeter/key";

/// What the story has made by the time it is attacked.
struct World {
    developers: Developers,
    story: Story,
    carol: Person,
}

/// Runs the command.
///
/// # Errors
/// If anything was not as it should be.
pub fn run(args: &Demo) -> Result<(), Failure> {
    let dir = tempfile::Builder::new()
        .prefix("casemate-demo-")
        .tempdir()
        .map_err(|e| failure::io("temporary directory", &e))?;
    output::line("Casemate: signed commits become a verified release in an enclave");
    output::line("SIMULATED TEE: this shows the workflow; it hides nothing from root here");
    let mut stage = Stage::new(dir.path())?;
    let result = play(&mut stage).and_then(|()| stage.close());
    // The services end whatever happened; a failure to stop them does not hide the first failure.
    let stopped = stage.casemate(&["stop"]);
    if args.keep {
        let kept = dir.keep();
        output::line(&format!("left for exploring: {}", kept.display()));
        output::line("  cd there and try: casemate serve --detach; casemate ledger show");
    }
    result?;
    stopped.map(drop)
}

fn play(stage: &mut Stage) -> Result<(), Failure> {
    require_tools(stage)?;
    let mut world = beginnings(stage)?;
    release(stage)?;
    secret(stage)?;
    trace(stage)?;
    attacks::run(stage, &mut world)
}

/// The example is built by its own Makefile, so there must be make and a compiler.
fn require_tools(stage: &Stage) -> Result<(), Failure> {
    for (tool, package) in [("/usr/bin/make", "make"), ("/usr/bin/gcc", "gcc libc6-dev")] {
        if Path::new(tool).exists() {
            continue;
        }
        let missing = || {
            Failure::new(
                "CM-CLI-0033",
                Kind::Environment,
                format!("demo: no {tool}, which builds the example"),
            )
            .fix(format!("apt-get install {package}"))
        };
        stage.say(&format!("{tool} is missing; installing {package}"));
        let mut command = std::process::Command::new("apt-get");
        command.args(["install", "-y", "--no-install-recommends"]).args(package.split(' '));
        if stage::run(&mut command).map_err(|_| missing())?.status != 0 {
            return Err(missing());
        }
    }
    Ok(())
}

fn beginnings(stage: &mut Stage) -> Result<World, Failure> {
    stage.part("1  Three developers sign their commits; three people approve releases");
    let keys = stage.path("keys");
    fs::create_dir(&keys).map_err(|e| failure::io("demo keys", &e))?;
    let developers = Developers::new(&keys)?;
    let mut approvers = Vec::new();
    for name in ["alice", "bob", "carol"] {
        approvers.push(Person::new(&keys, name)?);
    }
    fs::write(stage.path("allowed_signers"), developers.allowed_signers())
        .map_err(|e| failure::io("allowed signers", &e))?;
    let story = Story::write(&stage.path("hello-release"), &developers, now())?;
    stage.say(&format!("hello-release: 3 signed commits, head {}", short(&story.head.to_string())));
    stage.step(
        &[
            "init",
            "--approver",
            "alice=keys/alice.pub",
            "--approver",
            "bob=keys/bob.pub",
            "--approver",
            "carol=keys/carol.pub",
            "--threshold",
            "2",
            "--developers",
            "allowed_signers",
        ],
        |o| pick(o, &["pin this digest"]),
    )?;
    stage.step(&["serve", "--detach"], |o| pick(o, &["ledger", "broker", "signer"]))?;
    let carol = approvers.pop().ok_or_else(|| failure::usage("demo: nobody approves"))?;
    Ok(World { developers, story, carol })
}

fn release(stage: &mut Stage) -> Result<(), Failure> {
    stage.part("2  Build in an enclave: verified source in, every read observed");
    stage.step(&["build", "--repo", "hello-release", "-o", "out"], |o| {
        let mut lines: Vec<String> = o
            .stderr
            .lines()
            .filter(|l| l.starts_with("source verified"))
            .map(str::to_owned)
            .collect();
        lines.extend(pick(o, &["sha256"]));
        lines
    })?;
    stage.part("3  Two of three approve; the signer's enclave checks all and signs");
    stage.step(&["approve", "out/bundle.json", "--key", "keys/alice"], first)?;
    stage.step(&["approve", "out/bundle.json", "--key", "keys/bob"], first)?;
    stage.step(&["sign", "out/bundle.json"], first)?;
    stage.step(
        &[
            "verify",
            "out/greeter",
            "--bundle",
            "out/bundle.json",
            "--trust",
            ".casemate/trust.json",
        ],
        |o| pick(o, &["ACCEPTED", "approved by", "read", "checks"]),
    )?;
    Ok(())
}

fn secret(stage: &mut Stage) -> Result<(), Failure> {
    stage.part("4  A secret for this release, and for nothing else");
    fs::write(stage.path("greeter.key"), SECRET).map_err(|e| failure::io("demo secret", &e))?;
    let keys = ["--key", "keys/alice", "--key", "keys/bob"];
    let put = [&["secret", "put", SECRET_NAME, "--file", "greeter.key"][..], &keys].concat();
    stage.step(&put, first)?;
    let grant =
        [&["secret", "grant", SECRET_NAME, "--release", "out/bundle.json"][..], &keys].concat();
    stage.step(&grant, first)?;
    // The value has left this machine's disks; only the broker has it, sealed.
    fs::remove_file(stage.path("greeter.key")).map_err(|e| failure::io("demo secret", &e))?;
    let ran = stage.step(&RUN, |o| {
        let mut lines = pick_any(&o.stderr, "measurement");
        lines.extend(o.stdout.lines().map(str::to_owned));
        lines
    })?;
    stage.must(ran.stdout.contains("Hello, world!"), "the released program got its secret");
    Ok(())
}

/// The released program, run as its repository's casemate.toml says.
const RUN: [&str; 5] = ["run", "--spec", "hello-release/casemate.toml", "--", "out/greeter"];

fn trace(stage: &mut Stage) -> Result<(), Failure> {
    stage.part("5  From the shipped binary back to the people who wrote it");
    let traced = stage.step(&["trace", "out/greeter", "--bundle", "out/bundle.json"], |o| {
        o.stdout
            .lines()
            .filter(|l| l.contains(".c ") || l.contains("deb/"))
            .take(8)
            .map(str::to_owned)
            .collect()
    })?;
    for name in ["dora", "emil", "fatima"] {
        stage.must(traced.stdout.contains(name), &format!("the trace names {name}"));
    }
    stage.step(
        &[
            "trace",
            "out/greeter",
            "--bundle",
            "out/bundle.json",
            "--repo",
            "hello-release",
            "--file",
            "key.c",
            "--line",
            "1",
        ],
        |o| pick(o, &["line 1"]),
    )?;
    Ok(())
}

/// The first line of standard output.
fn first(outcome: &Outcome) -> Vec<String> {
    outcome.stdout.lines().take(1).map(str::to_owned).collect()
}

/// The lines of standard output that hold one of these words.
fn pick(outcome: &Outcome, words: &[&str]) -> Vec<String> {
    outcome
        .stdout
        .lines()
        .filter(|l| words.iter().any(|w| l.contains(w)))
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

fn pick_any(text: &str, word: &str) -> Vec<String> {
    text.lines().filter(|l| l.contains(word)).map(str::to_owned).collect()
}

fn short(hex: &str) -> &str {
    hex.get(..12).unwrap_or(hex)
}
