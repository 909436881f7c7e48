//! Commits by people who may not, or not then, or not in that name.

use super::*;

fn at(after: i64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(START + after).ok()
}

#[test]
fn names_the_signer_of_every_commit() {
    let verified = Fixture::honest().verify().expect("verifies");
    let signers: Vec<_> = verified.commits.iter().map(|c| c.signer.as_str()).collect();
    assert_eq!(signers, ["alice@example.org", "bob@example.org", "alice@example.org"]);
    assert!(verified.commits.iter().all(|c| c.fingerprint.starts_with("SHA256:")));
}

#[test]
fn refuses_an_unsigned_commit() {
    let (fixture, alice) = (Fixture::honest(), alice());
    let changes = [file("x", "x")];
    fixture.make(&NewCommit { key: None, ..fixture.new_commit(&alice, 200, &changes) });
    assert_eq!(code(fixture.verify()), "CM-SRC-0020");
    // Covered by later signed commits it is no better.
    fixture.commit(&alice, 300, &[file("y", "y")]);
    assert_eq!(code(fixture.verify()), "CM-SRC-0020");
}

#[test]
fn refuses_a_commit_signed_by_a_stranger() {
    let fixture = Fixture::honest();
    fixture.commit(&mallory(), 200, &[file("x", "x")]);
    assert_eq!(code(fixture.verify()), "CM-SRC-0022");
    let mut developers = team();
    developers.push(mallory().listed());
    assert!(verify(fixture.path(), "HEAD", &developers, None, NOW).is_ok());
}

#[test]
fn refuses_a_signature_taken_from_another_commit() {
    let (fixture, alice) = (Fixture::honest(), alice());
    let first =
        String::from_utf8(fixture.object(fixture.head(), ObjectKind::Commit)).expect("text");
    let moved = first.replace("\n\nchange\n", "\n\nanother change\n");
    let id = fixture.author.write(gix::objs::Kind::Commit, moved.as_bytes()).expect("a commit");
    fixture.author.set_head(id).expect("head");
    assert_eq!(code(fixture.verify()), "CM-SRC-0023");
    let other_use =
        casemate_statement::sshsig::sign(alice.pem.as_bytes(), None, "file", b"x").expect("signs");
    let armor = other_use.to_armored().trim_end().replace('\n', "\n ");
    let unsigned = format!(
        "tree {}\nauthor A <{e}> {START} +0000\ncommitter A <{e}> {START} +0000\ngpgsig {armor}\n\nx",
        "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        e = alice.email
    );
    let id = fixture.author.write(gix::objs::Kind::Commit, unsigned.as_bytes()).expect("a commit");
    fixture.author.set_head(id).expect("head");
    assert_eq!(code(fixture.verify()), "CM-SRC-0023");
}

#[test]
fn refuses_signatures_of_a_kind_it_can_not_judge() {
    let (fixture, alice) = (Fixture::honest(), alice());
    let mut text =
        String::from_utf8(fixture.object(fixture.head(), ObjectKind::Commit)).expect("text");
    text = text.replace("SSH SIGNATURE", "SIGNED MESSAGE");
    let id = fixture.author.write(gix::objs::Kind::Commit, text.as_bytes()).expect("a commit");
    fixture.author.set_head(id).expect("head");
    assert_eq!(code(fixture.verify()), "CM-SRC-0021");
    assert!(!alice.pem.is_empty());
}

#[test]
fn refuses_a_key_outside_its_validity() {
    let fixture = Fixture::honest();
    for (after, before, accepted) in [
        (at(0), at(121), true),
        (at(1), None, false),
        (None, at(120), false),
        (at(500), at(900), false),
    ] {
        let alice = Developer { valid_after: after, valid_before: before, ..alice().listed() };
        let result = verify(fixture.path(), "HEAD", &[alice, bob().listed()], None, NOW);
        match accepted {
            true => assert!(result.is_ok(), "{after:?} {before:?}: {result:?}"),
            false => assert_eq!(code(result), "CM-SRC-0024", "{after:?} {before:?}"),
        }
    }
}

#[test]
fn refuses_a_back_dated_commit_on_top_of_newer_history() {
    let fixture = Fixture::honest();
    let developers =
        |until| [alice().listed(), Developer { valid_before: at(until), ..bob().listed() }];
    let check = |until| verify(fixture.path(), "HEAD", &developers(until), None, NOW);
    assert!(check(100).is_ok());
    // Bob's key ended at 100. He dates his commit 90, on top of Alice's commit of 120.
    fixture.commit(&bob(), 90, &[file("late", "x")]);
    assert_eq!(code(check(100)), "CM-SRC-0024");
    assert!(check(121).is_ok());
}

#[test]
fn refuses_a_forged_author_and_a_forged_committer() {
    let (alice, bob) = (alice(), bob());
    let changes = [file("x", "x")];
    for forge_author in [true, false] {
        let fixture = Fixture::honest();
        let mut new = fixture.new_commit(&alice, 200, &changes);
        *(if forge_author { &mut new.author } else { &mut new.committer }) = bob.identity();
        fixture.make(&new);
        let result = fixture.verify();
        let role = if forge_author { "author" } else { "committer" };
        assert!(result.as_ref().is_err_and(|e| e.to_string().contains(role)), "{result:?}");
        assert_eq!(code(result), "CM-SRC-0026");
        // Honest if the key is listed for both addresses.
        let both =
            Developer { principals: vec![alice.email.into(), bob.email.into()], ..alice.listed() };
        assert!(verify(fixture.path(), "HEAD", &[both, bob.listed()], None, NOW).is_ok());
    }
}

#[test]
fn adds_up_the_entries_of_one_key() {
    let (fixture, alice) = (Fixture::honest(), alice());
    let other = Identity { name: "Alice", email: "alice@home.example" };
    let changes = [file("x", "x")];
    fixture.make(&NewCommit { author: other, ..fixture.new_commit(&alice, 200, &changes) });
    assert_eq!(code(fixture.verify()), "CM-SRC-0026");
    let mut developers = team();
    developers.push(Developer { principals: vec!["*@home.example".into()], ..alice.listed() });
    assert!(verify(fixture.path(), "HEAD", &developers, None, NOW).is_ok());
}

#[test]
fn refuses_commits_from_the_future() {
    let fixture = Fixture::honest();
    let check = |now| verify(fixture.path(), "HEAD", &team(), None, now);
    assert!(check(START + 121 - 3600).is_ok());
    assert_eq!(code(check(START - 3600)), "CM-SRC-0027");
}

#[test]
fn refuses_developers_whose_key_can_not_be_read() {
    let fixture = Fixture::honest();
    for key in [
        DeveloperKey::Ssh("ssh-ed25519 AAAA".into()),
        DeveloperKey::Openpgp("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n=\n".into()),
        DeveloperKey::Openpgp(String::new()),
    ] {
        let developer = Developer { key, ..alice().listed() };
        let result = verify(fixture.path(), "HEAD", &[developer], None, NOW);
        assert_eq!(code(result), "CM-SRC-0041");
    }
    assert_eq!(code(verify(fixture.path(), "HEAD", &[], None, NOW)), "CM-SRC-0022");
}
