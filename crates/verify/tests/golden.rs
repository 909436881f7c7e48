//! A release made with the first version of every format stays readable and accepted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use casemate_spec::trust::TrustFile;
use casemate_statement::bundle::ReleaseBundle;
use casemate_verify::verify_release;
use support::{NOW, World, hello};

fn file(name: &str) -> std::path::PathBuf {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR")).into()
}

#[test]
fn the_first_release_is_still_accepted() {
    let bytes = std::fs::read(file("release-v1.bundle.json")).unwrap();
    let bundle = ReleaseBundle::parse(&bytes).unwrap();
    assert_eq!(bundle.to_bytes().unwrap(), bytes);
    let trust = TrustFile::parse(&std::fs::read(file("release-v1.trust.json")).unwrap()).unwrap();
    let verdict = verify_release(&hello(), &bundle, &trust, NOW);
    assert!(verdict.accepted, "{:?}", verdict.result());
}

#[test]
#[ignore = "writes the golden release; only for a new format"]
fn write_golden_release() {
    let mut world = World::new();
    let bundle = world.released();
    std::fs::create_dir_all(file("")).unwrap();
    std::fs::write(file("release-v1.bundle.json"), bundle.to_bytes().unwrap()).unwrap();
    let trust = serde_json::to_vec_pretty(&world.trust).unwrap();
    std::fs::write(file("release-v1.trust.json"), trust).unwrap();
}
