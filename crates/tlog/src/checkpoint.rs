//! C2SP tlog-checkpoint: the size and the root of a log, which the log signs as a note.

use std::fmt::Write as _;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_spec::Sha256;

use crate::error::TlogError;
use crate::merkle::{empty_root, verify_consistency};
use crate::note::{Note, Signer, VerifierKey};

/// The state of a log: who, how many leaves, under which root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, unique in the world.
    pub origin: String,
    /// How many leaves the log has.
    pub size: u64,
    /// The root over them.
    pub root: Sha256,
}

impl Checkpoint {
    /// A checkpoint that `key` signed for its own log: origin and key name are the same.
    ///
    /// # Errors
    /// As [`Note::parse`], [`Note::verify`] and [`Self::parse`]; [`TlogError::Origin`].
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, TlogError> {
        let (text, _) = Note::parse(note)?.verify(key)?;
        let checkpoint = Self::parse(text)?;
        if checkpoint.origin != key.name() {
            let (expected, found) = (key.name().into(), checkpoint.origin);
            return Err(TlogError::Origin { expected, found });
        }
        Ok(checkpoint)
    }

    /// Reads the text of a checkpoint, below which signatures may have stood. Extension lines are
    /// allowed, as the format asks, and mean nothing here.
    ///
    /// # Errors
    /// [`TlogError::Checkpoint`].
    pub fn parse(text: &str) -> Result<Self, TlogError> {
        let wrong = |reason: String| TlogError::Checkpoint(reason);
        let lines: Vec<&str> = match text.strip_suffix('\n') {
            Some(lines) => lines.split('\n').collect(),
            None => return Err(wrong("does not end in a newline".into())),
        };
        let [origin, size, root, extensions @ ..] = lines.as_slice() else {
            return Err(wrong("has fewer lines than origin, size and root".into()));
        };
        if origin.is_empty() || extensions.iter().any(|line| line.is_empty()) {
            return Err(wrong("has an empty line".into()));
        }
        let parsed = size.parse().ok().filter(|parsed: &u64| parsed.to_string() == *size);
        let Some(size) = parsed else {
            return Err(wrong(format!("expected a size in its second line, found {size:?}")));
        };
        let bytes = BASE64_STANDARD.decode(root).ok().and_then(|root| root.try_into().ok());
        let Some(root) = bytes.map(Sha256) else {
            return Err(wrong(format!(
                "expected a SHA-256 root in its third line, found {root:?}"
            )));
        };
        if size == 0 && root != empty_root() {
            return Err(wrong("has a root that is not that of an empty log".into()));
        }
        Ok(Self { origin: (*origin).into(), size, root })
    }

    /// The text that is signed.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.origin.len() + 70);
        // writing to a string does not fail
        let _ = writeln!(text, "{}\n{}", self.origin, self.size);
        text + &BASE64_STANDARD.encode(self.root.0) + "\n"
    }

    /// The signed note of the state `size`, `root` of the signer's log.
    ///
    /// # Errors
    /// [`TlogError::Signing`].
    pub fn sign(signer: &Signer, size: u64, root: Sha256) -> Result<String, TlogError> {
        let origin = signer.verifier().name().into();
        signer.sign(&Self { origin, size, root }.text())
    }

    /// Checks that the log went from `self` to `later` by appending only.
    ///
    /// # Errors
    /// [`TlogError::Origin`] for another log, else as [`verify_consistency`].
    pub fn verify_successor(&self, later: &Self, proof: &[Sha256]) -> Result<(), TlogError> {
        if self.origin != later.origin {
            let (expected, found) = (self.origin.clone(), later.origin.clone());
            return Err(TlogError::Origin { expected, found });
        }
        verify_consistency(self.size, later.size, &self.root, &later.root, proof)
    }
}
