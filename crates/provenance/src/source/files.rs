//! The file table: every file of the verified tree, its digest, and the commit it came from.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use casemate_spec::Sha256;

use super::error::{ObjectKind, SourceError};
use super::history::{History, Parent};
use super::oid::Oid;
use super::repository::Objects;
use super::tree::{self, Entry, EntryMode, FileMode};

/// Most files and directories a source may have.
const MAX_FILES: usize = 1_000_000;

/// How many parsed trees are remembered.
const CACHED_TREES: usize = 8192;

/// A file of the tree.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub path: String,
    pub mode: FileMode,
    pub id: Oid,
}

/// A file's size and digest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    pub size: u64,
    pub sha256: Sha256,
}

/// The commit a file came from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// The verified commit with this index changed it last.
    Verified(usize),
    /// It is as it was in this commit, which was taken as given.
    Given(Oid),
}

/// Lists all files below the tree `root`, in path order, and refuses unsafe paths.
pub(super) fn list(objects: &Objects, root: Oid) -> Result<Vec<File>, SourceError> {
    let mut files = Vec::new();
    let mut met = 0usize;
    let mut trees = Trees::new(objects);
    let mut directories = vec![(root, String::new())];
    while let Some((id, prefix)) = directories.pop() {
        let entries = trees.read(id)?;
        let paths = tree::checked_paths(id, &prefix, &entries)?;
        let paths_met = paths.len();
        for (entry, path) in entries.iter().zip(paths) {
            match entry.mode {
                EntryMode::File(mode) => files.push(File { path, mode, id: entry.id }),
                _ => directories.push((entry.id, path + "/")),
            }
        }
        // Counted as met, not as kept: a small object can name itself into endless directories.
        met += paths_met;
        if met > MAX_FILES {
            let (found, limit) = (met as u64, MAX_FILES as u64);
            let what = "files and directories in the tree".into();
            return Err(SourceError::TooLarge { what, found, limit });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Reads and hashes every file on all cores. Each distinct content is read once.
pub(super) fn digests(
    objects: &Objects,
    files: &[File],
) -> Result<HashMap<Oid, Content>, SourceError> {
    let mut distinct: Vec<&File> = files.iter().collect();
    distinct.sort_by_key(|f| f.id);
    distinct.dedup_by_key(|f| f.id);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let work = |objects: Objects| {
        let mut done = Vec::new();
        while let Some(file) = distinct.get(next.fetch_add(1, Ordering::Relaxed)) {
            let bytes = objects.read(file.id, ObjectKind::Blob)?;
            check_link(file, &bytes)?;
            done.push((file.id, Content { size: bytes.len() as u64, sha256: Sha256::of(&bytes) }));
        }
        Ok::<_, SourceError>(done)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let objects = objects.clone();
                scope.spawn(|| work(objects))
            })
            .collect();
        let mut all = HashMap::with_capacity(distinct.len());
        for worker in workers {
            let done = worker.join().map_err(|_| SourceError::Unreadable {
                kind: ObjectKind::Blob,
                id: Oid::new([0; 20]),
                problem: "a hashing thread gave up".into(),
            })??;
            all.extend(done);
        }
        Ok(all)
    })
}

/// A link's target must be a path the kernel takes.
pub(super) fn check_link(file: &File, bytes: &[u8]) -> Result<(), SourceError> {
    let usable = !bytes.is_empty() && bytes.len() <= tree::MAX_PATH && !bytes.contains(&0);
    if file.mode == FileMode::Symlink && !usable {
        let problem = "is a symbolic link with an impossible target".into();
        return Err(SourceError::Path { path: file.path.clone(), tree: file.id, problem });
    }
    Ok(())
}

