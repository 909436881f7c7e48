//! Trees of every small size against a second, naive implementation, and hostile bytes.
#![allow(missing_docs, clippy::expect_used, clippy::panic)]

use casemate_tlog::merkle::{
    NodeSource, empty_root, leaf_hash, node_hash, prove_consistency, prove_inclusion, root,
    verify_consistency, verify_inclusion,
};
use casemate_tlog::note::{Note, Signer, VerifierKey};
use casemate_tlog::tile::push_leaf;
use casemate_tlog::tree::TileTree;
use casemate_tlog::{Checkpoint, Sha256, Tile, TlogError, Tree};
use proptest::prelude::*;

/// RFC 9162, section 2.1.1, word for word.
fn naive_root(leaves: &[Sha256]) -> Sha256 {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let mut k = 1;
            while k * 2 < leaves.len() {
                k *= 2;
            }
            node_hash(&naive_root(&leaves[..k]), &naive_root(&leaves[k..]))
        }
    }
}

fn tree(size: u64) -> (Tree, Vec<Sha256>) {
    let leaves: Vec<Sha256> = (0..size).map(|i| leaf_hash(&i.to_be_bytes())).collect();
    let mut tree = Tree::new();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    (tree, leaves)
}

#[test]
fn proves_every_leaf_and_every_growth_of_small_trees() {
    let (tree, leaves) = tree(40);
    let roots: Vec<Sha256> = (0..=40).map(|n| naive_root(&leaves[..n])).collect();
    for size in 0..=40u64 {
        let new = roots[size as usize];
        assert_eq!(root(&tree, size), Ok(new));
        for index in 0..size {
            let leaf = &leaves[index as usize];
            let proof = prove_inclusion(&tree, index, size).expect("proof");
            assert_eq!(verify_inclusion(index, size, leaf, &proof, &new), Ok(()));
        }
        for from in 0..=size {
            let proof = prove_consistency(&tree, from, size).expect("proof");
            assert_eq!(verify_consistency(from, size, &roots[from as usize], &new, &proof), Ok(()));
        }
    }
}

#[test]
fn names_a_fork_a_rollback_and_a_rewrite_apart() {
    let (tree, _) = tree(9);
    let mut other = Tree::new();
    (0..12u8).for_each(|i| other.push(leaf_hash(&[i])));
    let root = |tree: &Tree, size| tree.root_at(size).expect("root");
    let forked = verify_consistency(9, 9, &root(&tree, 9), &root(&other, 9), &[]);
    assert!(matches!(forked, Err(TlogError::Forked { size: 9, .. })));
    let rolled = verify_consistency(9, 5, &root(&tree, 9), &root(&tree, 5), &[]);
    assert_eq!(rolled, Err(TlogError::RolledBack { known: 9, found: 5 }));
    let proof = prove_consistency(&other, 9, 12).expect("proof");
    let rewritten = verify_consistency(9, 12, &root(&tree, 9), &root(&other, 12), &proof);
    assert!(matches!(rewritten, Err(TlogError::NotConsistent { from: 9, to: 12, .. })));
    verify_consistency(9, 12, &root(&other, 9), &root(&other, 12), &proof).expect("honest twin");
}

#[test]
fn reads_proofs_of_a_log_of_several_levels_from_its_tiles() {
    let (tree, leaves) = tree(66_000);
    let fetch = |tile: &Tile| tree.tile(tile).ok_or(TlogError::TilePath(tile.to_string()));
    let tiles = TileTree::new(66_000, fetch);
    for index in [0, 255, 256, 65_535, 65_536, 65_999] {
        let proof = prove_inclusion(&tiles, index, 66_000).expect("proof");
        assert_eq!(Ok(&proof), prove_inclusion(&tree, index, 66_000).as_ref());
        let leaf = &leaves[index as usize];
        verify_inclusion(index, 66_000, leaf, &proof, &tree.root()).expect("inclusion");
    }
    assert!(tiles.node(0, 66_000).is_err());
    assert!(tiles.node(255, u64::MAX).is_err());
}

