//! Revisions, tags, merges, `since`, and where each file came from.

use super::*;

#[test]
fn finds_the_commit_each_file_came_from() {
    let fixture = Fixture::honest();
    let verified = fixture.verify().expect("verifies");
    let id = |i: usize| verified.commits[i].id;
    let table: Vec<_> = verified
        .files
        .iter()
        .map(|f| (f.path.as_str(), f.last_commit, f.signer.as_deref().unwrap_or("-")))
        .collect();
    assert_eq!(
        table,
        [
            ("README", id(0), "alice@example.org"),
            ("src/lib.c", id(1), "bob@example.org"),
            ("src/main.c", id(2), "alice@example.org"),
        ]
    );
    assert_eq!(verified.files[0].sha256, Sha256::of(b"hello\nworld\n"));
}

#[test]
fn follows_both_sides_of_a_merge() {
    let (fixture, bob) = (Fixture::honest(), bob());
    let base = fixture.head();
    let left = fixture.commit(&alice(), 200, &[file("left", "l"), file("both", "l")]);
    let changes = [file("right", "r"), file("both", "r")];
    let right = fixture
        .make(&NewCommit { parents: Some(&[base]), ..fixture.new_commit(&bob, 210, &changes) });
    // The merge takes `right` from its second parent and makes `both` itself.
    let changes = [file("left", "l"), file("both", "merged")];
    let merge = fixture.make(&NewCommit {
        parents: Some(&[right, left]),
        ..fixture.new_commit(&bob, 300, &changes)
    });
    let verified = fixture.verify().expect("verifies");
    assert_eq!(verified.commits.len(), 6);
    let of = |path: &str| verified.files.iter().find(|f| f.path == path).map(|f| f.last_commit);
    assert_eq!(of("left"), Some(left));
    assert_eq!(of("right"), Some(right));
    assert_eq!(of("both"), Some(merge));
    // An unsigned commit on a side branch counts like any other.
    let alice = alice();
    let changes = [file("z", "z")];
    let unsigned = NewCommit {
        parents: Some(&[base]),
        key: None,
        ..fixture.new_commit(&alice, 310, &changes)
    };
    let side = fixture.make(&unsigned);
    fixture.make(&NewCommit {
        parents: Some(&[merge, side]),
        ..fixture.new_commit(&bob, 320, &changes)
    });
    assert_eq!(code(fixture.verify()), "CM-SRC-0020");
}

#[test]
fn tells_a_file_from_a_directory_of_that_name() {
    let fixture = Fixture::honest();
    fixture.commit(&alice(), 200, &[file("a", "1"), file("a.c", "2")]);
    fs::remove_file(fixture.path().join("a")).expect("removing");
    let moved = fixture.commit(&bob(), 210, &[file("a/a", "1")]);
    let last = fixture.commit(&alice(), 220, &[file("a-b", "3")]);
    let verified = fixture.verify().expect("verifies");
    let of = |path: &str| verified.files.iter().find(|f| f.path == path).map(|f| f.last_commit);
    assert_eq!((of("a/a"), of("a-b")), (Some(moved), Some(last)));
    assert_eq!(of("a"), None);
}

#[test]
fn takes_history_up_to_since_as_given() {
    let (fixture, mallory) = (Fixture::empty(), mallory());
    let first = fixture.commit(&mallory, 0, &[file("old", "o"), file("kept", "k")]);
    let given = fixture.commit(&mallory, 10, &[file("old", "oo")]);
    let new = fixture.commit(&alice(), 20, &[file("new", "n")]);
    assert_eq!(code(fixture.verify()), "CM-SRC-0022");
    let check = |rev: &str, since| verify(fixture.path(), rev, &team(), Some(since), NOW);
    let verified = check("HEAD", given).expect("verifies");
    assert_eq!(verified.commits.iter().map(|c| c.id).collect::<Vec<_>>(), [new]);
    let table: Vec<_> =
        verified.files.iter().map(|f| (f.last_commit, f.signer.is_some())).collect();
    assert_eq!(table, [(given, false), (new, true), (given, false)]);
    // `since` must be a proper ancestor.
    assert_eq!(code(check("HEAD", first)), "CM-SRC-0022");
    assert_eq!(code(check("HEAD~1", given)), "CM-SRC-0008");
    assert_eq!(code(check("HEAD~1", new)), "CM-SRC-0008");
    let elsewhere =
        fixture.make(&NewCommit { parents: Some(&[]), ..fixture.new_commit(&mallory, 0, &[]) });
    fixture.author.set_head(new).expect("head");
    assert_eq!(code(check("HEAD", elsewhere)), "CM-SRC-0022");
    let nowhere = Oid::new([9; 20]);
    assert_eq!(code(check("HEAD", nowhere)), "CM-SRC-0009");
}

#[test]
fn refuses_since_on_another_branch() {
    let (fixture, alice) = (Fixture::honest(), alice());
    let main = fixture.head();
    let side =
        fixture.make(&NewCommit { parents: Some(&[]), ..fixture.new_commit(&alice, 0, &[]) });
    fixture.author.set_head(main).expect("head");
    assert_eq!(code(verify(fixture.path(), "HEAD", &team(), Some(side), NOW)), "CM-SRC-0008");
}

