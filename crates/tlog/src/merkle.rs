//! RFC 9162 Merkle trees over SHA-256: hashing, proofs made, proofs checked.
//!
//! Proofs are made from a [`NodeSource`], which knows the hashes of complete subtrees only. Those
//! never change once they exist, so a tree in memory, tiles on a disk and tiles behind a network
//! all serve.

use casemate_spec::Sha256;

use crate::error::TlogError;

/// A tree's complete subtrees: what every proof is made of.
pub trait NodeSource {
    /// Why a node could not be had.
    type Error: From<TlogError>;

    /// The hash of the complete subtree over the leaves `index << level .. (index + 1) << level`.
    ///
    /// # Errors
    /// If the tree has no such node, or it could not be read.
    fn node(&self, level: u8, index: u64) -> Result<Sha256, Self::Error>;
}

/// The hash of a leaf: SHA-256(0 ‖ leaf).
pub fn leaf_hash(leaf: &[u8]) -> Sha256 {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(&[0]);
    context.update(leaf);
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Sha256(out)
}

/// The hash of an inner node: SHA-256(1 ‖ left ‖ right).
pub fn node_hash(left: &Sha256, right: &Sha256) -> Sha256 {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(&left.0);
    bytes[33..].copy_from_slice(&right.0);
    Sha256::of(&bytes)
}

/// The root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Sha256 {
    Sha256::of(&[])
}

/// Checks that the leaf with hash `leaf` is at `index` in the tree of `size` leaves under `root`.
///
/// # Errors
/// [`TlogError::Range`], [`TlogError::ProofLength`] or [`TlogError::NotIncluded`].
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf: &Sha256,
    proof: &[Sha256],
    root: &Sha256,
) -> Result<(), TlogError> {
    let found = root_from_inclusion(index, size, leaf, proof)?;
    if found == *root {
        return Ok(());
    }
    Err(TlogError::NotIncluded { index, size, expected: *root, found })
}

