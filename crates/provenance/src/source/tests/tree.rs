//! Trees that would write where they must not, and writing those that may.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;
use crate::source::tree::{Entry, EntryMode, to_bytes};

fn entry(name: &str, mode: EntryMode, id: Oid) -> Entry {
    Entry { name: name.as_bytes().to_vec(), mode, id }
}

fn blob(fixture: &Fixture) -> Oid {
    fixture.author.write(gix::objs::Kind::Blob, b"x").expect("a blob")
}

#[test]
fn refuses_paths_that_lead_out_of_the_tree() {
    for name in ["..", ".git", ".GIT", "git~1", ".", "a/../../b", "/etc/passwd", "a\nb"] {
        let fixture = Fixture::honest();
        let regular = EntryMode::File(FileMode::Regular);
        let tree = to_bytes(vec![entry(name, regular, blob(&fixture))]);
        fixture.commit_tree(&alice(), 200, &tree);
        assert_eq!(code(fixture.verify()), "CM-SRC-0030", "{name:?}");
        let inner = fixture.author.write(gix::objs::Kind::Tree, &tree).expect("a tree");
        fixture.commit_tree(
            &alice(),
            300,
            &to_bytes(vec![entry("d", EntryMode::Directory, inner)]),
        );
        assert_eq!(code(fixture.verify()), "CM-SRC-0030", "d/{name:?}");
    }
    let fixture = Fixture::honest();
    let id = blob(&fixture);
    fixture.commit_tree(
        &alice(),
        200,
        &to_bytes(vec![entry("..a", EntryMode::File(FileMode::Regular), id)]),
    );
    assert!(fixture.verify().is_ok());
}

#[test]
fn refuses_submodules() {
    let fixture = Fixture::honest();
    let tree = to_bytes(vec![entry("sub", EntryMode::Submodule, fixture.head())]);
    fixture.commit_tree(&alice(), 200, &tree);
    let result = fixture.verify();
    assert!(result.as_ref().is_err_and(|e| e.to_string().contains("sub")));
    assert_eq!(code(result), "CM-SRC-0031");
}

#[test]
fn refuses_a_tree_it_can_not_read() {
    let fixture = Fixture::honest();
    fixture.commit_tree(&alice(), 200, b"100644 a");
    assert_eq!(code(fixture.verify()), "CM-SRC-0015");
}

#[test]
fn refuses_a_small_tree_that_unfolds_without_end() {
    let fixture = Fixture::honest();
    let mut tree = fixture.author.write(gix::objs::Kind::Tree, b"").expect("a tree");
    for _ in 0..12 {
        let names: Vec<_> =
            (0..50).map(|i| entry(&format!("d{i}"), EntryMode::Directory, tree)).collect();
        tree = fixture.author.write(gix::objs::Kind::Tree, &to_bytes(names)).expect("a tree");
    }
    fixture.commit_tree(&alice(), 200, &to_bytes(vec![entry("d", EntryMode::Directory, tree)]));
    assert_eq!(code(fixture.verify()), "CM-SRC-0016");
}

#[test]
fn refuses_a_link_to_nowhere() {
    for (target, accepted) in [(&b""[..], false), (b"a\0b", false), (b"../outside", true)] {
        let fixture = Fixture::honest();
        let id = fixture.author.write(gix::objs::Kind::Blob, target).expect("a blob");
        fixture.commit_tree(
            &alice(),
            200,
            &to_bytes(vec![entry("l", EntryMode::File(FileMode::Symlink), id)]),
        );
        match accepted {
            true => assert!(fixture.verify().is_ok()),
            false => assert_eq!(code(fixture.verify()), "CM-SRC-0030"),
        }
    }
}

fn many_kinds() -> Fixture {
    let fixture = Fixture::honest();
    let of = |path, mode, text: &'static str| Change { path, mode, content: Some(text.as_bytes()) };
    fixture.commit(
        &bob(),
        300,
        &[
            of("run.sh", FileMode::Executable, "#!/bin/sh\n"),
            of("deep/er/est", FileMode::Regular, "d"),
            of("deep/er.txt", FileMode::Regular, ""),
            of("deep-er", FileMode::Regular, "x"),
            of("link", FileMode::Symlink, "deep/er/est"),
            of("escape", FileMode::Symlink, "/etc/passwd"),
        ],
    );
    fixture
}