#[test]
fn spells_tile_paths_as_the_specification_does() {
    let full = |level, index| Tile::at(level, index, u64::MAX).expect("tile").to_string();
    assert_eq!(full(0, 0), "tile/0/000");
    assert_eq!(full(0, 1_234_067), "tile/0/x001/x234/067");
    assert_eq!(full(1, 999), "tile/1/999");
    assert_eq!(full(3, 1000), "tile/3/x001/000");
    assert_eq!(Tile::at(1, 1, 256 * 300).expect("tile").to_string(), "tile/1/001.p/44");
    assert_eq!(Tile::entries(273, 70_000).expect("tile").to_string(), "tile/entries/273.p/112");
    let all: Vec<String> = Tile::all(70_000).map(|tile| tile.to_string()).collect();
    assert_eq!(all.len(), 274 + 274 + 2 + 1);
    assert_eq!(all.last().map(String::as_str), Some("tile/2/000.p/1"));
    let added: Vec<String> = Tile::added(255, 257).map(|tile| tile.to_string()).collect();
    let expected = ["tile/entries/000", "tile/entries/001.p/1", "tile/0/000", "tile/0/001.p/1"];
    assert_eq!(added[..4], expected);
    assert_eq!(added[4..], ["tile/1/000.p/1"]);
    assert_eq!(Tile::added(256, 256).count(), 0);
    assert_eq!(
        Tile::partial(512).map(|tile| tile.to_string()).collect::<Vec<_>>(),
        ["tile/1/000.p/2"]
    );
    assert!(Tile::partial(70_000).all(|tile| !tile.is_full()));
    for bad in [
        "",
        "tile",
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/8/000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/entries/+01",
        "tile/data/000",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/../000",
    ] {
        assert!(bad.parse::<Tile>().is_err(), "{bad:?} was accepted");
    }
}

#[test]
fn refuses_a_leaf_that_does_not_fit_and_takes_the_largest_that_does() {
    let mut bundle = Vec::new();
    push_leaf(&mut bundle, &vec![7; 65_535]).expect("largest leaf");
    let refused = push_leaf(&mut bundle, &vec![7; 65_536]);
    assert_eq!(refused, Err(TlogError::LeafSize { limit: 65_535, found: 65_536 }));
    assert_eq!(Tile::entries(0, 1).expect("tile").leaves(&bundle).expect("leaves").len(), 1);
}

#[test]
fn opens_only_its_own_logs_checkpoint_and_only_unaltered() {
    let log = Signer::from_seed("log.example/a", &[1; 32]).expect("key");
    let other = Signer::from_seed("log.example/b", &[2; 32]).expect("key");
    let same_name = Signer::from_seed("log.example/a", &[3; 32]).expect("key");
    let (tree, _) = tree(5);
    let note = Checkpoint::sign(&log, 5, tree.root()).expect("signing");
    let opened = Checkpoint::open(&note, log.verifier()).expect("honest twin");
    assert_eq!((opened.size, opened.root), (5, tree.root()));
    for stranger in [&other, &same_name] {
        let refused = Checkpoint::open(&note, stranger.verifier());
        assert!(matches!(refused, Err(TlogError::Unsigned { .. })));
    }
    let foreign = other.sign(&opened.text()).expect("signing");
    let refused = Checkpoint::open(&foreign, other.verifier());
    assert!(matches!(refused, Err(TlogError::Origin { .. })));
    let larger = note.replacen("\n5\n", "\n6\n", 1);
    let refused = Checkpoint::open(&larger, log.verifier());
    assert!(matches!(refused, Err(TlogError::Signature(_))));
    for at in 0..note.len() {
        let mut bytes = note.clone().into_bytes();
        bytes[at] ^= 1;
        if let Ok(altered) = String::from_utf8(bytes) {
            assert!(Checkpoint::open(&altered, log.verifier()).is_err(), "byte {at}");
        }
    }
    assert!(log.sign("no newline").is_err());
    assert!(Signer::from_seed("a b", &[1; 32]).is_err());
}

