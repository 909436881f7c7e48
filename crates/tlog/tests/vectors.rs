//! Other projects' vectors: proofs, a whole tile log, notes and checkpoints.
#![allow(missing_docs, clippy::expect_used, clippy::panic)]

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_tlog::merkle::{leaf_hash, prove_inclusion, verify_consistency, verify_inclusion};
use casemate_tlog::note::{Note, VerifierKey};
use casemate_tlog::tree::TileTree;
use casemate_tlog::{Checkpoint, Sha256, Tile, TlogError, Tree};

#[test]
fn judges_every_merkle_proof_vector_as_its_authors_do() {
    let mut judged = [0, 0];
    for line in include_str!("data/merkle.txt").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [kind, verdict, a, b, first, second, proof, name] = fields[..] else {
            panic!("{line}");
        };
        let passed = judge(kind, a, b, first, second, proof).is_some();
        assert_eq!(passed, verdict == "accept", "{name}");
        judged[usize::from(passed)] += 1;
    }
    assert_eq!(judged, [126, 9]);
}

fn judge(kind: &str, a: &str, b: &str, first: &str, second: &str, proof: &str) -> Option<()> {
    let proof = match proof {
        "none" => Vec::new(),
        proof => proof.split(',').map(hash).collect::<Option<_>>()?,
    };
    let (a, b, first, second) = (a.parse().ok()?, b.parse().ok()?, hash(first)?, hash(second)?);
    match kind {
        "inclusion" => verify_inclusion(a, b, &first, &proof, &second).ok(),
        _ => verify_consistency(a, b, &first, &second, &proof).ok(),
    }
}

fn hash(text: &str) -> Option<Sha256> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok().map(Sha256)
}

const TESSERA_KEY: &str =
    "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";

#[test]
fn opens_the_checkpoints_of_a_tile_log_and_finds_their_roots_in_its_tiles() {
    let key: VerifierKey = TESSERA_KEY.parse().expect("key");
    assert_eq!(key.to_string(), TESSERA_KEY);
    let bundle = Tile::entries(0, 15).expect("tile");
    let leaves = bundle.leaves(include_bytes!("data/tessera-entries.bin")).expect("bundle");
    let mut tree = Tree::new();
    for (size, note) in include_str!("data/tessera-checkpoints.txt").split("====\n").enumerate() {
        let checkpoint = Checkpoint::open(note, &key).expect("checkpoint");
        assert_eq!((checkpoint.size, checkpoint.root), (size as u64, tree.root()));
        if let Some(leaf) = leaves.get(size) {
            tree.push(leaf_hash(leaf));
        }
    }
    let hashes = include_bytes!("data/tessera-hashes.bin");
    assert_eq!(tree.tile(&Tile::at(0, 0, 15).expect("tile")).as_deref(), Some(&hashes[..]));
    let tiles = TileTree::new(15, |_: &Tile| Ok::<_, TlogError>(hashes.to_vec()));
    let proof = prove_inclusion(&tiles, 7, 15).expect("proof");
    verify_inclusion(7, 15, &leaf_hash(leaves[7]), &proof, &tree.root()).expect("inclusion");
}

#[test]
fn judges_every_signed_note_as_its_authors_do() {
    for block in include_str!("data/notes.txt").split("====\n") {
        let mut parts = block.splitn(4, '\n');
        let mut next = || parts.next().expect("four parts");
        let (name, key, verdict, note) = (next(), next(), next(), next());
        let key: VerifierKey = key.parse().expect(name);
        let note = Note::parse(note).expect(name);
        let found = match note.verify(&key) {
            Ok((_, None)) => "accept -".into(),
            Ok((_, Some(time))) => format!("accept {time}"),
            Err(TlogError::Signature(_)) => "refuse -".into(),
            Err(other) => panic!("{name}: {other}"),
        };
        assert_eq!(found, verdict, "{name}");
    }
}

#[test]
fn reads_the_checkpoints_of_rekor_that_are_well_formed_and_no_others() {
    let read = |text| Note::parse(text).and_then(|n| Checkpoint::parse(n.unverified_text()));
    let valid = read(include_str!("data/rekor-valid.txt")).expect("valid");
    assert_eq!(valid.size, 37_795_272);
    for bad in [
        include_str!("data/rekor-error-header-body-separator.txt"),
        include_str!("data/rekor-error-no-newline-after-signature.txt"),
        include_str!("data/rekor-error-no-signatures.txt"),
        include_str!("data/rekor-error-not-a-number.txt"),
        include_str!("data/rekor-error-signature-format-invalid.txt"),
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}
