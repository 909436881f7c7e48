//! The root: every planned file copied into memory and hashed by the same read.
//!
//! What the program will read is the copy; what is measured is what was copied. Nothing the host
//! does to its files afterwards matters.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest::{Context, SHA256};
use casemate_enclave_protocol::{Content, Node, Plan};
use casemate_spec::Sha256;
use casemate_spec::workload::{RootEntry, RootManifest};
use rustix::fs::{Mode, OFlags, fchmod, mkdirat, openat, symlinkat};

use crate::error::AgentError;

const BUFFER: usize = 256 << 10;
const MAX_WORKERS: usize = 16;

/// Builds `plan` in the empty directory `root` and returns what was built.
///
/// A plan's nodes have directories of the plan as parents (`Plan` refuses others) and `root` is
/// ours alone, so no path in it leads through a link.
pub(crate) fn build(plan: &Plan, root: BorrowedFd<'_>) -> Result<RootManifest, AgentError> {
    let nodes = plan.nodes();
    let mut entries: Vec<Option<RootEntry>> = Vec::with_capacity(nodes.len());
    let mut files = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let fail = copy_error(node);
        match &node.content {
            Content::Directory => make_directory(root, node).map_err(fail)?,
            Content::Symlink(target) => {
                symlinkat(target.as_str(), root, inside(node)).map_err(|e| fail(e.into()))?;
            }
            _ => {
                files.push(index);
                entries.push(None);
                continue;
            }
        }
        entries.push(Some(node.entry(None)));
    }
    for (index, entry) in copy_all(nodes, &files, root)? {
        entries[index] = Some(entry);
    }
    Ok(RootManifest::new(entries.into_iter().flatten().collect()))
}

/// Copies files with as many threads as there are processors. All have ended on return.
fn copy_all(
    nodes: &[Node],
    files: &[usize],
    root: BorrowedFd<'_>,
) -> Result<Vec<(usize, RootEntry)>, AgentError> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = processors.min(files.len()).clamp(1, MAX_WORKERS);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(files.len()));
    let work = || -> Result<(), AgentError> {
        let mut buffer = vec![0; BUFFER];
        let mut copied = Vec::new();
        while let Some(&index) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let node = &nodes[index];
            let file = copy(node, root, &mut buffer).map_err(|e| {
                // The others need not go on.
                next.store(files.len(), Ordering::Relaxed);
                copy_error(node)(e)
            })?;
            copied.push((index, node.entry(Some(file))));
        }
        done.lock().unwrap_or_else(PoisonError::into_inner).append(&mut copied);
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
        let mine = work();
        for other in others {
            other.join().map_err(|_| AgentError::System {
                doing: "copying files",
                source: io::Error::other("a thread ended"),
            })??;
        }
        mine
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn copy(node: &Node, root: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(u64, Sha256)> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let target = openat(root, inside(node), flags, Mode::from_raw_mode(0o600))?;
    let result = match &node.content {
        Content::Literal(bytes) => {
            write_all(&target, bytes)?;
            (bytes.len() as u64, Sha256::of(bytes))
        }
        Content::File(source) => copy_bytes(&open_source(source)?, &target, buffer)?,
        _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    fchmod(&target, Mode::from_raw_mode(node.mode))?;
    Ok(result)
}

fn open_source(path: &str) -> io::Result<File> {
    // Non-blocking: a FIFO put in the file's place must not hold the agent up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file any more"));
    }
    Ok(file)
}

fn copy_bytes(mut source: &File, target: &OwnedFd, buffer: &mut [u8]) -> io::Result<(u64, Sha256)> {
    let mut context = Context::new(&SHA256);
    let mut total = 0;
    loop {
        let read = match source.read(buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        context.update(&buffer[..read]);
        write_all(target, &buffer[..read])?;
        total += read as u64;
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    Ok((total, Sha256(digest)))
}

fn write_all(target: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::from(target.as_fd().try_clone_to_owned()?);
    file.write_all(bytes)
}

fn make_directory(root: BorrowedFd<'_>, node: &Node) -> io::Result<()> {
    // The umask is empty since the stage was set up.
    Ok(mkdirat(root, inside(node), Mode::from_raw_mode(node.mode))?)
}

/// The node's path relative to the root's descriptor.
fn inside(node: &Node) -> &str {
    node.path.trim_start_matches('/')
}

fn copy_error(node: &Node) -> impl Fn(io::Error) -> AgentError + '_ {
    |source| AgentError::Copy {
        path: match &node.content {
            Content::File(source) => source.clone(),
            _ => node.path.clone(),
        },
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(path: &str, content: Content) -> Node {
        Node { path: path.into(), mode: 0o644, content }
    }

    #[test]
    fn measures_what_it_copies() {
        let (from, to) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        let source = from.path().join("f");
        std::fs::write(&source, vec![7; 600_000]).expect("write");
        let mut nodes = vec![node("/link", Content::Symlink("a/b".into()))];
        for i in 0..20 {
            let source = source.to_str().expect("utf-8").to_owned();
            nodes.push(node(&format!("/a/{i}"), Content::File(source)));
        }
        let plan = Plan::new(nodes).expect("plan");
        let root = File::open(to.path()).expect("open");
        let manifest = build(&plan, root.as_fd()).expect("build");
        assert_eq!(manifest.entries().len(), 22);
        let entry = &manifest.entries()[5];
        assert_eq!((entry.size, entry.sha256), (600_000, Some(Sha256::of(&vec![7; 600_000]))));
        assert_eq!(std::fs::read(to.path().join("a/3")).expect("read").len(), 600_000);
    }

    #[test]
    fn names_the_file_it_can_not_read() {
        let to = tempfile::tempdir().expect("dir");
        let root = File::open(to.path()).expect("open");
        for source in ["/nonexistent/file", "/dev"] {
            let plan = Plan::new(vec![node("/x", Content::File(source.into()))]).expect("plan");
            let error = build(&plan, root.as_fd()).expect_err("no such file");
            assert!(error.to_string().contains(source), "{error}");
            std::fs::remove_file(to.path().join("x")).expect("remove");
        }
    }
}
