//! The plan of a root: which paths it shall have and where their bytes come from.
//!
//! A plan is made outside and is not trusted. The agent builds exactly these nodes, hashes what
//! it copies while it copies it, and measures what it built: a plan that lies is another
//! measurement. [`Plan::new`] and the parser keep only plans that can be built without leaving
//! the new root.

use std::collections::BTreeMap;

use casemate_spec::Sha256;
use casemate_spec::workload::{NodeKind, RootEntry};
use serde::{Deserialize, Serialize};

/// Largest number of nodes in a plan.
pub const MAX_NODES: usize = 2_000_000;

/// A plan that can not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plan of the root: {path:?}: {problem}")]
pub struct PlanError {
    /// The path at fault.
    pub path: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// What one path of the root is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Content {
    /// A directory.
    Directory,
    /// A symbolic link with this target.
    Symlink(String),
    /// A regular file whose bytes are read from this path of the host.
    File(String),
    /// A regular file with these bytes (base64 in JSON).
    Literal(#[serde(with = "base64_bytes")] Vec<u8>),
}

/// One path of the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Absolute path inside the enclave.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What is there.
    pub content: Content,
}

impl Node {
    /// The node as it is measured, given its size and digest if it is a file.
    pub fn entry(&self, file: Option<(u64, Sha256)>) -> RootEntry {
        let (kind, target) = match &self.content {
            Content::Directory => (NodeKind::Directory, None),
            Content::Symlink(target) => (NodeKind::Symlink, Some(target.clone())),
            Content::File(_) | Content::Literal(_) => (NodeKind::File, None),
        };
        RootEntry {
            path: self.path.clone(),
            kind,
            mode: self.mode,
            size: file.map_or(0, |(size, _)| size),
            sha256: file.map(|(_, digest)| digest),
            target,
        }
    }
}

/// The nodes of a root in path order, each path once, every parent a directory of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Node>", into = "Vec<Node>")]
pub struct Plan(Vec<Node>);

impl Plan {
    /// A plan of these nodes; of two with one path the later is kept, missing parent directories
    /// are added with mode 0755.
    ///
    /// # Errors
    /// [`PlanError`] naming a path that is not plain and absolute, whose parent is no directory,
    /// or whose mode is out of range.
    pub fn new(nodes: Vec<Node>) -> Result<Self, PlanError> {
        let mut by_path: BTreeMap<String, Node> = BTreeMap::new();
        for node in nodes {
            by_path.insert(node.path.clone(), node);
        }
        let mut parents: BTreeMap<String, Node> = BTreeMap::new();
        for path in by_path.keys() {
            for (at, _) in path.match_indices('/').skip(1) {
                let parent = &path[..at];
                if !by_path.contains_key(parent) && !parents.contains_key(parent) {
                    parents.insert(
                        parent.to_owned(),
                        Node { path: parent.to_owned(), mode: 0o755, content: Content::Directory },
                    );
                }
            }
        }
        by_path.append(&mut parents);
        Self::try_from(by_path.into_values().collect::<Vec<_>>())
    }

    /// The nodes in path order; a directory comes before what is in it.
    pub fn nodes(&self) -> &[Node] {
        &self.0
    }
}

impl From<Plan> for Vec<Node> {
    fn from(plan: Plan) -> Self {
        plan.0
    }
}

impl TryFrom<Vec<Node>> for Plan {
    type Error = PlanError;

    fn try_from(mut nodes: Vec<Node>) -> Result<Self, PlanError> {
        let bad = |path: &str, problem| Err(PlanError { path: path.into(), problem });
        if nodes.len() > MAX_NODES {
            return bad("/", "more nodes than an enclave can hold");
        }
        nodes.sort_by(|a, b| a.path.cmp(&b.path));
        let mut directories = std::collections::HashSet::from([""]);
        for pair in nodes.windows(2) {
            if pair[0].path == pair[1].path {
                return bad(&pair[0].path, "listed twice");
            }
        }
        for node in &nodes {
            check_path(node)?;
            let parent = node.path.rsplit_once('/').map_or("", |(parent, _)| parent);
            if !directories.contains(parent) {
                return bad(&node.path, "its parent is no directory of the plan");
            }
            if node.content == Content::Directory {
                directories.insert(&node.path);
            }
        }
        Ok(Self(nodes))
    }
}

mod base64_bytes {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map_err(de::Error::custom)
    }
}

fn check_path(node: &Node) -> Result<(), PlanError> {
    let bad = |problem| Err(PlanError { path: node.path.clone(), problem });
    let plain = node.path.strip_prefix('/').is_some_and(|rest| {
        !rest.contains('\0') && rest.split('/').all(|s| !matches!(s, "" | "." | ".."))
    });
    if !plain {
        return bad("not a plain absolute path");
    }
    if node.mode > 0o1777 {
        return bad("mode is not made of permission bits");
    }
    match &node.content {
        Content::Symlink(t) if t.is_empty() || t.contains('\0') => bad("empty link target"),
        Content::File(s) if !s.starts_with('/') || s.contains('\0') => bad("source not absolute"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(path: &str, content: Content) -> Node {
        Node { path: path.into(), mode: 0o755, content }
    }

    #[test]
    fn adds_parents_and_keeps_the_later_of_two() {
        let plan = Plan::new(vec![
            node("/a/b/c", Content::Literal(b"1".to_vec())),
            node("/a/b/c", Content::Literal(b"2".to_vec())),
        ])
        .expect("plan");
        let paths: Vec<&str> = plan.nodes().iter().map(|n| n.path.as_str()).collect();
        assert_eq!(paths, ["/a", "/a/b", "/a/b/c"]);
        assert_eq!(plan.nodes()[2].content, Content::Literal(b"2".to_vec()));
    }

    #[test]
    fn finds_the_parent_although_other_names_sort_between() {
        let plan = Plan::new(vec![
            node("/a", Content::Directory),
            node("/a-b", Content::Literal(Vec::new())),
            node("/a/x", Content::Literal(Vec::new())),
        ]);
        assert!(plan.is_ok());
    }

    #[test]
    fn refuses_a_node_behind_a_link() {
        let nodes = vec![
            node("/a", Content::Symlink("/etc".into())),
            node("/a/passwd", Content::Literal(b"x".to_vec())),
        ];
        assert!(Plan::new(nodes.clone()).is_err());
        assert!(Plan::try_from(nodes).is_err());
    }

    #[test]
    fn refuses_paths_that_leave_the_root() {
        for path in ["", "/", "a", "/a/../b", "/a//b", "/./a", "/a/"] {
            assert!(Plan::try_from(vec![node(path, Content::Directory)]).is_err(), "{path:?}");
        }
        assert!(Plan::try_from(vec![node("/a", Content::Directory)]).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_json_makes_the_parser_panic(text in "[\\[{}\\]\":,a-z/0-9.]{0,200}") {
            let _ = serde_json::from_str::<Plan>(&text);
        }

        #[test]
        fn a_plan_that_exists_has_a_parent_for_every_path(paths in proptest::collection::vec("(/[ab.]{1,2}){1,4}", 0..12)) {
            if let Ok(plan) = Plan::new(paths.iter().map(|p| node(p, Content::Directory)).collect()) {
                for n in plan.nodes() {
                    let parent = n.path.rsplit_once('/').map_or("", |(p, _)| p);
                    assert!(parent.is_empty() || plan.nodes().iter().any(|m| m.path == parent));
                }
            }
        }
    }
}
