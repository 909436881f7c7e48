//! Making signed commits, for demonstrations and tests on machines that may lack git.
//!
//! The result is an ordinary repository: git, `git verify-commit` and everything else reads it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use casemate_statement::sshsig;
use gix::objs::Write as _;

use super::allowed_signers::NAMESPACE;
use super::error::SourceError;
use super::oid::Oid;
use super::repository::{Objects, Repository};
use super::tree::{Entry, EntryMode, FileMode};

/// A person as commits name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Full name.
    pub name: &'a str,
    /// E-mail address.
    pub email: &'a str,
}

/// A file to be written; none as content removes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// Path from the root of the tree.
    pub path: &'a str,
    /// What kind of file.
    pub mode: FileMode,
    /// Its content; of a link, its target.
    pub content: Option<&'a [u8]>,
}

/// A commit to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewCommit<'a> {
    /// What changes against the first parent.
    pub changes: &'a [Change<'a>],
    /// The message.
    pub message: &'a str,
    /// Who wrote it.
    pub author: Identity<'a>,
    /// Who commits it.
    pub committer: Identity<'a>,
    /// When, in Unix seconds.
    pub time: i64,
    /// The OpenSSH private key (PEM, without passphrase) that signs it; none leaves it unsigned.
    pub key: Option<&'a [u8]>,
    /// Parents; none means the branch as it is, or the first commit of all.
    pub parents: Option<&'a [Oid]>,
}

/// A repository with a working tree that commits are made in.
#[derive(Debug)]
pub struct Author {
    path: PathBuf,
}

/// The branch that is written.
const BRANCH: &str = "refs/heads/main";

