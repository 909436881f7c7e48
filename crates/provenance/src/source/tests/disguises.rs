//! A repository that shows another history or other bytes than its objects have.

use super::*;

fn write(fixture: &Fixture, path: &str, text: &str) {
    let path = fixture.path().join(".git").join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
    fs::write(path, text).expect("writing");
}

#[test]
fn accepts_the_honest_repository() {
    let verified = Fixture::honest().verify().expect("verifies");
    assert_eq!(verified.commits.len(), 3);
    assert_eq!(verified.files.len(), 3);
}

#[test]
fn refuses_a_commit_whose_bytes_were_altered() {
    let fixture = Fixture::honest();
    let id = fixture.head();
    let text = String::from_utf8(fixture.object(id, ObjectKind::Commit)).expect("text");
    fixture.alter(id, gix::objs::Kind::Commit, text.replace("change", "chance").as_bytes());
    let result = fixture.verify();
    assert!(result.as_ref().is_err_and(|e| e.to_string().contains(&id.to_string())));
    assert_eq!(code(result), "CM-SRC-0010");
}

#[test]
fn refuses_a_tree_whose_bytes_were_altered() {
    let fixture = Fixture::honest();
    let tree = fixture.verify().expect("verifies").tree;
    let mut bytes = fixture.object(tree, ObjectKind::Tree);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fixture.alter(tree, gix::objs::Kind::Tree, &bytes);
    assert_eq!(code(fixture.verify()), "CM-SRC-0011");
}

#[test]
fn refuses_a_file_whose_bytes_were_altered() {
    let fixture = Fixture::honest();
    let verified = fixture.verify().expect("verifies");
    fixture.alter(verified.files[0].blob, gix::objs::Kind::Blob, b"hellO\nworld\n");
    assert_eq!(code(fixture.verify()), "CM-SRC-0012");
}

#[test]
fn refuses_an_object_that_is_missing_or_of_another_kind() {
    let fixture = Fixture::honest();
    let verified = fixture.verify().expect("verifies");
    fixture.alter(verified.files[0].blob, gix::objs::Kind::Tree, b"");
    assert_eq!(code(fixture.verify()), "CM-SRC-0009");
    fs::remove_file(fixture.loose(verified.files[0].blob)).expect("removing");
    assert_eq!(code(fixture.verify()), "CM-SRC-0009");
}

#[test]
fn refuses_an_object_that_is_no_object_at_all() {
    for garbage in [&b""[..], b"garbage", &[0x78, 0x01, 0xff, 0xff, 0xff]] {
        let fixture = Fixture::honest();
        let path = fixture.loose(fixture.head());
        fs::remove_file(&path).expect("removing");
        fs::write(&path, garbage).expect("writing");
        assert_eq!(code(fixture.verify()), "CM-SRC-0009");
    }
}

#[test]
fn refuses_replace_refs_loose_and_packed() {
    let fixture = Fixture::honest();
    let (id, other) = (fixture.head(), fixture.verify().expect("verifies").commits[1].id);
    write(&fixture, &format!("refs/replace/{id}"), &format!("{other}\n"));
    assert_eq!(code(fixture.verify()), "CM-SRC-0004");
    let fixture = Fixture::honest();
    write(
        &fixture,
        "packed-refs",
        &format!("# pack-refs with: peeled\n{other} refs/replace/{id}\n"),
    );
    assert_eq!(code(fixture.verify()), "CM-SRC-0004");
    write(&fixture, "packed-refs", &format!("# pack-refs with: peeled\n{other} refs/heads/x\n"));
    assert!(fixture.verify().is_ok());
}

#[test]
fn refuses_a_shallow_clone() {
    let fixture = Fixture::honest();
    write(&fixture, "shallow", &format!("{}\n", fixture.head()));
    assert_eq!(code(fixture.verify()), "CM-SRC-0002");
    write(&fixture, "shallow", "");
    assert!(fixture.verify().is_ok());
}

#[test]
fn refuses_grafts() {
    let fixture = Fixture::honest();
    write(&fixture, "info/grafts", &format!("{}\n", fixture.head()));
    assert_eq!(code(fixture.verify()), "CM-SRC-0003");
    write(&fixture, "info/grafts", "# none\n");
    assert!(fixture.verify().is_ok());
}

#[test]
fn refuses_alternates() {
    let (fixture, other) = (Fixture::honest(), Fixture::honest());
    let objects = other.path().join(".git/objects");
    write(&fixture, "objects/info/alternates", &format!("{}\n", objects.display()));
    assert_eq!(code(fixture.verify()), "CM-SRC-0005");
    write(&fixture, "objects/info/alternates", "\n");
    assert!(fixture.verify().is_ok());
}

#[test]
fn reads_no_configuration() {
    let fixture = Fixture::honest();
    write(&fixture, "config", "[core\n\tthis is broken = \n[include]\n\tpath = /dev/zero\n");
    assert!(fixture.verify().is_ok());
}

#[test]
fn reads_bare_repositories_and_linked_working_trees() {
    let fixture = Fixture::honest();
    let expected = fixture.verify().expect("verifies");
    let bare = verify(&fixture.path().join(".git"), "main", &team(), None, NOW).expect("verifies");
    assert_eq!(bare, expected);
    let linked = TempDir::new().expect("a directory");
    let private = fixture.path().join(".git/worktrees/l");
    fs::create_dir_all(&private).expect("directories");
    fs::write(private.join("HEAD"), "ref: refs/heads/main\n").expect("writing");
    fs::write(private.join("commondir"), "../..\n").expect("writing");
    fs::write(linked.path().join(".git"), format!("gitdir: {}\n", private.display()))
        .expect("writing");
    assert_eq!(verify(linked.path(), "HEAD", &team(), None, NOW).expect("verifies"), expected);
    fs::write(private.join("shallow"), format!("{}\n", expected.commit)).expect("writing");
    assert_eq!(code(verify(linked.path(), "HEAD", &team(), None, NOW)), "CM-SRC-0002");
}

#[test]
fn refuses_a_directory_that_is_no_repository() {
    let dir = TempDir::new().expect("a directory");
    assert_eq!(code(verify(dir.path(), "HEAD", &team(), None, NOW)), "CM-SRC-0001");
    assert_eq!(code(verify(&dir.path().join("none"), "HEAD", &team(), None, NOW)), "CM-SRC-0001");
    fs::write(dir.path().join(".git"), "gitdir: \n").expect("writing");
    assert_eq!(code(verify(dir.path(), "HEAD", &team(), None, NOW)), "CM-SRC-0001");
}
