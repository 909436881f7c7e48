//! A git repository as nothing but a heap of objects that name themselves by their bytes.
//!
//! No configuration is read, neither the user's nor the repository's, no hook, filter or other
//! program runs, and no object is believed before its id was computed from its bytes. What git
//! offers to make one object pass for another (grafts, replace refs, alternates, shallow
//! boundaries) is not worked around but refused: a repository that has it is no source.

use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use gix::objs::{Find, FindHeader};

use super::commit::{self, Commit, Tag, TagTarget};
use super::error::{ObjectKind, SourceError};
use super::oid::Oid;
use super::tree;

/// Largest file that is read, in bytes.
pub(super) const MAX_BLOB: u64 = 1 << 30;

/// Largest administrative file of a repository that is read, in bytes.
const MAX_ADMIN: u64 = 64 << 20;

/// How many tags may stand between a name and its commit, and symbolic refs between two names.
const MAX_HOPS: usize = 8;

/// An opened repository.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    /// Where it was opened.
    pub path: PathBuf,
    /// The working tree's root, if there is one.
    pub work_tree: Option<PathBuf>,
    git_dir: PathBuf,
    pub(super) common_dir: PathBuf,
}

/// A revision's commit, and the tag objects that were on the way to it.
pub(super) struct Resolved {
    pub commit: Oid,
    pub tags: Vec<(Oid, Tag)>,
}

