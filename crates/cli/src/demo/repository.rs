//! The demo's repository: honest commits by three developers, and branches that attack.

use std::path::Path;

use casemate_provenance::source::signed_commits::{Author, Change, Identity, NewCommit};
use casemate_provenance::source::{FileMode, Oid};

use super::cast::{FILES, Person};
use crate::failure::Failure;

/// The three who write the example, and one who should not.
pub struct Developers {
    pub dora: Person,
    pub emil: Person,
    pub fatima: Person,
    pub mallory: Person,
    /// A key of Emil's that is no longer good.
    pub emil_old: Person,
}

impl Developers {
    /// Everyone, with keys in `dir`.
    pub fn new(dir: &Path) -> Result<Self, Failure> {
        Ok(Self {
            dora: Person::new(dir, "dora")?,
            emil: Person::new(dir, "emil")?,
            fatima: Person::new(dir, "fatima")?,
            mallory: Person::new(dir, "mallory")?,
            emil_old: Person::new(dir, "emil-old")?,
        })
    }

    fn find(&self, name: &str) -> &Person {
        match name {
            "emil" => &self.emil,
            "fatima" => &self.fatima,
            _ => &self.dora,
        }
    }

    /// The allowed-signers file.
    pub fn allowed_signers(&self) -> String {
        let mut text = String::new();
        for person in [&self.dora, &self.emil, &self.fatima] {
            text += &format!("{} namespaces=\"git\" {}\n", person.email, person.public);
        }
        let Person { public, .. } = &self.emil_old;
        text + &format!("{} valid-before=\"20200101Z\" {public}\n", self.emil.email)
    }
}

/// The repository while it is being written.
pub struct Story {
    author: Author,
    clock: i64,
    /// The honest head.
    pub head: Oid,
}

/// Who signs a commit, and as whom.
pub struct Signed<'a> {
    /// Whose name and address the commit carries.
    pub as_who: &'a Person,
    /// Whose key signs it; none leaves it unsigned.
    pub by: Option<&'a Person>,
}

impl Story {
    /// The honest history: one commit by each developer.
    pub fn write(path: &Path, developers: &Developers, now: i64) -> Result<Self, Failure> {
        let author = Author::init(path)?;
        let mut head = None;
        let mut clock = now - 3600;
        let messages = [
            ("fatima", "Add SipHash and its check"),
            ("emil", "Read the key from a file or the environment"),
            ("dora", "Add the greeter and how it is built"),
        ];
        for (name, message) in messages {
            let person = developers.find(name);
            let changes: Vec<Change<'_>> = FILES
                .iter()
                .filter(|(who, ..)| *who == name)
                .map(|(_, path, content)| file(path, content))
                .collect();
            clock += 60;
            head = Some(author.commit(&commit(
                &changes,
                message,
                person,
                Some(person),
                clock,
                None,
            ))?);
        }
        let head = head.ok_or_else(|| crate::failure::usage("demo: no commits"))?;
        Ok(Self { author, clock, head })
    }

    /// One commit on top of the honest head, the branch left there afterwards.
    pub fn branch(
        &mut self,
        signed: &Signed<'_>,
        message: &str,
        changes: &[(&str, String)],
    ) -> Result<Oid, Failure> {
        self.clock += 60;
        let changes: Vec<Change<'_>> = changes.iter().map(|(p, c)| file(p, c)).collect();
        let parents = [self.head];
        let new = commit(&changes, message, signed.as_who, signed.by, self.clock, Some(&parents));
        Ok(self.author.commit(&new)?)
    }
}

fn file<'a>(path: &'a str, content: &'a str) -> Change<'a> {
    Change { path, mode: FileMode::Regular, content: Some(content.as_bytes()) }
}

fn commit<'a>(
    changes: &'a [Change<'a>],
    message: &'a str,
    who: &'a Person,
    by: Option<&'a Person>,
    time: i64,
    parents: Option<&'a [Oid]>,
) -> NewCommit<'a> {
    let identity = Identity { name: who.name, email: &who.email };
    NewCommit {
        changes,
        message,
        author: identity,
        committer: identity,
        time,
        key: by.map(|p| p.pem.as_bytes()),
        parents,
    }
}

/// The text of one of the example's files.
pub fn text(path: &str) -> &'static str {
    FILES.iter().find(|(_, p, _)| *p == path).map_or("", |(_, _, content)| content)
}
