//! in-toto Statement v1 (<https://github.com/in-toto/attestation/tree/main/spec/v1>): a predicate
//! about subjects that are named by digest.

use std::collections::BTreeMap;

use casemate_spec::Sha256;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::StatementError;
use crate::dsse::Envelope;
use crate::json;
use crate::key::SigningKey;

/// The type of every statement.
pub const TYPE: &str = "https://in-toto.io/Statement/v1";

/// The largest statement that is read, in bytes.
pub const MAX_SIZE: usize = 48 << 20;

/// What a statement says, with the URI that names its form.
pub trait Predicate: Serialize + DeserializeOwned {
    /// The predicate type.
    const TYPE: &'static str;
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement<P> {
    /// Always [`TYPE`].
    #[serde(rename = "_type")]
    pub format: String,
    /// What it is about.
    pub subject: Vec<Resource>,
    /// The form of the predicate.
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What it says.
    pub predicate: P,
}

/// A file, package, repository or attestation, named by digest (in-toto `ResourceDescriptor`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Resource {
    /// Its name where it is used, such as a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is from, such as a purl or a git URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Digests by algorithm (`sha256`, `gitCommit`, `gitTree`), in hexadecimal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// Where to fetch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_location: Option<String>,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// More about it: [`SIZE`] for artifacts, [`CLASS`] for what a build read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Value>,
}

/// Annotation with an artifact's size in bytes.
pub const SIZE: &str = "casemate.dev/size";

/// Annotation with the class of what a build read: `source`, `generated`, `fetched`, `toolchain`.
pub const CLASS: &str = "casemate.dev/class";

impl Resource {
    /// A resource with a name and a SHA-256.
    pub fn named(name: impl Into<String>, sha256: &Sha256) -> Self {
        Self { name: Some(name.into()), ..Self::default() }.with_digest("sha256", sha256)
    }

    /// A resource with a URI.
    pub fn at(uri: impl Into<String>) -> Self {
        Self { uri: Some(uri.into()), ..Self::default() }
    }

    /// The same with this URI.
    #[must_use]
    pub fn with_uri(mut self, uri: impl Into<String>) -> Self {
        self.uri = Some(uri.into());
        self
    }

    /// The same with a digest.
    #[must_use]
    pub fn with_digest(mut self, algorithm: &str, digest: impl ToString) -> Self {
        self.digest.insert(algorithm.into(), digest.to_string());
        self
    }

    /// The same with an annotation.
    #[must_use]
    pub fn with_annotation(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.annotations.insert(name.into(), value.into());
        self
    }

    /// Its SHA-256, if it has one.
    pub fn sha256(&self) -> Option<Sha256> {
        self.digest.get("sha256")?.parse().ok()
    }
}

impl<P: Predicate> Statement<P> {
    /// A statement about `subject`.
    pub fn new(subject: Vec<Resource>, predicate: P) -> Self {
        Self { format: TYPE.into(), subject, predicate_type: P::TYPE.into(), predicate }
    }

    /// Parses a statement with this predicate.
    ///
    /// # Errors
    /// [`StatementError::Syntax`], [`StatementError::Size`], or [`StatementError::Type`] for
    /// another predicate.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        let head: Head = json::from_slice(bytes, "in-toto statement", MAX_SIZE)?;
        check_type("predicate type", P::TYPE, &head.predicate_type)?;
        let statement: Self = json::again(bytes, P::TYPE)?;
        check_type("statement type", TYPE, &statement.format)?;
        if statement.subject.is_empty() {
            return Err(StatementError::Count { what: "subjects", expected: 1, found: 0 });
        }
        Ok(statement)
    }

    /// Its canonical JSON (RFC 8785).
    ///
    /// # Errors
    /// [`StatementError::Crypto`] if a number in an annotation has no canonical form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StatementError> {
        json::canonical(self)
    }

    /// Signs it.
    ///
    /// # Errors
    /// As [`Self::to_bytes`] and [`Envelope::sign`].
    pub fn sign(&self, key: &SigningKey) -> Result<Envelope, StatementError> {
        Envelope::sign(key, self.to_bytes()?)
    }
}

/// The type fields of a statement, to name what was found when it is another one.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "predicateType", default)]
    predicate_type: String,
}

pub(crate) fn check_type(
    what: &'static str,
    expected: &str,
    found: &str,
) -> Result<(), StatementError> {
    if expected == found {
        return Ok(());
    }
    let (expected, found) = (expected.into(), found.chars().take(200).collect());
    Err(StatementError::Type { what, expected, found })
}