impl Repository {
    /// Finds the repository at `path`: a working tree's root, a linked one's, or a bare repository.
    pub(super) fn open(path: &Path) -> Result<Self, SourceError> {
        let dot_git = path.join(".git");
        let (git_dir, work_tree) = match fs::metadata(&dot_git) {
            Ok(data) if data.is_dir() => (dot_git, Some(path.to_owned())),
            Ok(_) => (linked(path, &dot_git, "gitdir: ")?, Some(path.to_owned())),
            Err(_) if path.join("HEAD").is_file() => (path.to_owned(), None),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(SourceError::no_repository(path, "neither .git nor HEAD is there"));
            }
            Err(e) => return Err(SourceError::no_repository(&dot_git, e)),
        };
        let common_file = git_dir.join("commondir");
        let common_dir = match fs::metadata(&common_file) {
            Ok(_) => linked(&git_dir, &common_file, "")?,
            Err(_) => git_dir.clone(),
        };
        if !common_dir.join("objects").is_dir() {
            return Err(SourceError::no_repository(&common_dir, "it has no objects directory"));
        }
        Ok(Self { path: path.to_owned(), work_tree, git_dir, common_dir })
    }

    /// Refuses whatever lets git show another history than the objects tell.
    pub(super) fn refuse_disguises(&self) -> Result<(), SourceError> {
        for dir in [&self.git_dir, &self.common_dir] {
            let shallow = dir.join("shallow");
            if has_lines(&shallow)? {
                return Err(SourceError::Shallow { path: shallow });
            }
            let grafts = dir.join("info/grafts");
            if has_lines(&grafts)? {
                return Err(SourceError::Grafts { path: grafts });
            }
            if let Some(name) = replace_ref(dir)? {
                return Err(SourceError::ReplaceRef { name });
            }
        }
        for name in ["alternates", "http-alternates"] {
            let path = self.common_dir.join("objects/info").join(name);
            if has_lines(&path)? {
                return Err(SourceError::Alternates { path });
            }
        }
        Ok(())
    }

    /// The object database.
    pub(super) fn objects(&self) -> Result<Objects, SourceError> {
        let dir = self.common_dir.join("objects");
        let options = gix::odb::store::init::Options {
            alloc_limit_bytes: usize::try_from(MAX_BLOB).ok(),
            ..Default::default()
        };
        let odb = gix::odb::at_opts(dir.clone(), gix::hash::Kind::Sha1, None, options)
            .map_err(|e| SourceError::no_repository(&dir, e))?;
        Ok(Objects { odb })
    }

    /// The commit that `rev` names: a ref, an object id or its unique beginning, with any number
    /// of `~N` and `^N` behind it.
    pub(super) fn resolve(&self, objects: &Objects, rev: &str) -> Result<Resolved, SourceError> {
        let at = rev.find(['~', '^']).unwrap_or(rev.len());
        let (base, mut steps) = rev.split_at(at);
        let (id, tag_name) = self.base(objects, rev, base)?;
        let mut resolved = peel(objects, rev, id)?;
        if let (Some(asked), Some((_, tag))) = (tag_name, resolved.tags.first())
            && asked != tag.name
        {
            return Err(SourceError::TagName { asked, found: tag.name.clone() });
        }
        while let Some(kind) = steps.chars().next() {
            let digits = steps[1..].find(|c: char| !c.is_ascii_digit()).unwrap_or(steps.len() - 1);
            let (number, rest) = steps[1..].split_at(digits);
            let number = if number.is_empty() { Ok(1) } else { number.parse::<u32>() };
            let number = number.map_err(|_| SourceError::revision(rev, "a number out of range"))?;
            resolved.commit = match kind {
                '~' => ancestor(objects, rev, resolved.commit, number)?,
                '^' => parent(objects, rev, resolved.commit, number)?,
                _ => return Err(SourceError::revision(rev, "only ~N and ^N may follow a name")),
            };
            resolved.tags.clear();
            steps = rest;
        }
        Ok(resolved)
    }

    /// The object a name without suffix stands for, and the tag's name if it is one.
    fn base(
        &self,
        objects: &Objects,
        rev: &str,
        base: &str,
    ) -> Result<(Oid, Option<String>), SourceError> {
        if let Some(id) = Oid::from_hex(base.as_bytes()) {
            return Ok((id, None));
        }
        let refs = gix::refs::file::Store::for_linked_worktree(
            self.git_dir.clone(),
            self.common_dir.clone(),
            gix::hash::Kind::Sha1,
        );
        let mut name = base.to_owned();
        for _ in 0..MAX_HOPS {
            let partial = gix::refs::PartialName::try_from(name.as_str())
                .map_err(|_| SourceError::revision(rev, "not a name git allows"))?;
            let found = refs.try_find(partial.as_ref()).map_err(|e| {
                SourceError::revision(rev, format!("reading refs (SHA-1 repository expected): {e}"))
            })?;
            let Some(found) = found else { break };
            match found.target {
                gix::refs::Target::Object(id) => {
                    let id = Oid::from_gix(&id)
                        .ok_or_else(|| SourceError::revision(rev, "not a SHA-1 object id"))?;
                    let full = found.name.as_bstr().to_string();
                    return Ok((id, full.strip_prefix("refs/tags/").map(str::to_owned)));
                }
                gix::refs::Target::Symbolic(next) => name = next.as_bstr().to_string(),
            }
        }
        objects.by_prefix(rev, base).map(|id| (id, None))
    }
}

/// The object database; everything read is checked against its id.
#[derive(Clone)]
pub(super) struct Objects {
    odb: gix::odb::Handle,
}

impl Objects {
    /// A commit.
    pub(super) fn commit(&self, id: Oid) -> Result<Commit, SourceError> {
        parse_commit(id, &self.read(id, ObjectKind::Commit)?)
    }

    /// A tree's entries.
    pub(super) fn tree(&self, id: Oid) -> Result<Vec<tree::Entry>, SourceError> {
        tree::parse(id, &self.read(id, ObjectKind::Tree)?)
    }

    /// The bytes of an object, which hash to its id.
    pub(super) fn read(&self, id: Oid, kind: ObjectKind) -> Result<Vec<u8>, SourceError> {
        let unreadable = |problem: String| SourceError::Unreadable { kind, id, problem };
        let (found, size) = self.header(id, kind)?;
        if found != kind {
            return Err(unreadable(format!("is a {found}")));
        }
        let limit = limit(kind);
        if size > limit {
            return Err(SourceError::TooLarge { what: format!("{kind} {id}"), found: size, limit });
        }
        let mut buffer = Vec::new();
        let data = Find::try_find(&self.odb, &id.to_gix(), &mut buffer)
            .map_err(|e| unreadable(e.to_string()))?
            .ok_or_else(|| unreadable("is missing".into()))?;
        let (data_kind, length) = (data.kind, data.data.len());
        if object_kind(data_kind) != kind {
            return Err(unreadable(format!("is a {}", object_kind(data_kind))));
        }
        // What is checked is what is given out, whatever else the reader left in the buffer.
        buffer.truncate(length);
        check_id(id, kind, &buffer)?;
        Ok(buffer)
    }

