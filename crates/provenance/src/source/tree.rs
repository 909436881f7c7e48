//! Tree objects and the paths a source may have.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use gix::bstr::ByteSlice as _;
use gix::validate::path::component;
use serde::{Deserialize, Serialize};

use super::error::{ObjectKind, SourceError};
use super::oid::Oid;

/// Largest tree object that is read, in bytes.
pub(super) const MAX_SIZE: u64 = 64 << 20;

/// Longest path that is accepted, in bytes.
pub(super) const MAX_PATH: usize = 4095;

/// What kind of file a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FileMode {
    /// A file.
    #[serde(rename = "100644")]
    Regular,
    /// A file that may be executed.
    #[serde(rename = "100755")]
    Executable,
    /// A symbolic link; its content is the target.
    #[serde(rename = "120000")]
    Symlink,
}

impl FileMode {
    /// As git writes it.
    pub const fn octal(self) -> &'static str {
        match self {
            Self::Regular => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
        }
    }
}

/// One line of a tree object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: Vec<u8>,
    pub mode: EntryMode,
    pub id: Oid,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryMode {
    File(FileMode),
    Directory,
    Submodule,
    /// A mode early git versions wrote; met in old history only, never in a source.
    Legacy(u32),
}

/// Splits a tree object into its entries; names are only checked to be in git's order.
pub(super) fn parse(id: Oid, bytes: &[u8]) -> Result<Vec<Entry>, SourceError> {
    let bad = |problem: &str| SourceError::malformed(ObjectKind::Tree, id, problem);
    let mut entries: Vec<Entry> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = rest.iter().position(|b| *b == b' ').ok_or_else(|| bad("no mode"))?;
        let mode = mode(&rest[..space]).ok_or_else(|| bad("an unknown mode"))?;
        rest = &rest[space + 1..];
        let nul = rest.iter().position(|b| *b == 0).ok_or_else(|| bad("a name without its end"))?;
        let name = rest[..nul].to_vec();
        let target = rest.get(nul + 1..nul + 21).and_then(Oid::from_slice);
        let target = target.ok_or_else(|| bad("an entry cut off"))?;
        rest = &rest[nul + 21..];
        if name.is_empty() {
            return Err(bad("an empty name"));
        }
        let entry = Entry { name, mode, id: target };
        if entries.last().is_some_and(|before| !in_order(before, &entry)) {
            return Err(bad("entries out of order or listed twice"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// Checks that no entry of the tree at `directory` could be written anywhere but below it, and
/// that none is a submodule or of a legacy mode. Gives the entries' full paths.
pub(super) fn checked_paths(
    id: Oid,
    directory: &str,
    entries: &[Entry],
) -> Result<Vec<String>, SourceError> {
    let mut names = BTreeSet::new();
    let mut paths = Vec::with_capacity(entries.len());
    for entry in entries {
        let path = format!("{directory}{}", String::from_utf8_lossy(&entry.name));
        let refuse = |problem: String| SourceError::Path { path: path.clone(), tree: id, problem };
        let symlink = entry.mode == EntryMode::File(FileMode::Symlink);
        if let Some(problem) = name_problem(&entry.name, symlink) {
            return Err(refuse(problem));
        }
        if !names.insert(&entry.name) {
            return Err(refuse("is both a file and a directory".into()));
        }
        if path.len() > MAX_PATH {
            return Err(refuse(format!("is longer than {MAX_PATH} bytes")));
        }
        match entry.mode {
            EntryMode::Submodule => return Err(SourceError::Submodule { path, commit: entry.id }),
            EntryMode::Legacy(mode) => return Err(refuse(format!("has the old mode {mode:o}"))),
            EntryMode::File(_) | EntryMode::Directory => paths.push(path),
        }
    }
    Ok(paths)
}

/// Why a path is not written to any disk, if so.
pub(super) fn path_problem(path: &str) -> Option<String> {
    if path.len() > MAX_PATH {
        return Some(format!("is longer than {MAX_PATH} bytes"));
    }
    path.split('/').find_map(|part| name_problem(part.as_bytes(), false))
}

/// Why a name is not written to any disk, if so.
fn name_problem(name: &[u8], symlink: bool) -> Option<String> {
    if std::str::from_utf8(name).is_err() {
        return Some("is not UTF-8".into());
    }
    if name.iter().any(u8::is_ascii_control) {
        return Some("contains a control character".into());
    }
    if name.len() > 255 {
        return Some("has a part longer than 255 bytes".into());
    }
    let options =
        component::Options { protect_windows: false, protect_hfs: true, protect_ntfs: true };
    let mode = symlink.then_some(component::Mode::Symlink);
    gix::validate::path::component(name.as_bstr(), mode, options).err().map(|e| {
        let text = e.to_string();
        text.chars().take(1).flat_map(char::to_lowercase).chain(text.chars().skip(1)).collect()
    })
}

fn mode(text: &[u8]) -> Option<EntryMode> {
    Some(match text {
        b"100644" => EntryMode::File(FileMode::Regular),
        b"100755" => EntryMode::File(FileMode::Executable),
        b"120000" => EntryMode::File(FileMode::Symlink),
        b"40000" => EntryMode::Directory,
        b"160000" => EntryMode::Submodule,
        _ if text.len() == 6 && text.starts_with(b"100") => {
            EntryMode::Legacy(u32::from_str_radix(std::str::from_utf8(text).ok()?, 8).ok()?)
        }
        _ => return None,
    })
}

/// The tree object with these entries, which are brought into git's order.
pub(super) fn to_bytes(mut entries: Vec<Entry>) -> Vec<u8> {
    entries.sort_by(|a, b| compare(a, &b.name, b.mode == EntryMode::Directory));
    let mut out = Vec::new();
    for entry in entries {
        let mode = match entry.mode {
            EntryMode::File(FileMode::Regular) => "100644".to_owned(),
            EntryMode::File(FileMode::Executable) => "100755".to_owned(),
            EntryMode::File(FileMode::Symlink) => "120000".to_owned(),
            EntryMode::Directory => "40000".to_owned(),
            EntryMode::Submodule => "160000".to_owned(),
            EntryMode::Legacy(mode) => format!("{mode:o}"),
        };
        out.extend_from_slice(mode.as_bytes());
        out.push(b' ');
        out.extend_from_slice(&entry.name);
        out.push(0);
        out.extend_from_slice(entry.id.as_bytes());
    }
    out
}

fn in_order(before: &Entry, entry: &Entry) -> bool {
    compare(before, &entry.name, entry.mode == EntryMode::Directory) == Ordering::Less
}

/// Compares an entry with a name, in git's order.
pub(super) fn compare(entry: &Entry, name: &[u8], directory: bool) -> Ordering {
    sort_key(&entry.name, entry.mode == EntryMode::Directory).cmp(sort_key(name, directory))
}

/// git sorts a directory as if its name ended in a slash.
fn sort_key(name: &[u8], directory: bool) -> impl Iterator<Item = u8> + '_ {
    name.iter().copied().chain(directory.then_some(b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (mode, name) in entries {
            out.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            out.extend_from_slice(&[7; 20]);
        }
        out
    }

    fn check(entries: &[(&str, &str)]) -> Result<Vec<String>, SourceError> {
        let id = Oid::new([1; 20]);
        checked_paths(id, "dir/", &parse(id, &tree(entries))?)
    }

    #[test]
    fn gives_full_paths_of_an_ordinary_tree() {
        let paths = check(&[
            ("100644", ".gitignore"),
            ("100755", "a b"),
            ("120000", "é"),
            ("40000", "é.d"),
        ]);
        assert_eq!(paths.expect("accepted"), ["dir/.gitignore", "dir/a b", "dir/é", "dir/é.d"]);
    }

    #[test]
    fn refuses_names_that_could_leave_the_tree_or_enter_dot_git() {
        for name in [
            "..",
            ".",
            ".git",
            ".GIT",
            ".Git",
            "git~1",
            "GIT~1",
            ".git ",
            ".git.",
            ".g\u{200c}it",
            "a/b",
            "/etc",
            "a\nb",
            "\u{7f}",
            ".git::$INDEX_ALLOCATION",
        ] {
            assert!(
                matches!(check(&[("100644", name)]), Err(SourceError::Path { .. })),
                "{name:?}"
            );
        }
        assert!(matches!(check(&[("120000", ".gitmodules")]), Err(SourceError::Path { .. })));
        let long = "x".repeat(256);
        assert!(matches!(check(&[("100644", &long)]), Err(SourceError::Path { .. })));
    }

    #[test]
    fn refuses_submodules_and_old_modes() {
        assert!(matches!(check(&[("160000", "sub")]), Err(SourceError::Submodule { .. })));
        assert!(matches!(check(&[("100664", "old")]), Err(SourceError::Path { .. })));
    }

    #[test]
    fn refuses_trees_that_git_would_not_write() {
        for bad in [
            tree(&[("100644", "b"), ("100644", "a")]),
            tree(&[("100644", "a"), ("100644", "a")]),
            tree(&[("040000", "a")]),
            tree(&[("100644", "")]),
            tree(&[("100644", "a")])[..20].to_vec(),
            b"100644".to_vec(),
        ] {
            assert!(matches!(parse(Oid::new([1; 20]), &bad), Err(SourceError::Malformed { .. })));
        }
        let twice = check(&[("100644", "a"), ("100644", "a.c"), ("40000", "a")]);
        assert!(matches!(twice, Err(SourceError::Path { .. })));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let id = Oid::new([1; 20]);
            if let Ok(entries) = parse(id, &bytes) {
                let _ = checked_paths(id, "", &entries);
            }
        }
    }
}