/// For each file the commit that changed it last.
///
/// The files travel from the tip towards the roots: a file that a parent has unchanged moves on
/// to that parent, and stays where no parent has it. A merge that took a file from one side is
/// passed by; a merge that made a file itself answers for it.
pub(super) fn origins(
    objects: &Objects,
    history: &History,
    files: &[File],
) -> Result<Vec<Origin>, SourceError> {
    let mut origins = vec![Origin::Verified(0); files.len()];
    let mut waiting: HashMap<usize, Vec<usize>> = HashMap::new();
    waiting.insert(0, (0..files.len()).collect());
    let mut search = Search { files, trees: Trees::new(objects) };
    for &index in history.order.iter().rev() {
        let Some(mut pending) = waiting.remove(&index) else { continue };
        let node = &history.commits[index];
        for parent in &node.parents {
            if pending.is_empty() {
                break;
            }
            let tree = match parent {
                Parent::Verified(i) => history.commits[*i].tree,
                Parent::Given(id) => history.given.get(id).copied().ok_or_else(|| {
                    SourceError::malformed(ObjectKind::Commit, *id, "met outside the history")
                })?,
            };
            let (same, changed) = search.split(node.tree, tree, pending)?;
            pending = changed;
            match parent {
                Parent::Verified(i) => waiting.entry(*i).or_default().extend(same),
                Parent::Given(id) => same.iter().for_each(|f| origins[*f] = Origin::Given(*id)),
            }
        }
        pending.iter().for_each(|f| origins[*f] = Origin::Verified(index));
        if waiting.is_empty() {
            break;
        }
    }
    Ok(origins)
}

struct Search<'a> {
    files: &'a [File],
    trees: Trees<'a>,
}

impl Search<'_> {
    /// Splits `pending` into files that `parent` has as `own` has them, and the others.
    fn split(
        &mut self,
        own: Oid,
        parent: Oid,
        mut pending: Vec<usize>,
    ) -> Result<(Vec<usize>, Vec<usize>), SourceError> {
        pending.sort_unstable();
        let (mut same, mut changed) = (Vec::new(), Vec::new());
        let mut todo = vec![(own, parent, 0usize, pending)];
        while let Some((own, parent, depth, files)) = todo.pop() {
            if own == parent {
                same.extend(files);
                continue;
            }
            let (own, parent) = (self.trees.read(own)?, self.trees.read(parent)?);
            for group in self.groups(&files, depth) {
                let name = part(&self.files[group[0]].path, depth);
                let is_file = self.files[group[0]].path.len() == depth + name.len();
                let (ours, theirs) = (find(&own, name, !is_file), find(&parent, name, !is_file));
                match (ours, theirs) {
                    (Some(a), Some(b)) if a.id == b.id && a.mode == b.mode => same.extend(group),
                    (Some(a), Some(b)) if !is_file => {
                        todo.push((a.id, b.id, depth + name.len() + 1, group));
                    }
                    _ => changed.extend(group),
                }
            }
        }
        Ok((same, changed))
    }

    /// Splits sorted files into runs that share the path part at `depth`.
    fn groups(&self, files: &[usize], depth: usize) -> Vec<Vec<usize>> {
        let key = |f: &usize| {
            let path = &self.files[*f].path;
            let name = part(path, depth);
            (name, path.len() == depth + name.len())
        };
        files.chunk_by(|a, b| key(a) == key(b)).map(<[usize]>::to_vec).collect()
    }
}

/// Trees by id, each read once while it is remembered.
struct Trees<'a> {
    objects: &'a Objects,
    read: HashMap<Oid, Rc<Vec<Entry>>>,
}

impl<'a> Trees<'a> {
    fn new(objects: &'a Objects) -> Self {
        Self { objects, read: HashMap::new() }
    }

    fn read(&mut self, id: Oid) -> Result<Rc<Vec<Entry>>, SourceError> {
        if let Some(tree) = self.read.get(&id) {
            return Ok(Rc::clone(tree));
        }
        if self.read.len() >= CACHED_TREES {
            self.read.clear();
        }
        let tree = Rc::new(self.objects.tree(id)?);
        self.read.insert(id, Rc::clone(&tree));
        Ok(tree)
    }
}

/// The part of a path that begins at `depth`, up to the next slash.
fn part(path: &str, depth: usize) -> &str {
    let rest = path.get(depth..).unwrap_or_default();
    rest.split('/').next().unwrap_or_default()
}

fn find<'a>(entries: &'a [Entry], name: &str, directory: bool) -> Option<&'a Entry> {
    let at = entries.binary_search_by(|e| tree::compare(e, name.as_bytes(), directory)).ok()?;
    entries.get(at)
}