    /// Kind and size as the database tells them, unchecked.
    pub(super) fn header(
        &self,
        id: Oid,
        kind: ObjectKind,
    ) -> Result<(ObjectKind, u64), SourceError> {
        let header = FindHeader::try_header(&self.odb, &id.to_gix())
            .map_err(|e| SourceError::Unreadable { kind, id, problem: e.to_string() })?
            .ok_or_else(|| SourceError::Unreadable { kind, id, problem: "is missing".into() })?;
        Ok((object_kind(header.kind), header.size))
    }

    /// The one object whose id begins so.
    fn by_prefix(&self, rev: &str, text: &str) -> Result<Oid, SourceError> {
        let unknown = || SourceError::revision(rev, "no such branch, tag or commit");
        if text.len() < 7 || text.len() > 40 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        let prefix = gix::hash::Prefix::from_hex(&text.to_lowercase()).map_err(|_| unknown())?;
        let mut candidates = HashSet::new();
        self.odb
            .lookup_prefix(prefix, Some(&mut candidates))
            .map_err(|e| SourceError::revision(rev, e))?;
        match (candidates.len(), candidates.iter().next()) {
            (1, Some(id)) => Oid::from_gix(id).ok_or_else(unknown),
            (0, _) => Err(unknown()),
            (n, _) => Err(SourceError::revision(rev, format!("{n} objects begin so"))),
        }
    }
}

/// gix's algorithms (blame) read through the same check.
impl Find for Objects {
    fn try_find<'a>(
        &self,
        id: &gix::hash::oid,
        buffer: &'a mut Vec<u8>,
    ) -> gix::Result<Option<gix::objs::Data<'a>>> {
        let failed = |e: SourceError| gix::Error::from_error(e);
        let Some(own) = Oid::from_gix(id) else { return Ok(None) };
        let Some(header) = FindHeader::try_header(&self.odb, id)? else { return Ok(None) };
        *buffer = self.read(own, object_kind(header.kind)).map_err(failed)?;
        Ok(Some(gix::objs::Data::new(buffer, header.kind, gix::hash::Kind::Sha1)))
    }
}

impl FindHeader for Objects {
    fn try_header(&self, id: &gix::hash::oid) -> gix::Result<Option<gix::objs::Header>> {
        FindHeader::try_header(&self.odb, id)
    }
}

/// Parses a commit whose bytes were read under `id`.
pub(super) fn parse_commit(id: Oid, bytes: &[u8]) -> Result<Commit, SourceError> {
    Commit::parse(bytes).map_err(|p| SourceError::malformed(ObjectKind::Commit, id, p))
}

/// Recomputes an object's id from its bytes, with SHA-1 that detects collision attacks.
pub(super) fn check_id(id: Oid, kind: ObjectKind, bytes: &[u8]) -> Result<(), SourceError> {
    let actual = gix::objs::compute_hash(gix::hash::Kind::Sha1, gix_kind(kind), bytes)
        .map_err(|_| SourceError::Collision { kind, id })?;
    match Oid::from_gix(&actual) {
        Some(actual) if actual == id => Ok(()),
        Some(actual) => Err(SourceError::Altered { kind, id, actual }),
        None => Err(SourceError::malformed(kind, id, "an id of another format")),
    }
}

fn limit(kind: ObjectKind) -> u64 {
    match kind {
        ObjectKind::Commit | ObjectKind::Tag => commit::MAX_SIZE,
        ObjectKind::Tree => tree::MAX_SIZE,
        ObjectKind::Blob => MAX_BLOB,
    }
}

fn object_kind(kind: gix::objs::Kind) -> ObjectKind {
    match kind {
        gix::objs::Kind::Commit => ObjectKind::Commit,
        gix::objs::Kind::Tree => ObjectKind::Tree,
        gix::objs::Kind::Blob => ObjectKind::Blob,
        gix::objs::Kind::Tag => ObjectKind::Tag,
    }
}