#[test]
fn reads_names_ids_and_steps_back() {
    let fixture = Fixture::honest();
    let ids: Vec<_> = fixture.verify().expect("verifies").commits.iter().map(|c| c.id).collect();
    let commit = |rev: &str| verify(fixture.path(), rev, &team(), None, NOW).map(|v| v.commit);
    for (rev, expected) in [
        ("HEAD", ids[0]),
        ("main", ids[0]),
        ("refs/heads/main", ids[0]),
        ("HEAD~1", ids[1]),
        ("HEAD^", ids[1]),
        ("main^1~1", ids[2]),
        ("HEAD~~", ids[2]),
        ("HEAD^0", ids[0]),
        (&ids[1].to_string(), ids[1]),
        (&ids[1].to_string()[..10], ids[1]),
    ] {
        assert_eq!(commit(rev).expect(rev), expected, "{rev}");
    }
    for rev in [
        "",
        "none",
        "HEAD~3",
        "HEAD^2",
        "HEAD~1x",
        "HEAD~99999999999",
        "HEAD^{tree}",
        "-",
        "../x",
        "a\0b",
        "main@{1}",
    ] {
        assert_eq!(code(commit(rev)), "CM-SRC-0006", "{rev:?}");
    }
    assert_eq!(code(commit(&"0".repeat(40))), "CM-SRC-0009");
    let tree = fixture.verify().expect("verifies").tree.to_string();
    assert_eq!(code(commit(&tree)), "CM-SRC-0006");
}

#[test]
fn verifies_the_signature_of_a_tag() {
    let (fixture, alice, mallory) = (Fixture::honest(), alice(), mallory());
    let head = fixture.head();
    let tag = |name: &str, by: &Person, as_: &Person, signed: bool| {
        let key = signed.then_some(by.pem.as_bytes());
        fixture.author.tag(name, head, as_.identity(), START + 500, key).expect("a tag");
        verify(fixture.path(), name, &team(), None, NOW)
    };
    let verified = tag("v1", &alice, &alice, true).expect("verifies");
    assert_eq!(verified.commit, head);
    assert_eq!(verified.tags[0].name, "v1");
    assert_eq!(verified.tags[0].signer, alice.email);
    assert_eq!(tag("v2", &alice, &alice, false).expect("verifies").tags, []);
    assert_eq!(code(tag("v3", &mallory, &mallory, true)), "CM-SRC-0022");
    assert_eq!(code(tag("v4", &alice, &bob(), true)), "CM-SRC-0026");
}

#[test]
fn refuses_an_old_tag_served_under_a_new_name() {
    let (fixture, alice) = (Fixture::honest(), alice());
    let old = fixture.author.tag(
        "v1",
        fixture.head(),
        alice.identity(),
        START + 500,
        Some(alice.pem.as_bytes()),
    );
    let path = fixture.path().join(".git/refs/tags/v2");
    fs::write(path, format!("{}\n", old.expect("a tag"))).expect("writing");
    assert!(verify(fixture.path(), "v1", &team(), None, NOW).is_ok());
    assert_eq!(code(verify(fixture.path(), "v2", &team(), None, NOW)), "CM-SRC-0007");
}

#[test]
fn traces_lines_to_commits() {
    let fixture = Fixture::honest();
    let verified = fixture.verify().expect("verifies");
    let (new, old) = (verified.commits[0].id, verified.commits[2].id);
    let lines = |file: &str, line| blame(fixture.path(), verified.commit, file, line);
    let all: Vec<_> = lines("README", None)
        .expect("traces")
        .iter()
        .map(|b| (b.first, b.count, b.commit))
        .collect();
    assert_eq!(all, [(1, 1, old), (2, 1, new)]);
    let one = lines("README", Some(2)).expect("traces");
    assert_eq!((one.len(), one[0].first, one[0].commit), (1, 2, new));
    for (file, line) in [
        ("README", Some(0)),
        ("README", Some(3)),
        ("none", None),
        ("src", None),
        ("src/none", None),
        ("README/x", None),
    ] {
        assert_eq!(code(lines(file, line)), "CM-SRC-0051", "{file} {line:?}");
    }
}

#[test]
fn traces_nothing_through_altered_objects() {
    let fixture = Fixture::honest();
    let verified = fixture.verify().expect("verifies");
    let old = gix::objs::compute_hash(gix::hash::Kind::Sha1, gix::objs::Kind::Blob, b"hello\n");
    let old = Oid::from_gix(&old.expect("hashes")).expect("an id");
    fixture.alter(old, gix::objs::Kind::Blob, b"hello\nworld\n");
    let result = blame(fixture.path(), verified.commit, "README", None);
    assert!(result.is_err(), "{result:?}");
}

#[test]
fn finds_one_file_by_its_path_but_no_link() {
    let fixture = Fixture::honest();
    let link = Change { path: "l", mode: FileMode::Symlink, content: Some(b"README") };
    fixture.commit(&alice(), 200, &[link]);
    let at = |path: &str| file_at(fixture.path(), "HEAD", path).expect("reads");
    assert_eq!(at("src/main.c").as_deref(), Some(&b"int main;\n"[..]));
    for path in ["l", "src", "none", "README/x", ""] {
        assert_eq!(at(path), None, "{path:?}");
    }
}
