//! The agent: the whole of what runs inside an enclave beside the program.
//!
//! It is told what to build and run, measures what it really built, proves that to others,
//! fetches secrets, takes every privilege away and starts the program; then it stays as its init
//! process. Nothing it is told is believed: what matters is measured, the rest carries no trust.
//!
//! - `outer`: the process that the starting half spawned; makes the namespaces, then only watches
//! - `inner`: process 1 inside; the order of everything
//! - `root`, `mounts`: the root, hashed while it is copied, and what is mounted into it
//! - `evidence`, `relay`, `secrets`: proving, and getting secrets through an untrusted relay
//! - `network`, `proxy`: loopback, declared listeners and peers
//! - `confine`, `seccomp`, `program`: what the program may do, and its start
//! - `supervise`, `api`: its life, and its questions
//! - `sys`: the system calls that no safe wrapper offers; the only `unsafe` code
//!
//! A part that can not be set up ends the enclave. There is no weaker mode.

mod api;
mod confine;
mod error;
mod evidence;
mod inner;
mod mounts;
mod network;
mod outer;
mod probe;
mod program;
mod proxy;
mod relay;
mod root;
mod seccomp;
mod secrets;
mod supervise;
mod sys;

pub use error::AgentError;
pub use outer::run;