#[test]
fn writes_exactly_the_verified_tree() {
    let fixture = many_kinds();
    let verified = fixture.verify().expect("verifies");
    let out = TempDir::new().expect("a directory");
    write_tree(&verified, fixture.path(), out.path()).expect("writes");
    for file in &verified.files {
        let path = out.path().join(&file.path);
        let data = fs::symlink_metadata(&path).expect("written");
        assert_eq!(data.mtime(), verified.time, "{}", file.path);
        let bytes = match file.mode {
            FileMode::Symlink => {
                fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
            }
            _ => fs::read(&path).expect("a file"),
        };
        assert_eq!(Sha256::of(&bytes), file.sha256);
        let mode = data.permissions().mode() & 0o777;
        match file.mode {
            FileMode::Regular => assert_eq!(mode, 0o644),
            FileMode::Executable => assert_eq!(mode, 0o755),
            FileMode::Symlink => assert!(data.is_symlink()),
        }
    }
    assert_eq!(fs::read_dir(out.path()).expect("a directory").count(), 7);
    assert_eq!(fs::metadata(out.path().join("deep/er")).expect("written").mtime(), verified.time);
}

#[test]
fn writes_only_into_an_empty_directory_of_its_own() {
    let fixture = many_kinds();
    let verified = fixture.verify().expect("verifies");
    let out = TempDir::new().expect("a directory");
    let write = |path: &Path| write_tree(&verified, fixture.path(), path);
    assert_eq!(code(write(&out.path().join("missing"))), "CM-SRC-0050");
    let real = out.path().join("real");
    fs::create_dir(&real).expect("a directory");
    symlink(&real, out.path().join("link")).expect("a link");
    assert_eq!(code(write(&out.path().join("link"))), "CM-SRC-0050");
    assert_eq!(code(write(out.path())), "CM-SRC-0050");
    assert!(write(&real).is_ok());
    assert_eq!(code(write(&real)), "CM-SRC-0050");
}

#[test]
fn writes_nothing_that_changed_after_it_was_verified() {
    let fixture = many_kinds();
    let verified = fixture.verify().expect("verifies");
    let out = TempDir::new().expect("a directory");
    fixture.alter(verified.files[0].blob, gix::objs::Kind::Blob, b"swapped");
    assert_eq!(code(write_tree(&verified, fixture.path(), out.path())), "CM-SRC-0012");
}

#[test]
fn tells_which_files_of_a_checkout_differ() {
    let fixture = many_kinds();
    assert_eq!(dirty(fixture.path()).expect("reads"), None);
    fs::write(fixture.path().join("untracked"), "u").expect("writing");
    assert_eq!(dirty(fixture.path()).expect("reads"), None);
    fs::write(fixture.path().join("README"), "hellO\nworld\n").expect("writing");
    fs::remove_file(fixture.path().join("deep/er.txt")).expect("removing");
    fs::set_permissions(fixture.path().join("run.sh"), fs::Permissions::from_mode(0o644))
        .expect("mode");
    let changed = dirty(fixture.path()).expect("reads").expect("changes");
    assert_eq!(changed, ["README", "deep/er.txt", "run.sh"]);
    assert_eq!(dirty(&fixture.path().join(".git")).expect("reads"), None);
}

#[test]
fn makes_no_commit_that_would_be_refused() {
    let fixture = Fixture::honest();
    let alice = alice();
    for path in ["../x", ".git/hooks/x", "a//b", "/x", ""] {
        let changes = [file(path, "x")];
        let result = fixture.author.commit(&fixture.new_commit(&alice, 1, &changes));
        assert_eq!(code(result), "CM-SRC-0052", "{path:?}");
    }
    assert_eq!(code(Author::init(fixture.path())), "CM-SRC-0052");
}