impl Author {
    /// Makes a repository in `path`, which is created if it is not there.
    ///
    /// # Errors
    /// [`SourceError::Author`] if it can not be written or is a repository already.
    pub fn init(path: &Path) -> Result<Self, SourceError> {
        let failed = |e: &dyn std::fmt::Display| SourceError::author(path, e);
        let git = path.join(".git");
        if git.exists() {
            return Err(failed(&"is a repository already"));
        }
        for dir in ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info"] {
            fs::create_dir_all(git.join(dir)).map_err(|e| failed(&e))?;
        }
        let config = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n";
        fs::write(git.join("config"), config).map_err(|e| failed(&e))?;
        fs::write(git.join("HEAD"), format!("ref: {BRANCH}\n")).map_err(|e| failed(&e))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Opens a repository made by [`Self::init`].
    ///
    /// # Errors
    /// [`SourceError::NoRepository`] if there is none.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        Repository::open(path)?;
        Ok(Self { path: path.to_owned() })
    }

    /// Makes a commit, moves the branch to it and brings the working tree up to date.
    ///
    /// # Errors
    /// [`SourceError::Author`] if something can not be written or signed.
    pub fn commit(&self, new: &NewCommit<'_>) -> Result<Oid, SourceError> {
        let repo = Repository::open(&self.path)?;
        let objects = repo.objects()?;
        let parents = match new.parents {
            Some(parents) => parents.to_vec(),
            None => self.head()?.into_iter().collect(),
        };
        let before = parents.first().map(|p| objects.commit(*p)).transpose()?.map(|c| c.tree);
        let mut tree = before;
        for change in new.changes {
            if let Some(problem) = super::tree::path_problem(change.path) {
                return Err(SourceError::author(
                    &self.path,
                    format!("{:?} {problem}", change.path),
                ));
            }
            let parts: Vec<&str> = change.path.split('/').collect();
            tree = self.edit(&objects, tree, &parts, change)?;
        }
        let tree = match tree {
            Some(tree) => tree,
            None => self.write(gix::objs::Kind::Tree, &[])?,
        };
        let id = self.write(gix::objs::Kind::Commit, &self.commit_bytes(new, tree, &parents)?)?;
        self.set_head(id)?;
        new.changes.iter().try_for_each(|change| self.check_out(change))?;
        self.write_index(&objects, tree)?;
        Ok(id)
    }

    /// Makes an annotated tag of `commit`, signed if there is a key.
    ///
    /// # Errors
    /// [`SourceError::Author`] if something can not be written or signed.
    pub fn tag(
        &self,
        name: &str,
        commit: Oid,
        tagger: Identity<'_>,
        time: i64,
        key: Option<&[u8]>,
    ) -> Result<Oid, SourceError> {
        let who = self.person(tagger, time)?;
        let mut text =
            format!("object {commit}\ntype commit\ntag {name}\ntagger {who}\n\n{name}\n")
                .into_bytes();
        if let Some(key) = key {
            let signature = self.sign(key, &text)?;
            text.extend_from_slice(signature.as_bytes());
        }
        let id = self.write(gix::objs::Kind::Tag, &text)?;
        let path = self.path.join(".git/refs/tags").join(name);
        fs::write(&path, format!("{id}\n")).map_err(|e| SourceError::author(&path, e))?;
        Ok(id)
    }

    /// The commit that the branch is at.
    ///
    /// # Errors
    /// [`SourceError::Author`] if the branch can not be read.
    pub fn head(&self) -> Result<Option<Oid>, SourceError> {
        let path = self.path.join(".git").join(BRANCH);
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map(Some).map_err(|e| SourceError::author(&path, e)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(SourceError::author(&path, e)),
        }
    }

    pub(super) fn set_head(&self, id: Oid) -> Result<(), SourceError> {
        let path = self.path.join(".git").join(BRANCH);
        fs::write(&path, format!("{id}\n")).map_err(|e| SourceError::author(&path, e))
    }

    /// The tree with one change made in it; none if nothing is left.
    fn edit(
        &self,
        objects: &Objects,
        tree: Option<Oid>,
        parts: &[&str],
        change: &Change<'_>,
    ) -> Result<Option<Oid>, SourceError> {
        let mut entries = tree.map_or_else(|| Ok(Vec::new()), |id| objects.tree(id))?;
        let Some((name, rest)) = parts.split_first() else { return Ok(tree) };
        let old = entries.iter().position(|e| e.name == name.as_bytes()).map(|i| entries.remove(i));
        let new = if rest.is_empty() {
            let blob = change.content.map(|bytes| self.write(gix::objs::Kind::Blob, bytes));
            blob.transpose()?.map(|id| (EntryMode::File(change.mode), id))
        } else {
            let below = old.filter(|e| e.mode == EntryMode::Directory).map(|e| e.id);
            self.edit(objects, below, rest, change)?.map(|id| (EntryMode::Directory, id))
        };
        if let Some((mode, id)) = new {
            entries.push(Entry { name: name.as_bytes().to_vec(), mode, id });
        }
        if entries.is_empty() {
            return Ok(None);
        }
        self.write(gix::objs::Kind::Tree, &super::tree::to_bytes(entries)).map(Some)
    }

    pub(super) fn commit_bytes(
        &self,
        new: &NewCommit<'_>,
        tree: Oid,
        parents: &[Oid],
    ) -> Result<Vec<u8>, SourceError> {
        let mut head = format!("tree {tree}\n");
        for parent in parents {
            head.push_str(&format!("parent {parent}\n"));
        }
        let author = self.person(new.author, new.time)?;
        let committer = self.person(new.committer, new.time)?;
        head.push_str(&format!("author {author}\ncommitter {committer}\n"));
        let message = format!("\n{}\n", new.message.trim_end());
        let Some(key) = new.key else { return Ok((head + &message).into_bytes()) };
        let signature = self.sign(key, (head.clone() + &message).as_bytes())?;
        let folded = signature.trim_end().replace('\n', "\n ");
        Ok(format!("{head}gpgsig {folded}\n{message}").into_bytes())
    }

    fn person(&self, who: Identity<'_>, time: i64) -> Result<String, SourceError> {
        let odd = |s: &str| s.trim().is_empty() || s.contains(['<', '>', '\n', '\0']);
        if odd(who.name) || odd(who.email) || time < 0 {
            return Err(SourceError::author(
                &self.path,
                format!("{who:?} at {time} can not commit"),
            ));
        }
        Ok(format!("{} <{}> {time} +0000", who.name, who.email))
    }

    fn sign(&self, key: &[u8], message: &[u8]) -> Result<String, SourceError> {
        sshsig::sign(key, None, NAMESPACE, message)
            .map(|signature| signature.to_armored())
            .map_err(|e| SourceError::author(&self.path, e))
    }

    pub(super) fn write(&self, kind: gix::objs::Kind, bytes: &[u8]) -> Result<Oid, SourceError> {
        let dir = self.path.join(".git/objects");
        let store = gix::odb::loose::Store::at(dir, gix::hash::Kind::Sha1);
        let id = store.write_buf(kind, bytes).map_err(|e| SourceError::author(&self.path, e))?;
        Oid::from_gix(&id).ok_or_else(|| SourceError::author(&self.path, "an id of another format"))
    }

    fn check_out(&self, change: &Change<'_>) -> Result<(), SourceError> {
        let path = self.path.join(change.path);
        let failed = |e: std::io::Error| SourceError::author(&path, e);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let Some(content) = change.content else { return Ok(()) };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        if change.mode == FileMode::Symlink {
            return symlink(String::from_utf8_lossy(content).as_ref(), &path).map_err(failed);
        }
        fs::write(&path, content).map_err(failed)?;
        let mode = if change.mode == FileMode::Executable { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed)
    }

    /// An index without file times: git refreshes it by itself and finds nothing changed.
    fn write_index(&self, objects: &Objects, tree: Oid) -> Result<(), SourceError> {
        let failed = |e: &dyn std::fmt::Display| SourceError::author(&self.path, e);
        let options = gix::validate::path::component::Options::default();
        let state = gix::index::State::from_tree(&tree.to_gix(), objects, options)
            .map_err(|e| failed(&e))?;
        let path = self.path.join(".git/index");
        gix::index::File::from_state(state, path)
            .write(gix::index::write::Options::default())
            .map_err(|e| failed(&e))
    }
}
