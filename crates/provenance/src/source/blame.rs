//! Which commit wrote a line.

use std::path::Path;

use gix::bstr::BStr;
use gix::diff::blob as diff;

use super::error::{ObjectKind, SourceError};
use super::oid::Oid;
use super::repository::{Objects, Repository};
use super::tree::EntryMode;

/// Largest file whose lines are traced, in bytes.
const MAX_SIZE: u64 = 64 << 20;

/// Lines that follow each other and come from one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlamedLines {
    /// The first line, counted from 1.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// The commit that wrote them.
    pub commit: Oid,
    /// The file's path in that commit, if it had another name then.
    pub earlier_path: Option<String>,
}

/// Which commits wrote the lines of `file` as it is in `commit`; all lines, or one.
///
/// Every object is read through its id, so what this says about history is as true as `commit`
/// is; that its commits are signed is what [`super::verify`] says. Renames are followed.
///
/// # Errors
/// [`SourceError::NoSuchLine`] if there is no such file or line; what reading the repository
/// gives otherwise.
pub fn blame(
    repository: &Path,
    commit: Oid,
    file: &str,
    line: Option<u32>,
) -> Result<Vec<BlamedLines>, SourceError> {
    super::guarded(repository, || {
        let repo = Repository::open(repository)?;
        repo.refuse_disguises()?;
        let objects = repo.objects()?;
        let lines = line_count(&objects, commit, file)?;
        let no_line = |n| SourceError::NoSuchLine {
            path: file.to_owned(),
            problem: format!("has {lines} lines, line {n} was asked for"),
        };
        if lines == 0 {
            return line.map_or(Ok(Vec::new()), |n| Err(no_line(n)));
        }
        if let Some(n) = line.filter(|n| *n == 0 || *n > lines) {
            return Err(no_line(n));
        }
        run(&repo, objects, commit, file, line)
    })
}

fn run(
    repo: &Repository,
    objects: Objects,
    commit: Oid,
    file: &str,
    line: Option<u32>,
) -> Result<Vec<BlamedLines>, SourceError> {
    let failed = |e: gix::Error| SourceError::Reader {
        path: repo.path.clone(),
        problem: format!("tracing {file:?}: {e}"),
    };
    let ranges = match line {
        Some(n) => {
            gix::blame::BlameRanges::from_one_based_inclusive_range(n..=n).map_err(failed)?
        }
        None => gix::blame::BlameRanges::WholeFile,
    };
    let options = gix::blame::Options {
        ranges,
        rewrites: Some(gix::diff::Rewrites::default()),
        ..Default::default()
    };
    let outcome = gix::blame::file(
        objects,
        gix::blame::Start::Commit(commit.to_gix()),
        None,
        &mut platform(),
        BStr::new(file),
        options,
    )
    .map_err(failed)?;
    outcome
        .entries
        .iter()
        .map(|entry| {
            let commit = Oid::from_gix(&entry.commit_id).ok_or_else(|| {
                SourceError::malformed(ObjectKind::Commit, commit, "an id of another format")
            })?;
            Ok(BlamedLines {
                first: entry.start_in_blamed_file + 1,
                count: entry.len.get(),
                commit,
                earlier_path: entry.source_file_name.as_ref().map(ToString::to_string),
            })
        })
        .collect()
}

/// How many lines the file has in that commit.
fn line_count(objects: &Objects, commit: Oid, file: &str) -> Result<u32, SourceError> {
    let missing = |problem: &str| SourceError::NoSuchLine {
        path: file.to_owned(),
        problem: format!("{problem} in commit {commit}"),
    };
    let mut id = objects.commit(commit)?.tree;
    let mut parts = file.split('/').peekable();
    while let Some(name) = parts.next() {
        let entries = objects.tree(id)?;
        let entry = entries
            .iter()
            .find(|e| e.name == name.as_bytes())
            .ok_or_else(|| missing("there is no such file"))?;
        match (entry.mode, parts.peek()) {
            (EntryMode::Directory, Some(_)) | (EntryMode::File(_), None) => id = entry.id,
            _ => return Err(missing("this is not a file")),
        }
    }
    let (_, size) = objects.header(id, ObjectKind::Blob)?;
    if size > MAX_SIZE {
        let what = format!("file {file:?}");
        return Err(SourceError::TooLarge { what, found: size, limit: MAX_SIZE });
    }
    let bytes = objects.read(id, ObjectKind::Blob)?;
    let ends = bytes.iter().filter(|b| **b == b'\n').count();
    let open_end = bytes.last().is_some_and(|b| *b != b'\n');
    u32::try_from(ends + usize::from(open_end)).map_err(|_| missing("there are too many lines"))
}

/// Compares contents as they are stored: no attributes, filters or drivers of the repository.
fn platform() -> diff::Platform {
    let pipeline = diff::Pipeline::new(
        diff::pipeline::WorktreeRoots::default(),
        gix::filter::plumbing::Pipeline::new(
            gix::command::Context::default(),
            gix::hash::Kind::Sha1,
            gix::filter::plumbing::pipeline::Options::default(),
        ),
        Vec::new(),
        diff::pipeline::Options::default(),
    );
    let attributes = gix::worktree::stack::State::AttributesStack(Default::default());
    let stack = gix::worktree::Stack::new(
        "",
        attributes,
        gix::glob::pattern::Case::Sensitive,
        Vec::new(),
        Vec::new(),
    );
    diff::Platform::new(
        diff::platform::Options::default(),
        pipeline,
        diff::pipeline::Mode::ToGit,
        stack,
    )
}
