//! Why a repository, or a part of it, is no source.

use std::path::{Path, PathBuf};

use casemate_spec::{Coded, Kind};

use super::oid::Oid;

/// What git calls the four kinds of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ObjectKind {
    /// A commit.
    Commit,
    /// A directory.
    Tree,
    /// A file's content.
    Blob,
    /// An annotated tag.
    Tag,
}

impl std::fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        })
    }
}

/// Why a repository is no source, or why the verified source could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// There is no git repository this version can read.
    #[error("{}: no git repository: {problem}", path.display())]
    NoRepository {
        /// Where it was looked for.
        path: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// The history was cut off by a shallow clone.
    #[error("{}: the clone is shallow, so its history can not be verified", path.display())]
    Shallow {
        /// The file that says so.
        path: PathBuf,
    },
    /// Parents of commits are rewritten by a grafts file.
    #[error("{}: grafts replace the parents of commits", path.display())]
    Grafts {
        /// The grafts file.
        path: PathBuf,
    },
    /// Objects are replaced by others.
    #[error("{name}: a replace ref exchanges one object for another")]
    ReplaceRef {
        /// The ref.
        name: String,
    },
    /// Objects are borrowed from another repository.
    #[error("{}: objects are borrowed from another repository (alternates)", path.display())]
    Alternates {
        /// The alternates file.
        path: PathBuf,
    },
    /// The revision does not name exactly one commit.
    #[error("revision {rev:?}: {problem}")]
    Revision {
        /// The revision as given.
        rev: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tag object is served under another tag's name.
    #[error("tag {asked:?} holds a tag object whose signed name is {found:?}")]
    TagName {
        /// The name asked for.
        asked: String,
        /// The name in the object.
        found: String,
    },
    /// `since` is no proper ancestor of the revision.
    #[error("since {since} is not an ancestor of {rev}")]
    Since {
        /// The commit named as since.
        since: Oid,
        /// The commit verified.
        rev: Oid,
    },
    /// An object is not in the repository, or can not be read.
    #[error("{kind} {id}: {problem}")]
    Unreadable {
        /// The expected kind.
        kind: ObjectKind,
        /// The object.
        id: Oid,
        /// What went wrong.
        problem: String,
    },
    /// An object's bytes are not those its id names.
    #[error("{kind} {id}: its bytes hash to {actual}")]
    Altered {
        /// The kind of object.
        kind: ObjectKind,
        /// The id under which it is stored.
        id: Oid,
        /// The id of the bytes that are there.
        actual: Oid,
    },
    /// An object was made to collide with another one under SHA-1.
    #[error("{kind} {id}: its bytes carry a SHA-1 collision attack")]
    Collision {
        /// The kind of object.
        kind: ObjectKind,
        /// The id under which it is stored.
        id: Oid,
    },
    /// An object's bytes are not in git's format.
    #[error("{kind} {id}: malformed: {problem}")]
    Malformed {
        /// The kind of object.
        kind: ObjectKind,
        /// The object.
        id: Oid,
        /// What was expected.
        problem: String,
    },
    /// Something is larger than this version reads.
    #[error("{what}: {found}, the limit is {limit}")]
    TooLarge {
        /// What.
        what: String,
        /// Its size or number.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A commit carries no signature.
    #[error("commit {commit} by {author} is not signed")]
    Unsigned {
        /// The commit.
        commit: Oid,
        /// Its author's e-mail address.
        author: String,
    },
    /// A signature of a kind that is not judged.
    #[error("{object}: signature {problem}; SSH and OpenPGP signatures are accepted")]
    SignatureKind {
        /// The commit or tag.
        object: String,
        /// What was found.
        problem: String,
    },
    /// A signature by a key nobody listed.
    #[error("{object}: signed by {key}, which is no developer's key")]
    Stranger {
        /// The commit or tag.
        object: String,
        /// Fingerprint or key id.
        key: String,
    },
    /// A signature that does not fit the bytes or the key.
    #[error("{object}: signature is not valid: {problem}")]
    BadSignature {
        /// The commit or tag.
        object: String,
        /// Why.
        problem: String,
    },
    /// The key was not (or no longer) a developer's at that time.
    #[error("{object}: {key} is not valid at {at}: {problem}")]
    OutsideValidity {
        /// The commit or tag.
        object: String,
        /// The key's fingerprint.
        key: String,
        /// The time, RFC 3339.
        at: String,
        /// The key's validity.
        problem: String,
    },
    /// The OpenPGP key itself was expired, revoked or not made for signing.
    #[error("{object}: OpenPGP key {key}: {problem}")]
    KeyState {
        /// The commit or tag.
        object: String,
        /// The key's fingerprint.
        key: String,
        /// Why it can not have signed this.
        problem: String,
    },
    /// The commit names a person who is not the key's holder.
    #[error("{object}: {role} {email:?} is not who signed: {key} belongs to {principals}")]
    ForgedIdentity {
        /// The commit or tag.
        object: String,
        /// `author`, `committer` or `tagger`.
        role: &'static str,
        /// The e-mail address it names.
        email: String,
        /// Fingerprint of the key that signed.
        key: String,
        /// Whose key that is.
        principals: String,
    },
    /// The commit claims to be from the future.
    #[error("{object}: is dated {at}, which is in the future")]
    Future {
        /// The commit or tag.
        object: String,
        /// Its date, RFC 3339.
        at: String,
    },
    /// A path that is not written to any disk.
    #[error("path {path:?} in tree {tree}: {problem}")]
    Path {
        /// The path, escaped where it is not text.
        path: String,
        /// The tree that holds it.
        tree: Oid,
        /// Why it is refused.
        problem: String,
    },
    /// A submodule.
    #[error(
        "path {path:?} is a submodule (commit {commit}), whose source is not in this repository"
    )]
    Submodule {
        /// The path.
        path: String,
        /// The commit it points to.
        commit: Oid,
    },
    /// An allowed-signers file that can not be used.
    #[error("allowed signers, line {line}: {problem}")]
    AllowedSigners {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A developer's key that can not be used.
    #[error("developer {who}: {problem}")]
    DeveloperKey {
        /// Their principals.
        who: String,
        /// What is wrong with the key.
        problem: String,
    },
    /// The directory the tree is written into can not be used.
    #[error("{}: {problem}", path.display())]
    Destination {
        /// The path.
        path: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// There is no such file or line to trace.
    #[error("{path:?}: {problem}")]
    NoSuchLine {
        /// The file.
        path: String,
        /// What is missing.
        problem: String,
    },
    /// A repository or commit that could not be made.
    #[error("{}: {problem}", path.display())]
    Author {
        /// The repository.
        path: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// The reader of the repository's format gave up on its content.
    #[error("{}: the repository's content can not be read: {problem}", path.display())]
    Reader {
        /// The repository.
        path: PathBuf,
        /// What is known.
        problem: String,
    },
}

impl SourceError {
    pub(super) fn no_repository(path: &Path, problem: impl std::fmt::Display) -> Self {
        Self::NoRepository { path: path.to_owned(), problem: problem.to_string() }
    }

    pub(super) fn destination(path: &Path, problem: impl std::fmt::Display) -> Self {
        Self::Destination { path: path.to_owned(), problem: problem.to_string() }
    }

    pub(super) fn author(path: &Path, problem: impl std::fmt::Display) -> Self {
        Self::Author { path: path.to_owned(), problem: problem.to_string() }
    }

    pub(super) fn revision(rev: &str, problem: impl std::fmt::Display) -> Self {
        Self::Revision { rev: rev.chars().take(200).collect(), problem: problem.to_string() }
    }

    pub(super) fn malformed(kind: ObjectKind, id: Oid, problem: impl std::fmt::Display) -> Self {
        Self::Malformed { kind, id, problem: problem.to_string() }
    }
}

impl Coded for SourceError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoRepository { .. } => "CM-SRC-0001",
            Self::Shallow { .. } => "CM-SRC-0002",
            Self::Grafts { .. } => "CM-SRC-0003",
            Self::ReplaceRef { .. } => "CM-SRC-0004",
            Self::Alternates { .. } => "CM-SRC-0005",
            Self::Revision { .. } => "CM-SRC-0006",
            Self::TagName { .. } => "CM-SRC-0007",
            Self::Since { .. } => "CM-SRC-0008",
            Self::Unreadable { .. } => "CM-SRC-0009",
            Self::Altered { kind, .. } => match kind {
                ObjectKind::Commit => "CM-SRC-0010",
                ObjectKind::Tree => "CM-SRC-0011",
                ObjectKind::Blob => "CM-SRC-0012",
                ObjectKind::Tag => "CM-SRC-0013",
            },
            Self::Collision { .. } => "CM-SRC-0014",
            Self::Malformed { .. } => "CM-SRC-0015",
            Self::TooLarge { .. } => "CM-SRC-0016",
            Self::Unsigned { .. } => "CM-SRC-0020",
            Self::SignatureKind { .. } => "CM-SRC-0021",
            Self::Stranger { .. } => "CM-SRC-0022",
            Self::BadSignature { .. } => "CM-SRC-0023",
            Self::OutsideValidity { .. } => "CM-SRC-0024",
            Self::KeyState { .. } => "CM-SRC-0025",
            Self::ForgedIdentity { .. } => "CM-SRC-0026",
            Self::Future { .. } => "CM-SRC-0027",
            Self::Path { .. } => "CM-SRC-0030",
            Self::Submodule { .. } => "CM-SRC-0031",
            Self::AllowedSigners { .. } => "CM-SRC-0040",
            Self::DeveloperKey { .. } => "CM-SRC-0041",
            Self::Destination { .. } => "CM-SRC-0050",
            Self::NoSuchLine { .. } => "CM-SRC-0051",
            Self::Author { .. } => "CM-SRC-0052",
            Self::Reader { .. } => "CM-SRC-0053",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Revision { .. }
            | Self::AllowedSigners { .. }
            | Self::DeveloperKey { .. }
            | Self::NoSuchLine { .. } => Kind::Usage,
            Self::NoRepository { .. } | Self::Destination { .. } | Self::Author { .. } => {
                Kind::Environment
            }
            _ => Kind::Refused,
        }
    }

    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::NoRepository { .. } => "name a git repository with --repo",
            Self::Shallow { .. } => "fetch the whole history: git fetch --unshallow",
            Self::Grafts { .. } => "remove info/grafts, or rewrite the history and sign it again",
            Self::ReplaceRef { .. } => "delete the replace refs: git replace --delete",
            Self::Alternates { .. } => {
                "copy the borrowed objects: git repack -a -d, then remove objects/info/alternates"
            }
            Self::Revision { .. } => "name a branch, a tag or a full commit id",
            Self::TagName { .. } => "fetch the tags again from a place you trust",
            Self::Since { .. } => "name in [source] since a commit of this very history",
            Self::Unreadable { .. }
            | Self::Altered { .. }
            | Self::Collision { .. }
            | Self::Malformed { .. } => {
                "clone again from a place you trust, and ask who could write to this repository"
            }
            Self::Unsigned { .. } => {
                "sign it: git commit --amend -S, or name the last commit before signing became \
                 the rule as [source] since"
            }
            Self::SignatureKind { .. } => "sign with an SSH or OpenPGP key that is listed",
            Self::Stranger { .. } => "if this is a colleague, add their key to the trust file",
            Self::OutsideValidity { .. } => {
                "sign again with a key that is valid, or correct its validity in the trust file"
            }
            Self::KeyState { .. } => "sign again with a current key",
            Self::ForgedIdentity { .. } => {
                "set user.email to an address listed with your key; who applies another's change \
                 signs it as their own"
            }
            Self::Future { .. } => "correct the clock of this machine, or of the developer's",
            Self::Path { .. } => "rename the file",
            Self::Submodule { .. } => "add the files themselves instead of the submodule",
            Self::Destination { .. } => "name an empty directory that you may write to",
            _ => return None,
        };
        Some(text.into())
    }
}