/// The root to which an inclusion proof leads (RFC 9162, section 2.1.3.2).
///
/// # Errors
/// [`TlogError::Range`] or [`TlogError::ProofLength`].
pub fn root_from_inclusion(
    index: u64,
    size: u64,
    leaf: &Sha256,
    proof: &[Sha256],
) -> Result<Sha256, TlogError> {
    if index >= size {
        return Err(TlogError::Range { what: "a leaf index", limit: size, found: index });
    }
    let expected = inclusion_length(index, size);
    if proof.len() != expected {
        let found = proof.len();
        return Err(TlogError::ProofLength { proof: "inclusion", expected, found });
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    Ok(hash)
}

/// Checks that the tree of `to` leaves under `to_root` begins with the tree of `from` leaves under
/// `from_root` (RFC 9162, section 2.1.4.2). Every tree begins with the empty one.
///
/// # Errors
/// [`TlogError::RolledBack`] if `to < from`, [`TlogError::Forked`] if both sizes are equal and the
/// roots are not, [`TlogError::ProofLength`] or [`TlogError::NotConsistent`].
pub fn verify_consistency(
    from: u64,
    to: u64,
    from_root: &Sha256,
    to_root: &Sha256,
    proof: &[Sha256],
) -> Result<(), TlogError> {
    if to < from {
        return Err(TlogError::RolledBack { known: from, found: to });
    }
    let expected = consistency_length(from, to);
    if proof.len() != expected {
        let found = proof.len();
        return Err(TlogError::ProofLength { proof: "consistency", expected, found });
    }
    if from == to {
        return match from_root == to_root {
            true => Ok(()),
            false => Err(TlogError::Forked { size: from, known: *from_root, found: *to_root }),
        };
    }
    let missed = |reason| Err(TlogError::NotConsistent { from, to, reason });
    if from == 0 {
        return match *from_root == empty_root() {
            true => Ok(()),
            false => missed("the earlier root is not that of an empty log"),
        };
    }
    let (old, new) = roots_from_consistency(from, to, from_root, proof);
    if old != *from_root {
        return missed("the proof does not lead to the earlier root");
    }
    if new != *to_root {
        return missed("the proof does not lead to the later root");
    }
    Ok(())
}

/// The roots to which a consistency proof of the right length leads, for `0 < from < to`.
fn roots_from_consistency(
    from: u64,
    to: u64,
    from_root: &Sha256,
    proof: &[Sha256],
) -> (Sha256, Sha256) {
    let (mut node, mut last) = (from - 1, to - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (seed, rest) = match proof {
        [first, rest @ ..] if !from.is_power_of_two() => (first, rest),
        _ => (from_root, proof),
    };
    let (mut old, mut new) = (*seed, *seed);
    for sibling in rest {
        if node & 1 == 1 || node == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (old, new)
}

/// The root of the first `size` leaves.
///
/// # Errors
/// As the source.
pub fn root<S: NodeSource>(source: &S, size: u64) -> Result<Sha256, S::Error> {
    match size {
        0 => Ok(empty_root()),
        _ => range(source, 0, size),
    }
}

/// The inclusion proof of the leaf at `index` in the tree of the first `size` leaves.
///
/// # Errors
/// [`TlogError::Range`], or as the source.
pub fn prove_inclusion<S: NodeSource>(
    source: &S,
    index: u64,
    size: u64,
) -> Result<Vec<Sha256>, S::Error> {
    if index >= size {
        return Err(TlogError::Range { what: "a leaf index", limit: size, found: index }.into());
    }
    let (mut begin, mut end) = (0, size);
    let mut proof = Vec::with_capacity(inclusion_length(index, size));
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            proof.push(range(source, middle, end)?);
            end = middle;
        } else {
            proof.push(range(source, begin, middle)?);
            begin = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of `to` leaves begins with the tree of `from` leaves.
///
/// # Errors
/// [`TlogError::RolledBack`] if `to < from`, or as the source.
pub fn prove_consistency<S: NodeSource>(
    source: &S,
    from: u64,
    to: u64,
) -> Result<Vec<Sha256>, S::Error> {
    if to < from {
        return Err(TlogError::RolledBack { known: from, found: to }.into());
    }
    if from == 0 || from == to {
        return Ok(Vec::new());
    }
    let (mut begin, mut end) = (0, to);
    let mut proof = Vec::with_capacity(consistency_length(from, to));
    while end != from {
        let middle = begin + split(end - begin);
        if from <= middle {
            proof.push(range(source, middle, end)?);
            end = middle;
        } else {
            proof.push(range(source, begin, middle)?);
            begin = middle;
        }
    }
    if begin != 0 {
        proof.push(range(source, begin, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The hash over the leaves `begin..end`, a range that the splitting of a tree leads to.
fn range<S: NodeSource>(source: &S, begin: u64, end: u64) -> Result<Sha256, S::Error> {
    let count = end - begin;
    if count.is_power_of_two() {
        let level = count.trailing_zeros();
        return source.node(level as u8, begin >> level);
    }
    let middle = begin + split(count);
    let left = range(source, begin, middle)?;
    let right = range(source, middle, end)?;
    Ok(node_hash(&left, &right))
}

/// The largest power of two below `count`, for `count > 1`.
fn split(count: u64) -> u64 {
    1 << (u64::BITS - 1 - (count - 1).leading_zeros())
}

/// How many hashes an inclusion proof has, for `index < size`.
fn inclusion_length(index: u64, size: u64) -> usize {
    let inner = u64::BITS - (index ^ (size - 1)).leading_zeros();
    let border = index.checked_shr(inner).unwrap_or(0).count_ones();
    (inner + border) as usize
}

/// How many hashes a consistency proof has, for `from <= to`.
fn consistency_length(from: u64, to: u64) -> usize {
    if from == 0 || from == to {
        return 0;
    }
    let skipped = from.trailing_zeros();
    let path = inclusion_length(from - 1, to) - skipped as usize;
    path + usize::from(!from.is_power_of_two())
}
