//! Whether a trust file may replace another.
//!
//! Version 1 is pinned by its digest. Each later version names all its ancestors and is signed by
//! the threshold of its predecessor's approvers *and* of its own, people and not keys being counted.

use std::collections::BTreeSet;

use casemate_spec::canonical;
use casemate_spec::trust::{NAMESPACE, Trust, TrustFile};
use casemate_spec::{Coded, Sha256};
use casemate_statement::StatementError;
use casemate_statement::sshsig::SshSignature;

/// A trust file that may not replace another, or that is not signed as it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustRefused {
    /// Older than the one in use.
    #[error("trust file: version {found}, but version {known} is known already")]
    RolledBack {
        /// The version in use.
        known: u64,
        /// The version that was offered.
        found: u64,
    },
    /// Of another installation.
    #[error("trust file: of installation {found}, expected {expected}")]
    OtherRoot {
        /// Digest of the known version 1.
        expected: Sha256,
        /// Digest of the offered file's version 1.
        found: Sha256,
    },
    /// The same version with other content.
    #[error("trust file: version {version} is {found}, expected {expected}")]
    Altered {
        /// The version.
        version: u64,
        /// The digest it must have.
        expected: Sha256,
        /// The digest it has.
        found: Sha256,
    },
    /// Not the next version: versions are missing, or it descends from another one.
    #[error("trust file: version {found} does not follow version {known} ({digest})")]
    NoSuccessor {
        /// The version in use.
        known: u64,
        /// Its digest.
        digest: Sha256,
        /// The version that was offered.
        found: u64,
    },
    /// Too few approvers of the version in use signed.
    #[error("trust file: signed by {found} approvers of version {version}, expected {needed}")]
    Quorum {
        /// The version whose approvers are counted.
        version: u64,
        /// How many must sign.
        needed: usize,
        /// How many signed.
        found: usize,
    },
    /// A signature that is no good, or by somebody who is no approver.
    #[error("trust file: {0}")]
    Signature(#[from] StatementError),
    /// The file has no canonical form, so it can have no digest.
    #[error("trust file: {0}")]
    Form(String),
}

impl From<canonical::CanonicalError> for TrustRefused {
    fn from(e: canonical::CanonicalError) -> Self {
        Self::Form(e.to_string())
    }
}

impl Coded for TrustRefused {
    fn code(&self) -> &'static str {
        match self {
            Self::RolledBack { .. } => "CM-VERI-0070",
            Self::OtherRoot { .. } => "CM-VERI-0071",
            Self::Altered { .. } => "CM-VERI-0072",
            Self::NoSuccessor { .. } => "CM-VERI-0073",
            Self::Quorum { .. } => "CM-VERI-0074",
            Self::Signature(_) => "CM-VERI-0075",
            Self::Form(_) => "CM-VERI-0076",
        }
    }

    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::NoSuccessor { .. } => "give every version in between, one after the other",
            Self::Quorum { .. } => "have the missing approvers sign, with `ssh-keygen -Y sign` too",
            _ => "get the trust file again from the approvers and compare its digest",
        };
        Some(text.into())
    }
}

/// Checks that `new` is `old` itself or its proper next version.
///
/// # Errors
/// [`TrustRefused`] with the rule that is broken.
pub fn check_successor(old: &TrustFile, new: &TrustFile) -> Result<(), TrustRefused> {
    let (old, new_file) = (&old.signed, new);
    let new = &new.signed;
    let (known, found) = (old.version, new.version);
    if found < known {
        return Err(TrustRefused::RolledBack { known, found });
    }
    let (expected_root, found_root) = (old.root_digest()?, new.root_digest()?);
    let digest = old.digest()?;
    if found == known {
        let found = new.digest()?;
        return match found == digest {
            true => Ok(()),
            false => Err(TrustRefused::Altered { version: known, expected: digest, found }),
        };
    }
    if expected_root != found_root {
        return Err(TrustRefused::OtherRoot { expected: expected_root, found: found_root });
    }
    let follows = known.checked_add(1) == Some(found)
        && new.ancestors.split_last() == Some((&digest, old.ancestors.as_slice()));
    if !follows {
        return Err(TrustRefused::NoSuccessor { known, digest, found });
    }
    check_quorum(old, new_file, &[new])?;
    check_quorum(new, new_file, &[old])
}

/// Checks what a trust file can show without its predecessor: a version after the first is signed
/// by the threshold of its own approvers. Version 1 is pinned by its digest and needs no signature.
///
/// # Errors
/// [`TrustRefused::Quorum`] or [`TrustRefused::Signature`].
pub fn check_signatures(file: &TrustFile) -> Result<(), TrustRefused> {
    if file.signed.version == 1 && file.signatures.is_empty() {
        return Ok(());
    }
    let bytes = canonical::to_vec(&file.signed)?;
    let mut people = BTreeSet::new();
    for signature in &file.signatures {
        let signature = SshSignature::parse(&signature.sshsig)?;
        signature.verify_deliberate(NAMESPACE, &bytes)?;
        // The predecessor's approvers sign too; they are counted by `check_successor`.
        if let Some(approver) = file.signed.approver_of(&signature.key().to_line()) {
            people.insert(approver.name.as_str());
        }
    }
    let needed = if file.signed.version == 1 { 0 } else { file.signed.thresholds.trust };
    enough(&file.signed, needed, people.len())
}

/// Counts the approvers of `judge` who signed `file`. Signatures by approvers of `others` are let
/// pass; one by anybody else is refused.
fn check_quorum(judge: &Trust, file: &TrustFile, others: &[&Trust]) -> Result<(), TrustRefused> {
    let bytes = canonical::to_vec(&file.signed)?;
    let mut people = BTreeSet::new();
    for signature in &file.signatures {
        let signature = SshSignature::parse(&signature.sshsig)?;
        signature.verify_deliberate(NAMESPACE, &bytes)?;
        let line = signature.key().to_line();
        match judge.approver_of(&line) {
            Some(approver) => {
                people.insert(approver.name.as_str());
            }
            None if others.iter().any(|o| o.approver_of(&line).is_some()) => {}
            None => {
                let fingerprint = signature.key().fingerprint();
                return Err(StatementError::NotAnApprover { fingerprint }.into());
            }
        }
    }
    enough(judge, judge.thresholds.trust, people.len())
}

fn enough(judge: &Trust, needed: usize, found: usize) -> Result<(), TrustRefused> {
    match found >= needed {
        true => Ok(()),
        false => Err(TrustRefused::Quorum { version: judge.version, needed, found }),
    }
}
