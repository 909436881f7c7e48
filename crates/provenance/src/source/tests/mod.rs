//! Repositories made for tests, attacked in every way we know, each beside its honest twin.

use std::fs;
use std::path::Path;

use casemate_spec::Coded as _;
use casemate_spec::trust::{Developer, DeveloperKey};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};
use tempfile::TempDir;

use super::signed_commits::{Author, Change, Identity, NewCommit};
use super::*;

mod disguises;
mod history;
mod openpgp;
mod people;
mod tree;
mod vectors;

/// 2023-11-14, when all test histories begin.
const START: i64 = 1_700_000_000;
/// A year later: now.
const NOW: i64 = START + 31_536_000;

/// A person with an SSH key.
struct Person {
    name: &'static str,
    email: &'static str,
    pem: String,
    public: String,
}

impl Person {
    fn new(name: &'static str, email: &'static str, seed: u8) -> Self {
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]));
        Self {
            name,
            email,
            pem: key.to_openssh(LineEnding::LF).expect("a private key").to_string(),
            public: key.public_key().to_openssh().expect("a public key"),
        }
    }

    fn identity(&self) -> Identity<'static> {
        Identity { name: self.name, email: self.email }
    }

    fn listed(&self) -> Developer {
        Developer {
            principals: vec![self.email.into()],
            key: DeveloperKey::Ssh(self.public.clone()),
            valid_after: None,
            valid_before: None,
        }
    }
}

fn alice() -> Person {
    Person::new("Alice", "alice@example.org", 1)
}

fn bob() -> Person {
    Person::new("Bob", "bob@example.org", 2)
}

fn mallory() -> Person {
    Person::new("Mallory", "mallory@example.org", 3)
}

fn team() -> Vec<Developer> {
    vec![alice().listed(), bob().listed()]
}

/// A repository of its own directory.
struct Fixture {
    dir: TempDir,
    author: Author,
}

impl Fixture {
    fn empty() -> Self {
        let dir = TempDir::new().expect("a directory");
        let author = Author::init(dir.path()).expect("a repository");
        Self { dir, author }
    }

    /// Two commits by Alice, one by Bob.
    fn honest() -> Self {
        let fixture = Self::empty();
        fixture.commit(
            &alice(),
            0,
            &[file("README", "hello\n"), file("src/main.c", "int main;\n")],
        );
        fixture.commit(&bob(), 60, &[file("src/lib.c", "int x;\n")]);
        fixture.commit(&alice(), 120, &[file("README", "hello\nworld\n")]);
        fixture
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn commit(&self, by: &Person, after: i64, changes: &[Change<'_>]) -> Oid {
        self.make(&self.new_commit(by, after, changes))
    }

    fn make(&self, new: &NewCommit<'_>) -> Oid {
        self.author.commit(new).expect("a commit")
    }

    fn new_commit<'a>(
        &self,
        by: &'a Person,
        after: i64,
        changes: &'a [Change<'a>],
    ) -> NewCommit<'a> {
        NewCommit {
            changes,
            message: "change",
            author: by.identity(),
            committer: by.identity(),
            time: START + after,
            key: Some(by.pem.as_bytes()),
            parents: None,
        }
    }

    /// A commit of a hand-made tree.
    fn commit_tree(&self, by: &Person, after: i64, tree: &[u8]) -> Oid {
        let tree = self.author.write(gix::objs::Kind::Tree, tree).expect("a tree");
        let parents: Vec<Oid> = self.author.head().expect("head").into_iter().collect();
        let new = self.new_commit(by, after, &[]);
        let bytes = self.author.commit_bytes(&new, tree, &parents).expect("signing");
        let id = self.author.write(gix::objs::Kind::Commit, &bytes).expect("a commit");
        self.author.set_head(id).expect("head");
        id
    }

    fn verify(&self) -> Result<Verified, SourceError> {
        verify(self.path(), "HEAD", &team(), None, NOW)
    }

    fn head(&self) -> Oid {
        self.author.head().expect("head").expect("a commit")
    }

    /// Puts other bytes under the id of an object.
    fn alter(&self, id: Oid, kind: gix::objs::Kind, bytes: &[u8]) {
        let other = self.author.write(kind, bytes).expect("an object");
        let target = self.loose(id);
        fs::remove_file(&target).expect("removing");
        fs::copy(self.loose(other), target).expect("copying");
    }

    fn loose(&self, id: Oid) -> std::path::PathBuf {
        let hex = id.to_string();
        self.path().join(".git/objects").join(&hex[..2]).join(&hex[2..])
    }

    fn object(&self, id: Oid, kind: ObjectKind) -> Vec<u8> {
        let repo = Repository::open(self.path()).expect("opens");
        repo.objects().expect("objects").read(id, kind).expect("an object")
    }
}

fn file<'a>(path: &'a str, content: &'a str) -> Change<'a> {
    Change { path, mode: FileMode::Regular, content: Some(content.as_bytes()) }
}

/// The code of a refusal.
#[track_caller]
fn code<T: std::fmt::Debug>(result: Result<T, SourceError>) -> &'static str {
    let error = result.expect_err("accepted");
    assert!(!error.to_string().is_empty());
    error.code()
}
