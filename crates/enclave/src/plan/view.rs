//! A file system as the program will see it: the host's, or a directory taken as root.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::EnclaveError;

const MAX_LINKS: usize = 40;

/// Where paths inside are found outside.
#[derive(Debug)]
pub(super) struct View {
    root: PathBuf,
    is_host: bool,
    /// Paths known to be directories and no links, so that a walk asks once for each.
    directories: RefCell<HashSet<String>>,
}

/// A symbolic link met on the way to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Its own path inside, free of links.
    pub(super) path: String,
    /// What it says.
    pub(super) target: String,
}

/// What a path leads to.
#[derive(Debug)]
pub(super) struct Found {
    /// The path inside, free of links.
    pub(super) path: String,
    /// Links that were followed.
    pub(super) links: Vec<Link>,
    /// What is there.
    pub(super) metadata: Metadata,
}

impl View {
    pub(super) fn new(root: Option<&Path>) -> Result<Self, EnclaveError> {
        let Some(root) = root else {
            return Ok(Self { root: "/".into(), is_host: true, directories: RefCell::default() });
        };
        let read = |source| EnclaveError::Read { path: root.to_owned(), source };
        let root = root.canonicalize().map_err(read)?;
        if !root.is_dir() {
            return Err(EnclaveError::Unsupported {
                path: root,
                problem: "the root must be a directory".into(),
            });
        }
        Ok(Self { root, is_host: false, directories: RefCell::default() })
    }

    /// Whether this is the host's own file system.
    pub(super) const fn is_host(&self) -> bool {
        self.is_host
    }

    /// Where `path` (inside, free of links) is outside.
    pub(super) fn outside(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Follows `path` (absolute, inside) through every link. `None` if nothing is there.
    pub(super) fn find(&self, path: &str) -> Result<Option<Found>, EnclaveError> {
        let mut links = Vec::new();
        let Some(real) = self.follow(path, &mut links, true)? else { return Ok(None) };
        match fs::symlink_metadata(self.outside(&real)) {
            Ok(metadata) => Ok(Some(Found { path: real, links, metadata })),
            Err(e) if is_absent(&e) => Ok(None),
            Err(source) => Err(EnclaveError::Read { path: self.outside(&real), source }),
        }
    }

    /// The path of the directory entry `path` itself: links before the last part are followed.
    pub(super) fn entry(&self, path: &str) -> Result<Option<(String, Vec<Link>)>, EnclaveError> {
        let mut links = Vec::new();
        Ok(self.follow(path, &mut links, false)?.map(|real| (real, links)))
    }

    fn follow(
        &self,
        path: &str,
        links: &mut Vec<Link>,
        last_too: bool,
    ) -> Result<Option<String>, EnclaveError> {
        let mut todo: Vec<String> = split(path);
        let mut real = String::new();
        let mut budget = MAX_LINKS;
        while let Some(part) = todo.pop() {
            if part == ".." {
                real.truncate(real.rfind('/').unwrap_or(0));
                continue;
            }
            let here = format!("{real}/{part}");
            if self.directories.borrow().contains(&here) {
                real = here;
                continue;
            }
            let outside = self.outside(&here);
            let metadata = match fs::symlink_metadata(&outside) {
                Ok(metadata) => metadata,
                Err(e) if is_absent(&e) => return Ok(None),
                Err(source) => return Err(EnclaveError::Read { path: outside, source }),
            };
            if metadata.is_dir() {
                self.directories.borrow_mut().insert(here.clone());
            }
            if !metadata.is_symlink() || (todo.is_empty() && !last_too) {
                real = here;
                continue;
            }
            budget = budget.checked_sub(1).ok_or_else(|| EnclaveError::Unsupported {
                path: path.into(),
                problem: "too many symbolic links".into(),
            })?;
            let target = read_link(&outside)?;
            if target.starts_with('/') {
                real.clear();
            }
            todo.extend(split(&target));
            links.push(Link { path: here, target });
        }
        Ok(Some(if real.is_empty() { "/".into() } else { real }))
    }
}

/// The target of the link at `path` outside.
pub(super) fn read_link(path: &Path) -> Result<String, EnclaveError> {
    let target = fs::read_link(path)
        .map_err(|source| EnclaveError::Read { path: path.to_owned(), source })?;
    target.into_os_string().into_string().map_err(|_| EnclaveError::Unsupported {
        path: path.to_owned(),
        problem: "its target is not UTF-8".into(),
    })
}

/// The parts of a path, last first, without empty ones and dots.
fn split(path: &str) -> Vec<String> {
    path.split('/').filter(|s| !matches!(*s, "" | ".")).rev().map(Into::into).collect()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn follows_links_inside_the_root_and_reports_them() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir_all(dir.path().join("usr/lib")).expect("mkdir");
        fs::write(dir.path().join("usr/lib/x.so.1.2"), "").expect("write");
        symlink("usr/lib", dir.path().join("lib")).expect("link");
        symlink("x.so.1.2", dir.path().join("usr/lib/x.so.1")).expect("link");
        symlink("/usr/lib/x.so.1", dir.path().join("usr/lib/x.so")).expect("link");
        let view = View::new(Some(dir.path())).expect("view");
        for _ in 0..2 {
            let found = view.find("/lib/x.so").expect("find").expect("there");
            assert_eq!(found.path, "/usr/lib/x.so.1.2");
            let links: Vec<&str> = found.links.iter().map(|l| l.path.as_str()).collect();
            assert_eq!(links, ["/lib", "/usr/lib/x.so", "/usr/lib/x.so.1"]);
            assert!(view.find("/lib/y").expect("find").is_none());
            let found = view.find("/lib/x.so.1.2").expect("find").expect("there");
            assert_eq!((found.path.as_str(), found.links.len()), ("/usr/lib/x.so.1.2", 1));
        }
    }

    #[test]
    fn a_link_never_leads_out_of_the_root() {
        let dir = tempfile::tempdir().expect("tempdir");
        symlink("../../../../etc", dir.path().join("up")).expect("link");
        symlink("loop", dir.path().join("loop")).expect("link");
        let view = View::new(Some(dir.path())).expect("view");
        assert!(view.find("/up/passwd").expect("find").is_none());
        assert!(view.find("/loop").is_err());
    }
}
