//! How a key, a nonce and a workload enter a TEE's report data.
//!
//! `report_data` is 64 bytes: SHA-512 over the domain `casemate-report-v1\0`, then purpose, nonce
//! and SubjectPublicKeyInfo, each behind its length as a 32-bit big-endian number, then the 48
//! bytes of the workload measurement. Whoever verifies evidence computes it again from what it
//! knows itself; nothing in it is taken from the evidence.

use aws_lc_rs::digest::{Context, SHA512};
use serde::{Deserialize, Serialize};

use crate::digest::Sha384;

const DOMAIN: &[u8] = b"casemate-report-v1\0";

/// Size of a verifier's nonce, in bytes. It is random, single use and valid for
/// [`NONCE_LIFETIME_SECONDS`].
pub const NONCE_SIZE: usize = 32;

/// How long a verifier's nonce may be answered, in seconds.
pub const NONCE_LIFETIME_SECONDS: u64 = 60;

/// What a key in report data is for. Evidence for one purpose is never accepted for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Purpose {
    /// The key receives secrets from the broker. Needs a nonce; only the agent can ask for it.
    SecretRelease,
    /// The key signs statements (provenance). No nonce: freshness comes from the ledger.
    StatementKey,
    /// The key identifies a long-lived service (ledger, broker, signer). No nonce.
    ServiceKey,
    /// The program or a person asks for evidence of the workload. Needs a nonce.
    Attest,
}

impl Purpose {
    /// The text that is hashed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SecretRelease => "secret-release",
            Self::StatementKey => "statement-key",
            Self::ServiceKey => "service-key",
            Self::Attest => "attest",
        }
    }

    /// Whether evidence for this purpose is only good with a verifier's nonce.
    pub const fn needs_nonce(self) -> bool {
        matches!(self, Self::SecretRelease | Self::Attest)
    }
}

/// The 64 bytes of report data for this purpose, nonce (empty if none), DER-encoded
/// SubjectPublicKeyInfo (RFC 5280; empty if no key) and workload measurement.
pub fn report_data(purpose: Purpose, nonce: &[u8], spki: &[u8], workload: &Sha384) -> [u8; 64] {
    let mut context = Context::new(&SHA512);
    context.update(DOMAIN);
    for field in [purpose.as_str().as_bytes(), nonce, spki] {
        // The fields are at most a few hundred bytes; a length over 32 bits cannot occur, and
        // saturating keeps two different inputs from ever sharing an encoding.
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        context.update(&length.to_be_bytes());
        context.update(field);
    }
    context.update(workload.as_bytes());
    let mut out = [0; 64];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_changes_the_report_data() {
        let (w, v) = (Sha384::of(b"w"), Sha384::of(b"v"));
        let base = report_data(Purpose::Attest, b"n", b"k", &w);
        for other in [
            report_data(Purpose::StatementKey, b"n", b"k", &w),
            report_data(Purpose::Attest, b"m", b"k", &w),
            report_data(Purpose::Attest, b"n", b"j", &w),
            report_data(Purpose::Attest, b"n", b"k", &v),
            report_data(Purpose::Attest, b"nk", b"", &w),
            report_data(Purpose::Attest, b"", b"nk", &w),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn report_data_keeps_its_golden_value() {
        let data = report_data(Purpose::SecretRelease, &[7; 32], b"spki", &Sha384([1; 48]));
        assert_eq!(hex::encode(data), include_str!("../golden/report_data.hex").trim());
    }
}
