//! Builds under observation: real compilers on this machine, and attacks on them.
//!
//! As root everything runs; otherwise only the refusal to weaken does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

mod attacks;
mod honest;
mod world;