#[test]
fn refuses_keys_that_are_not_what_they_say() {
    let key = Signer::from_seed("log", &[1; 32]).expect("key").verifier().to_string();
    assert_eq!(key.parse::<VerifierKey>().map(|key| key.to_string()), Ok(key.clone()));
    for bad in
        ["", "log", "log+00000000", &key[..key.len() - 4], &format!("x{key}"), "+00000000+AQ=="]
    {
        assert!(bad.parse::<VerifierKey>().is_err(), "{bad:?} was accepted");
    }
}

proptest! {
    #[test]
    fn any_altered_proof_is_refused(size in 1u64..200, at in any::<u64>(), bit in 0usize..256, which in any::<usize>()) {
        let (tree, leaves) = tree(size);
        let index = at % size;
        let mut proof = prove_inclusion(&tree, index, size).expect("proof");
        if !proof.is_empty() {
            let which = which % proof.len();
            proof[which].0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_inclusion(index, size, &leaves[index as usize], &proof, &tree.root()).is_err());
        }
        let from = at % size;
        let mut proof = prove_consistency(&tree, from, size).expect("proof");
        if !proof.is_empty() {
            let which = which % proof.len();
            proof[which].0[bit / 8] ^= 1 << (bit % 8);
            let old = tree.root_at(from).expect("root");
            prop_assert!(verify_consistency(from, size, &old, &tree.root(), &proof).is_err());
        }
    }

    #[test]
    fn verifying_hostile_proofs_never_panics(index in any::<u64>(), size in any::<u64>(), proof in prop::collection::vec(any::<[u8; 32]>(), 0..70)) {
        let proof: Vec<Sha256> = proof.into_iter().map(Sha256).collect();
        let hash = Sha256([0; 32]);
        prop_assert!(verify_inclusion(index, size, &hash, &proof, &hash).is_err());
        let _ = verify_consistency(index, size, &hash, &hash, &proof);
    }

    #[test]
    fn tile_names_survive_and_hostile_ones_never_panic(level in 0u8..8, index in 0u64..1 << 55, path in "\\PC*", digits in "tile/[0-9e]{1,2}/[x0-9/.p]{0,30}") {
        let size = (index << 8 | 0xff).checked_shl(u32::from(level) * 8).unwrap_or(0);
        if let Ok(tile) = Tile::at(level, index, size) {
            prop_assert_eq!(tile.to_string().parse::<Tile>(), Ok(tile));
        }
        let _ = path.parse::<Tile>();
        if let Ok(tile) = digits.parse::<Tile>() {
            prop_assert_eq!(tile.to_string(), digits);
        }
    }

    #[test]
    fn bundles_survive_and_hostile_ones_never_panic(leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..257), junk in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut bundle = Vec::new();
        for leaf in &leaves {
            push_leaf(&mut bundle, leaf).expect("small leaf");
        }
        let tile = Tile::entries(0, leaves.len() as u64).expect("tile");
        prop_assert_eq!(tile.leaves(&bundle).expect("bundle"), leaves);
        prop_assert!(tile.leaves(&bundle[..bundle.len() - 1]).is_err());
        bundle.push(0);
        prop_assert!(tile.leaves(&bundle).is_err());
        let _ = tile.leaves(&junk);
    }

    #[test]
    fn notes_and_checkpoints_never_panic(text in "\\PC*", lines in "([a-z/]{0,9}\n){0,4}(\u{2014} [a-z]{0,3} [A-Za-z0-9+/=]{0,9}\n){0,3}") {
        for text in [&text, &lines] {
            let _ = Checkpoint::parse(text);
            let _ = text.parse::<VerifierKey>();
            if let Ok(note) = Note::parse(text) {
                let _ = Checkpoint::parse(note.unverified_text());
            }
        }
    }
}
