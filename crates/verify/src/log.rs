//! Whether each statement is in the ledger, and in the order in which things must have happened.

use casemate_spec::trust::LedgerTrust;
use casemate_statement::StatementError;
use casemate_statement::rekor::{HashedRekord, LogEntry};
use casemate_tlog::note::VerifierKey;

use crate::chain::{LedgerLink, LedgerPosition};
use crate::check::Checks;
use crate::check::codes::{LOG_CONTENT, LOG_ORDER, LOG_OTHER, LOG_PROOF, TRUST_KEY};

/// What happened when, in terms of what must have been logged before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Source,
    Build,
    Approval,
    Release,
}

/// The ledger of a trust file, and what was found in it.
pub(crate) struct Ledger {
    key: Option<VerifierKey>,
    entries: Vec<(Step, LedgerPosition)>,
    origin: String,
}

impl Ledger {
    pub(crate) fn new(trust: &LedgerTrust, checks: &mut Checks) -> Self {
        let key = match trust.vkey.parse::<VerifierKey>() {
            Ok(key) if key.name() == trust.origin => Some(key),
            Ok(key) => {
                let expected = format!("a key named {:?}", trust.origin);
                checks.check("ledger key", TRUST_KEY, false, expected, key.name());
                None
            }
            Err(e) => {
                checks.check("ledger key", TRUST_KEY, false, "a verifier key in the trust file", e);
                None
            }
        };
        Self { key, entries: Vec::new(), origin: trust.origin.clone() }
    }

    /// Checks that `entry` proves `record` to be in the log.
    pub(crate) fn check(
        &mut self,
        step: Step,
        what: String,
        entry: &LogEntry,
        record: Result<HashedRekord, StatementError>,
        checks: &mut Checks,
    ) {
        // Without the key there is a failed check already.
        let Some(key) = &self.key else { return };
        let result = record.and_then(|record| entry.verify_record(key, &record));
        let code = match &result {
            Err(StatementError::Entry { field: "logId", .. }) => LOG_OTHER,
            Err(StatementError::Entry { field: "digest" | "signature" | "verifier", .. }) => {
                LOG_CONTENT
            }
            _ => LOG_PROOF,
        };
        let expected = format!("{what} in the log {}", self.origin);
        let at = |l: &casemate_statement::rekor::Logged| format!("entry {} of {}", l.index, l.size);
        if let Some(logged) = checks.result("ledger entry", code, expected, result, at) {
            let (index, size) = (logged.index, logged.size);
            self.entries.push((step, LedgerPosition { what, index, size }));
        }
    }

    /// Checks that nothing was logged before what it builds on.
    pub(crate) fn check_order(&self, checks: &mut Checks) {
        for (step, position) in &self.entries {
            let late = self.entries.iter().find(|(s, p)| s < step && p.index >= position.index);
            if let Some((_, late)) = late {
                let expected = format!("{} logged before {}", late.what, position.what);
                let found = format!("entries {} and {}", late.index, position.index);
                checks.check("ledger order", LOG_ORDER, false, expected, found);
                return;
            }
        }
        let found = format!("{} entries in order", self.entries.len());
        let expected = "source, build, approvals, release, in this order";
        checks.check("ledger order", LOG_ORDER, true, expected, found);
    }

    pub(crate) fn into_link(self) -> LedgerLink {
        let entries = self.entries.into_iter().map(|(_, position)| position).collect();
        LedgerLink { origin: self.origin, entries }
    }
}
