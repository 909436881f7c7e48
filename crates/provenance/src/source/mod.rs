//! Verified source: every commit of a history signed by a developer who was allowed to, every
//! byte of its tree named by the history.
//!
//! [`verify`] walks from a revision to the roots, or to a commit that is taken as given. It
//! recomputes each object's id from its bytes (SHA-1 that detects collision attacks), checks each
//! commit's SSH or OpenPGP signature, and asks of each signer: a listed developer, valid at that
//! time, and author and committer of what they signed. The result is a table of all files with
//! their SHA-256 and the commit and person each came from. [`write_tree`] writes that tree, from
//! objects and not from a checkout.
//!
//! What the promise rests on, and where it ends:
//!
//! - A commit's id covers its whole past, so the walk needs no order of trust between objects.
//! - Contents of files that are no longer in the tree are not read; their names in old trees are.
//! - A developer dates their commits themselves. A commit is judged no earlier than the newest
//!   commit it builds on, so an expired key can not extend later history; nothing but a log can
//!   tell when a commit *was* made.
//! - X.509 signatures and SSH certificates are refused, SHA-256 repositories can not be read yet.
//!
//! No program is started and no configuration is read.

mod allowed_signers;
mod blame;
mod commit;
mod dirty;
mod error;
mod files;
mod history;
mod keyring;
mod lookup;
mod oid;
mod openpgp;
mod principals;
mod repository;
pub mod signed_commits;
#[cfg(test)]
mod tests;
mod tree;
mod write;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use casemate_spec::Sha256;
use casemate_spec::trust::Developer;
use serde::Serialize;

pub use allowed_signers::{developer_from_openpgp, parse_allowed_signers};
pub use blame::{BlamedLines, blame};
pub use dirty::dirty;
pub use error::{ObjectKind, SourceError};
pub use lookup::{file_at, object_dir, resolve};
pub use oid::{Oid, OidError};
pub use tree::FileMode;
pub use write::write_tree;

use commit::Tag;
use files::Origin;
use history::History;
use keyring::{Claim, Keyring};
use repository::Repository;

/// A source whose every commit and every byte has been verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verified {
    /// The commit.
    pub commit: Oid,
    /// Its tree.
    pub tree: Oid,
    /// When it was committed, in Unix seconds, by its committer's word.
    pub time: i64,
    /// The commit up to which history was taken as given, if any.
    pub since: Option<Oid>,
    /// Signed tags that led to the commit, the one asked for first.
    pub tags: Vec<VerifiedTag>,
    /// Every commit from there to the roots (or to `since`), the revision first.
    pub commits: Vec<VerifiedCommit>,
    /// Every file of the tree, in path order.
    pub files: Vec<VerifiedFile>,
}

/// A commit with its signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifiedCommit {
    /// The commit.
    pub id: Oid,
    /// The committer's e-mail address, which is a principal of the key that signed.
    pub signer: String,
    /// The key: `SHA256:…` of an SSH key, hexadecimal of an OpenPGP certificate.
    pub fingerprint: String,
    /// When it was committed, in Unix seconds, by the committer's word.
    pub time: i64,
}

/// A signed tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifiedTag {
    /// The tag object.
    pub id: Oid,
    /// Its name, as signed.
    pub name: String,
    /// The tagger's e-mail address.
    pub signer: String,
    /// The key, as in [`VerifiedCommit`].
    pub fingerprint: String,
}

/// A file of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifiedFile {
    /// Its path, `/` between the parts.
    pub path: String,
    /// What kind of file.
    pub mode: FileMode,
    /// git's name for its content.
    pub blob: Oid,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its content; of a link, of its target.
    pub sha256: Sha256,
    /// The commit that changed it last, or the commit taken as given that has it already.
    pub last_commit: Oid,
    /// Who signed that commit; none if it was taken as given.
    pub signer: Option<String>,
}

