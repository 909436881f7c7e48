//! The tamper-evident log: append, integrate, prove, serve tiles.
