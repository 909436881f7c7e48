//! The workload measurement: one SHA-384 over all that decides what a program does.
//!
//! It covers the spec as it takes effect, every file of the root, the agent and the production
//! flag. [`RootManifest::compare`] and [`WorkloadDetail::compare`] say *which* of them differs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical::{self, CanonicalError};
use crate::digest::{Sha256, Sha384};

/// What kind of node a path in the root is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NodeKind {
    /// A regular file, whose content is hashed.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, whose target text is measured.
    Symlink,
}

/// One path of the root as it is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootEntry {
    /// Absolute path inside the enclave, no `.` or `..` segments.
    pub path: String,
    /// What the path is.
    pub kind: NodeKind,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Size in bytes of a file; 0 for all else.
    pub size: u64,
    /// SHA-256 of a file's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Target of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Every path of a root, sorted by path, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RootManifest(Vec<RootEntry>);

impl RootManifest {
    /// Sorts `entries` by path; of two entries with one path the later is kept.
    pub fn new(entries: Vec<RootEntry>) -> Self {
        let by_path: BTreeMap<String, RootEntry> =
            entries.into_iter().map(|e| (e.path.clone(), e)).collect();
        Self(by_path.into_values().collect())
    }

    /// The entries in path order.
    pub fn entries(&self) -> &[RootEntry] {
        &self.0
    }

    /// SHA-256 over the canonical JSON of the entries.
    ///
    /// # Errors
    /// Never in practice: the entries are plain text and integers below 2^53.
    pub fn digest(&self) -> Result<Sha256, CanonicalError> {
        canonical::sha256(self)
    }

    /// The paths in which `self` and `other` differ, with how.
    pub fn compare(&self, other: &Self) -> Vec<Difference> {
        let index = |m: &Self| -> BTreeMap<String, RootEntry> {
            m.0.iter().map(|e| (e.path.clone(), e.clone())).collect()
        };
        let (mine, theirs) = (index(self), index(other));
        let mut out = Vec::new();
        for (path, a) in &mine {
            match theirs.get(path) {
                None => out.push(Difference::new(path, "present", "absent")),
                Some(b) if a != b => out.push(Difference::new(path, &a.describe(), &b.describe())),
                Some(_) => {}
            }
        }
        for path in theirs.keys().filter(|p| !mine.contains_key(*p)) {
            out.push(Difference::new(path, "absent", "present"));
        }
        out
    }
}

impl RootEntry {
    fn describe(&self) -> String {
        match self.kind {
            NodeKind::File => format!(
                "file mode {:04o} size {} sha256 {}",
                self.mode,
                self.size,
                self.sha256.map_or_else(|| "none".into(), |d| d.to_string())
            ),
            NodeKind::Directory => format!("directory mode {:04o}", self.mode),
            NodeKind::Symlink => format!("symlink to {}", self.target.as_deref().unwrap_or("")),
        }
    }
}

/// One file or setting in which two workloads differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The path, or the setting as a dotted name (`spec.command`).
    pub what: String,
    /// What the first has.
    pub first: String,
    /// What the second has.
    pub second: String,
}

impl Difference {
    fn new(what: &str, first: &str, second: &str) -> Self {
        Self { what: what.into(), first: first.into(), second: second.into() }
    }
}

/// The four inputs of the workload measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Digest of the effective spec ([`crate::spec::EffectiveSpec::digest`]).
    pub spec: Sha256,
    /// Digest of the root manifest ([`RootManifest::digest`]).
    pub root: Sha256,
    /// SHA-384 of the agent binary.
    pub agent: Sha384,
    /// False means debuggable: such an enclave never receives a secret.
    pub production: bool,
}

impl Workload {
    /// The workload measurement: SHA-384 over the canonical JSON of the four inputs.
    ///
    /// # Errors
    /// Never in practice: digests and a boolean always have a canonical form.
    pub fn measurement(&self) -> Result<Sha384, CanonicalError> {
        Ok(Sha384::of(&canonical::to_vec(self)?))
    }
}

/// A workload with everything its measurement was made of, as `measure` writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadDetail {
    /// The workload measurement.
    pub measurement: Sha384,
    /// Its four inputs.
    pub workload: Workload,
    /// The effective spec, as hashed.
    pub spec: serde_json::Value,
    /// The root manifest, as hashed.
    pub root: RootManifest,
}

impl WorkloadDetail {
    /// Every file and setting in which two workloads differ; empty if they measure the same.
    pub fn compare(&self, other: &Self) -> Vec<Difference> {
        let mut out = Vec::new();
        compare_values("spec", &self.spec, &other.spec, &mut out);
        out.extend(self.root.compare(&other.root));
        let mut push = |what: &str, a: String, b: String| {
            if a != b {
                out.push(Difference::new(what, &a, &b));
            }
        };
        push("agent", self.workload.agent.to_string(), other.workload.agent.to_string());
        push(
            "production",
            self.workload.production.to_string(),
            other.workload.production.to_string(),
        );
        out
    }
}

fn compare_values(
    name: &str,
    a: &serde_json::Value,
    b: &serde_json::Value,
    out: &mut Vec<Difference>,
) {
    use serde_json::Value;
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let mut keys: Vec<&String> = x.keys().chain(y.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let none = Value::Null;
                let (p, q) = (x.get(key).unwrap_or(&none), y.get(key).unwrap_or(&none));
                compare_values(&format!("{name}.{key}"), p, q, out);
            }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            for (i, (p, q)) in x.iter().zip(y).enumerate() {
                compare_values(&format!("{name}[{i}]"), p, q, out);
            }
        }
        _ if a != b => out.push(Difference::new(name, &a.to_string(), &b.to_string())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: &[u8]) -> RootEntry {
        RootEntry {
            path: path.into(),
            kind: NodeKind::File,
            mode: 0o755,
            size: content.len() as u64,
            sha256: Some(Sha256::of(content)),
            target: None,
        }
    }

    #[test]
    fn order_of_discovery_does_not_change_the_digest() {
        let (a, b) = (file("/a", b"1"), file("/b", b"2"));
        let one = RootManifest::new(vec![a.clone(), b.clone()]);
        let two = RootManifest::new(vec![b, a]);
        assert_eq!(one.digest().expect("digest"), two.digest().expect("digest"));
    }

    #[test]
    fn names_the_file_that_differs() {
        let one = RootManifest::new(vec![file("/a", b"1"), file("/b", b"2")]);
        let two = RootManifest::new(vec![file("/a", b"1"), file("/b", b"3")]);
        let found = one.compare(&two);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "/b");
    }

    #[test]
    fn every_input_changes_the_measurement() {
        let base = Workload {
            spec: Sha256([1; 32]),
            root: Sha256([2; 32]),
            agent: Sha384([3; 48]),
            production: true,
        };
        let m = base.measurement().expect("measurement");
        let changed = [
            Workload { spec: Sha256([9; 32]), ..base.clone() },
            Workload { root: Sha256([9; 32]), ..base.clone() },
            Workload { agent: Sha384([9; 48]), ..base.clone() },
            Workload { production: false, ..base.clone() },
        ];
        for other in changed {
            assert_ne!(m, other.measurement().expect("measurement"));
        }
        assert_eq!(m.to_string(), include_str!("../golden/measurement.hex").trim());
    }
}