/// Verifies the source that `rev` names in the repository at `repository`.
///
/// `rev` is a branch, a tag, an object id or `HEAD`, with `~N` and `^N` behind it if wanted.
/// `since` is a commit that is taken as given, with everything before it. `now` is in Unix
/// seconds: commits from the future are refused.
///
/// # Errors
/// The first reason found why this is no source, see [`SourceError`]. Of several commits at
/// fault the newest is told.
pub fn verify(
    repository: &Path,
    rev: &str,
    developers: &[Developer],
    since: Option<Oid>,
    now: i64,
) -> Result<Verified, SourceError> {
    guarded(repository, || {
        let ring = Keyring::new(developers)?;
        let repo = Repository::open(repository)?;
        repo.refuse_disguises()?;
        let objects = repo.objects()?;
        let resolved = repo.resolve(&objects, rev)?;
        let history = history::verify(&objects, resolved.commit, since, &ring, now)?;
        let tip = &history.commits[0];
        let tags = verify_tags(&resolved.tags, tip.earliest, &ring, now)?;
        let listed = files::list(&objects, tip.tree)?;
        let contents = files::digests(&objects, &listed)?;
        let origins = files::origins(&objects, &history, &listed)?;
        let files = listed
            .into_iter()
            .zip(origins)
            .map(|(file, origin)| {
                let content = contents[&file.id];
                let (last_commit, signer) = match origin {
                    Origin::Given(id) => (id, None),
                    Origin::Verified(i) => {
                        let node = &history.commits[i];
                        (node.id, Some(node.committer.email.clone()))
                    }
                };
                VerifiedFile {
                    path: file.path,
                    mode: file.mode,
                    blob: file.id,
                    size: content.size,
                    sha256: content.sha256,
                    last_commit,
                    signer,
                }
            })
            .collect();
        Ok(Verified {
            commit: resolved.commit,
            tree: tip.tree,
            time: tip.committer.time,
            since,
            tags,
            commits: verified_commits(&history, &ring),
            files,
        })
    })
}

fn verified_commits(history: &History, ring: &Keyring) -> Vec<VerifiedCommit> {
    history
        .commits
        .iter()
        .map(|node| VerifiedCommit {
            id: node.id,
            signer: node.committer.email.clone(),
            fingerprint: ring.fingerprint(node.signature).to_owned(),
            time: node.committer.time,
        })
        .collect()
}

/// Verifies those tags that are signed; an unsigned tag only names a commit.
fn verify_tags(
    tags: &[(Oid, Tag)],
    earliest: i64,
    ring: &Keyring,
    now: i64,
) -> Result<Vec<VerifiedTag>, SourceError> {
    let mut verified = Vec::new();
    for (id, tag) in tags {
        let Some(signed) = &tag.signed else { continue };
        let object = format!("tag {}", tag.name.escape_debug());
        let tagger = tag.tagger.as_ref().ok_or_else(|| {
            SourceError::malformed(ObjectKind::Tag, *id, "a signed tag without a tagger")
        })?;
        let signature = ring.verify(|| object.clone(), signed)?;
        let claim = Claim { object, time: tagger.time, earliest, people: &[("tagger", tagger)] };
        ring.admit(signature, &claim, now)?;
        verified.push(VerifiedTag {
            id: *id,
            name: tag.name.clone(),
            signer: tagger.email.clone(),
            fingerprint: ring.fingerprint(signature).to_owned(),
        });
    }
    Ok(verified)
}

/// Turns a panic of a library over a repository's content into a refusal.
fn guarded<T>(
    repository: &Path,
    work: impl FnOnce() -> Result<T, SourceError>,
) -> Result<T, SourceError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(SourceError::Reader {
            path: repository.to_owned(),
            problem: text.unwrap_or("a reader gave up").chars().take(200).collect(),
        })
    })
}

/// Unix seconds as text.
fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| format!("@{seconds}"), |t| t.to_string())
}
