//! Directories that work is done in before its result appears, whole, where it belongs.
//!
//! A command that is killed leaves its directory behind; the next one in the same place sees that
//! nobody holds it any more, and removes it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::failure::{self, Failure};

/// Held as long as the directory is in use.
const LOCK: &str = ".in-use";

/// A directory of this process's own, removed when dropped.
pub struct Scratch {
    dir: tempfile::TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes a directory in `parent` whose name begins with `prefix`, and removes those of that
    /// kind that dead processes left there.
    ///
    /// # Errors
    /// If `parent` is not writable.
    pub fn new(parent: &Path, prefix: &str) -> Result<Self, Failure> {
        remove_abandoned(parent, prefix);
        let io = |e: std::io::Error| failure::io(&parent.display().to_string(), &e);
        let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(parent).map_err(io)?;
        let lock = File::create(dir.path().join(LOCK)).map_err(io)?;
        lock.lock().map_err(io)?;
        Ok(Self { dir, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Gives the directory its final name, in one step.
    ///
    /// # Errors
    /// If something else has that name; the directory is removed then.
    pub fn publish(self, to: &Path) -> std::io::Result<()> {
        fs::remove_file(self.path().join(LOCK))?;
        fs::rename(self.path(), to)?;
        let _ = self.dir.keep();
        Ok(())
    }
}

/// Removes directories that no process holds. One that is just being made has no lock yet, and is
/// left alone.
fn remove_abandoned(parent: &Path, prefix: &str) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let candidates = entries
        .filter(|e| e.file_name().to_string_lossy().starts_with(prefix))
        .map(|e| e.path())
        .filter(|path| path.symlink_metadata().is_ok_and(|m| m.is_dir()));
    for path in candidates.collect::<Vec<PathBuf>>() {
        if File::open(path.join(LOCK)).is_ok_and(|f| f.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_what_the_dead_left_and_nothing_that_is_in_use() {
        let parent = tempfile::tempdir().expect("directory");
        let dead = parent.path().join(".x-dead");
        fs::create_dir(&dead).expect("directory");
        fs::write(dead.join(LOCK), "").expect("lock");
        let live = Scratch::new(parent.path(), ".x-").expect("first");
        let other = Scratch::new(parent.path(), ".x-").expect("second");
        assert!(!dead.exists() && live.path().exists() && other.path().exists());
        let kept = live.path().to_owned();
        live.publish(&parent.path().join("result")).expect("publishing");
        assert!(parent.path().join("result").exists() && !kept.exists());
    }
}
