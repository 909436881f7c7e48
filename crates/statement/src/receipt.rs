//! The broker's receipt: which secrets went to which workload. It is in the log before a secret
//! leaves.

use casemate_spec::{Sha256, Sha384};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::intoto::{Predicate, Resource, Statement};

/// The predicate of a receipt. The subject is the workload, by its measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The trust file under which the broker acted.
    pub trust: Sha256,
    /// Digest of the nonce that the workload answered.
    pub nonce: Sha256,
    /// Digest of the workload's evidence.
    pub evidence: Sha256,
    /// Digest of the key (SPKI) that the secrets were sealed to.
    pub envelope_key: Sha256,
    /// The names of the secrets.
    pub secrets: Vec<String>,
    /// When.
    pub time: Timestamp,
}

impl Predicate for Receipt {
    const TYPE: &'static str = "https://casemate.dev/receipt/v1";
}

impl Receipt {
    /// The statement about the workload with this measurement.
    pub fn statement(self, workload: &Sha384) -> Statement<Self> {
        let subject = Resource { name: Some("workload".into()), ..Resource::default() }
            .with_digest("sha384", workload);
        Statement::new(vec![subject], self)
    }
}