fn gix_kind(kind: ObjectKind) -> gix::objs::Kind {
    match kind {
        ObjectKind::Commit => gix::objs::Kind::Commit,
        ObjectKind::Tree => gix::objs::Kind::Tree,
        ObjectKind::Blob => gix::objs::Kind::Blob,
        ObjectKind::Tag => gix::objs::Kind::Tag,
    }
}

/// Follows tag objects from `id` to a commit.
fn peel(objects: &Objects, rev: &str, mut id: Oid) -> Result<Resolved, SourceError> {
    let mut tags = Vec::new();
    for _ in 0..MAX_HOPS {
        match objects.header(id, ObjectKind::Commit)?.0 {
            ObjectKind::Commit => return Ok(Resolved { commit: id, tags }),
            ObjectKind::Tag => {}
            other => return Err(SourceError::revision(rev, format!("names a {other}"))),
        }
        let bytes = objects.read(id, ObjectKind::Tag)?;
        let tag = Tag::parse(&bytes)
            .map_err(|problem| SourceError::malformed(ObjectKind::Tag, id, problem))?;
        if tag.target_kind == TagTarget::Other {
            return Err(SourceError::revision(rev, "is a tag of something that is no commit"));
        }
        let target = tag.target;
        tags.push((id, tag));
        id = target;
    }
    Err(SourceError::revision(rev, format!("more than {MAX_HOPS} tags on the way to a commit")))
}

fn ancestor(objects: &Objects, rev: &str, mut id: Oid, count: u32) -> Result<Oid, SourceError> {
    for _ in 0..count {
        id = parent(objects, rev, id, 1)?;
    }
    Ok(id)
}

fn parent(objects: &Objects, rev: &str, id: Oid, number: u32) -> Result<Oid, SourceError> {
    let commit = objects.commit(id)?;
    let Some(index) = (number as usize).checked_sub(1) else { return Ok(id) };
    commit.parents.get(index).copied().ok_or_else(|| {
        SourceError::revision(rev, format!("commit {id} has no parent number {number}"))
    })
}

/// The directory an administrative file names.
fn linked(base: &Path, file: &Path, prefix: &str) -> Result<PathBuf, SourceError> {
    let text = read_admin(file)?.unwrap_or_default();
    let target = text.trim_end_matches(['\n', '\r']).strip_prefix(prefix).unwrap_or_default();
    if target.is_empty() || target.contains(['\n', '\0']) {
        return Err(SourceError::no_repository(file, "it names no directory"));
    }
    Ok(base.join(target))
}

/// Whether the file exists and says anything.
fn has_lines(path: &Path) -> Result<bool, SourceError> {
    let text = read_admin(path)?.unwrap_or_default();
    Ok(text.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')))
}

/// The first replace ref, loose or packed.
fn replace_ref(git_dir: &Path) -> Result<Option<String>, SourceError> {
    let root = git_dir.join("refs/replace");
    match fs::read_dir(&root) {
        Ok(mut entries) => {
            if let Some(entry) = entries.next() {
                let name = entry.map(|e| e.file_name()).unwrap_or_default();
                return Ok(Some(format!("refs/replace/{}", name.to_string_lossy())));
            }
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(SourceError::no_repository(&root, e)),
    }
    let packed = read_admin(&git_dir.join("packed-refs"))?.unwrap_or_default();
    Ok(packed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(_, name)| name.starts_with("refs/replace/"))
        .map(|(_, name)| name.to_owned()))
}

/// An administrative file as text, or none if it does not exist.
fn read_admin(path: &Path) -> Result<Option<String>, SourceError> {
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|f| f.take(MAX_ADMIN + 1).read_to_end(&mut bytes)) {
        Ok(read) if read as u64 > MAX_ADMIN => Err(SourceError::TooLarge {
            what: path.display().to_string(),
            found: read as u64,
            limit: MAX_ADMIN,
        }),
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(SourceError::no_repository(path, e)),
    }
}
