//! The agent's binary, built from this workspace's own source and carried inside whatever links
//! this crate: an enclave needs nothing of the host but its kernel.
//!
//! The build script runs a second cargo over `casemate-enclave-agent` with a profile and flags of
//! its own, so that the bytes, and with them every measurement, depend on the source, the lock
//! file and the toolchain, not on how or where the outer build runs.

#![forbid(unsafe_code)]

use std::sync::OnceLock;

use casemate_spec::Sha384;

/// The static agent binary.
pub const AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/casemate-agent"));

/// SHA-384 of [`AGENT`]: the launch measurement of the platform `host`. Computed once.
pub fn digest() -> Sha384 {
    static DIGEST: OnceLock<Sha384> = OnceLock::new();
    *DIGEST.get_or_init(|| Sha384::of(AGENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_a_static_program() {
        assert!(AGENT.starts_with(b"\x7fELF"));
        // A program interpreter would be named in the first page.
        assert!(!AGENT[..4096].windows(8).any(|w| w == b"ld-linux"));
    }

    #[test]
    fn names_no_folder_of_the_machine_it_was_built_on() {
        let here = env!("CARGO_MANIFEST_DIR").as_bytes();
        assert!(!AGENT.windows(here.len()).any(|w| w == here));
    }
}
