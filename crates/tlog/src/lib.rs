//! RFC 9162 Merkle proofs, C2SP tiles, signed notes and checkpoints.
