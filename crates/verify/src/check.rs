//! Checks: what was looked at, what was expected, what was found.

use casemate_spec::Coded;
use casemate_statement::StatementError;
use serde::Serialize;

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether it passed.
    pub passed: bool,
    /// The stable code of its failure.
    pub code: &'static str,
    /// What passes.
    pub expected: String,
    /// What was there.
    pub found: String,
}

/// A verdict that is a refusal: the first check that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}: expected {expected}, found {found}")]
pub struct VerifyError {
    /// Name of the check.
    pub check: &'static str,
    /// Its stable code.
    pub code: &'static str,
    /// What would have passed.
    pub expected: String,
    /// What was there instead.
    pub found: String,
}

impl Coded for VerifyError {
    fn code(&self) -> &'static str {
        self.code
    }

    fn fix(&self) -> Option<String> {
        let text = match self.code {
            TRUST_KNOWN | TRUST_NAMED | TRUST_SIGNED => {
                "get the trust file again from the approvers and compare its digest"
            }
            ARTIFACT => "get artifact and bundle again from one release",
            EVIDENCE | BUILDER | EVIDENCE_NAMED => {
                "build again with a builder whose measurement and TEE the trust file lists"
            }
            SOURCE_SIGNED | SOURCE_WHOLE | SOURCE_SUMMARY | SOURCE_TRUST | PROVENANCE_SIGNED
            | PROVENANCE_ARTIFACTS | PROVENANCE_SOURCE | PROVENANCE_BUILDER | PROVENANCE_TRUST => {
                "the bundle was altered or not made by a Casemate builder: build again"
            }
            LOG_PROOF | LOG_CONTENT | LOG_OTHER | LOG_ORDER => {
                "get the bundle again; if it persists, audit the ledger with `casemate ledger verify`"
            }
            APPROVAL_CONTENT | APPROVAL_SIGNATURE => "have this very bundle approved again",
            APPROVAL_PERSON => "have an approver of the trust file approve",
            APPROVAL_TWICE | APPROVAL_QUORUM => "have another approver approve",
            RELEASE_MISSING => "sign the release with `casemate sign BUNDLE`",
            RELEASE_SIGNED | RELEASE_CONTENT | RELEASE_TRUST | RELEASE_INPUTS | ARTIFACT_SIGNED => {
                "the bundle was altered after it was signed: get it again, or sign it again"
            }
            _ => return None,
        };
        Some(text.into())
    }
}

/// The codes of this crate's checks.
pub(crate) mod codes {
    pub(crate) const TRUST_KNOWN: &str = "CM-VERI-0001";
    pub(crate) const TRUST_NAMED: &str = "CM-VERI-0002";
    pub(crate) const ARTIFACT: &str = "CM-VERI-0003";
    pub(crate) const TRUST_SIGNED: &str = "CM-VERI-0004";
    pub(crate) const TRUST_KEY: &str = "CM-VERI-0005";
    pub(crate) const EVIDENCE: &str = "CM-VERI-0010";
    pub(crate) const BUILDER: &str = "CM-VERI-0011";
    pub(crate) const EVIDENCE_NAMED: &str = "CM-VERI-0012";
    pub(crate) const SOURCE_SIGNED: &str = "CM-VERI-0020";
    pub(crate) const SOURCE_WHOLE: &str = "CM-VERI-0021";
    pub(crate) const SOURCE_SUMMARY: &str = "CM-VERI-0022";
    pub(crate) const SOURCE_TRUST: &str = "CM-VERI-0023";
    pub(crate) const PROVENANCE_SIGNED: &str = "CM-VERI-0030";
    pub(crate) const PROVENANCE_ARTIFACTS: &str = "CM-VERI-0031";
    pub(crate) const PROVENANCE_SOURCE: &str = "CM-VERI-0032";
    pub(crate) const PROVENANCE_BUILDER: &str = "CM-VERI-0033";
    pub(crate) const PROVENANCE_TRUST: &str = "CM-VERI-0034";
    pub(crate) const LOG_PROOF: &str = "CM-VERI-0040";
    pub(crate) const LOG_CONTENT: &str = "CM-VERI-0041";
    pub(crate) const LOG_OTHER: &str = "CM-VERI-0042";
    pub(crate) const LOG_ORDER: &str = "CM-VERI-0043";
    pub(crate) const APPROVAL_CONTENT: &str = "CM-VERI-0050";
    pub(crate) const APPROVAL_SIGNATURE: &str = "CM-VERI-0051";
    pub(crate) const APPROVAL_PERSON: &str = "CM-VERI-0052";
    pub(crate) const APPROVAL_TWICE: &str = "CM-VERI-0053";
    pub(crate) const APPROVAL_QUORUM: &str = "CM-VERI-0054";
    pub(crate) const RELEASE_MISSING: &str = "CM-VERI-0060";
    pub(crate) const RELEASE_SIGNED: &str = "CM-VERI-0061";
    pub(crate) const RELEASE_CONTENT: &str = "CM-VERI-0062";
    pub(crate) const RELEASE_TRUST: &str = "CM-VERI-0063";
    pub(crate) const RELEASE_INPUTS: &str = "CM-VERI-0064";
    pub(crate) const ARTIFACT_SIGNED: &str = "CM-VERI-0065";
}

use codes::*;

/// Collects checks.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<Check>);

impl Checks {
    /// Records a comparison. Returns whether it passed.
    pub(crate) fn check(
        &mut self,
        name: &'static str,
        code: &'static str,
        passed: bool,
        expected: impl ToString,
        found: impl ToString,
    ) -> bool {
        let (expected, found) = (expected.to_string(), found.to_string());
        self.0.push(Check { name, passed, code, expected, found });
        passed
    }

    /// Records that two values are the same.
    pub(crate) fn same<T: PartialEq + ToString + ?Sized>(
        &mut self,
        name: &'static str,
        code: &'static str,
        expected: &T,
        found: &T,
    ) -> bool {
        self.check(name, code, expected == found, expected.to_string(), found.to_string())
    }

    /// Records a result: what it is on success is described by `found`.
    pub(crate) fn result<T>(
        &mut self,
        name: &'static str,
        code: &'static str,
        expected: impl ToString,
        result: Result<T, StatementError>,
        found: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        match result {
            Ok(value) => {
                self.check(name, code, true, expected, found(&value));
                Some(value)
            }
            Err(e) => {
                self.check(name, code, false, expected, format!("{e} ({})", e.code()));
                None
            }
        }
    }

    pub(crate) fn all_passed(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|c| c.passed)
    }

    pub(crate) fn into_vec(self) -> Vec<Check> {
        self.0
    }
}
