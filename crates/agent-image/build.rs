//! Builds the agent with a cargo of its own and leaves the binary in `OUT_DIR`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "agent";

/// Crates whose source is part of the agent.
const SOURCES: [&str; 6] =
    ["enclave-agent", "enclave-protocol", "envelope", "evidence", "spec", "tee"];

fn main() -> Result<(), String> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let workspace =
        manifest.ancestors().nth(2).ok_or("crates/agent-image is not in a workspace")?;
    watch(workspace);
    let target = target_directory(&out).join("agent");
    let status = cargo(workspace, &target)?
        .status()
        .map_err(|e| format!("running cargo for the agent: {e}"))?;
    if !status.success() {
        return Err(format!("building casemate-agent: cargo ended with {status}"));
    }
    let built = target.join(TARGET).join(PROFILE).join("casemate-agent");
    std::fs::copy(&built, out.join("casemate-agent"))
        .map_err(|e| format!("copying {}: {e}", built.display()))?;
    Ok(())
}

fn watch(workspace: &Path) {
    println!("cargo::rerun-if-changed=build.rs");
    for file in ["Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(file).display());
    }
    for name in SOURCES {
        let folder = workspace.join("crates").join(name);
        for part in ["src", "Cargo.toml"] {
            println!("cargo::rerun-if-changed={}", folder.join(part).display());
        }
    }
}

fn cargo(workspace: &Path, target: &Path) -> Result<Command, String> {
    let mut command = Command::new(variable("CARGO")?);
    // What the outer cargo set for this crate, for clippy or for the user's own flags must not
    // reach the agent: its bytes are measured.
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let kept = matches!(name, "CARGO_HOME" | "CARGO_MAKEFLAGS" | "CARGO_NET_OFFLINE")
            || name.starts_with("CARGO_HTTP_")
            || name.starts_with("CARGO_REGISTRIES_");
        let outer = name.starts_with("CARGO")
            || name.starts_with("DEP_")
            || name.starts_with("CLIPPY_")
            || name.starts_with("AWS_LC_")
            || matches!(
                name,
                "RUSTFLAGS"
                    | "RUSTC"
                    | "RUSTC_WRAPPER"
                    | "RUSTC_WORKSPACE_WRAPPER"
                    | "RUSTC_LINKER"
                    | "RUSTDOC"
                    | "RUSTDOCFLAGS"
                    | "TARGET"
                    | "HOST"
                    | "OUT_DIR"
                    | "OPT_LEVEL"
                    | "PROFILE"
                    | "DEBUG"
                    | "NUM_JOBS"
                    | "CFLAGS"
                    | "CXXFLAGS"
                    | "LD_LIBRARY_PATH"
                    | "SOURCE_DATE_EPOCH"
            );
        if outer && !kept {
            command.env_remove(name);
        }
    }
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(workspace, "/casemate");
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    if let Some(home) = env::var_os("CARGO_HOME").map(PathBuf::from).or(home) {
        remap(&home, "/cargo");
    }
    command
        .current_dir(workspace)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", target)
        .args(["build", "--locked", "--quiet", "--package", "casemate-enclave-agent"])
        .args(["--bin", "casemate-agent", "--profile", PROFILE, "--target", TARGET]);
    Ok(command)
}

/// The outer build's target directory: the nearest ancestor that cargo has tagged as one.
fn target_directory(out: &Path) -> &Path {
    out.ancestors().find(|a| a.join("CACHEDIR.TAG").exists()).unwrap_or(out)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|e| format!("{name}: {e}"))
}
