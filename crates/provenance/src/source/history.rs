//! The walk over history: every commit read, its id recomputed, its signature verified.
//!
//! One thread walks, because a commit's parents are known only once it is read; the signatures,
//! which cost most of the time, are verified by all cores meanwhile. What depends on the order of
//! history is decided afterwards, so the verdict does not depend on which core was faster.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::commit::{Commit, Person};
use super::error::{ObjectKind, SourceError};
use super::keyring::{Claim, Keyring, Signature};
use super::oid::Oid;
use super::repository::{Objects, parse_commit};

/// Most commits that are walked.
const MAX_COMMITS: usize = 20_000_000;

/// Commits handed to a verifying thread at once, and bytes after which no more are added.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 1 << 20;

/// Verified history: the revision first.
pub(super) struct History {
    pub commits: Vec<Node>,
    /// Commits at which verification ended (`since`, and what came before it).
    pub given: HashMap<Oid, Oid>,
    /// Indices so that parents come before children.
    pub order: Vec<usize>,
}

/// A commit of verified history.
pub(super) struct Node {
    pub id: Oid,
    pub tree: Oid,
    pub parents: Vec<Parent>,
    pub committer: Person,
    author: Person,
    pub signature: Signature,
    /// Not before this, by the word of all its ancestors.
    pub earliest: i64,
}

/// A commit's parent.
#[derive(Clone, Copy)]
pub(super) enum Parent {
    /// Verified as well: its index.
    Verified(usize),
    /// Taken as given.
    Given(Oid),
}

/// What the walking thread keeps of a commit; the rest goes to a verifying thread.
struct Met {
    id: Oid,
    tree: Oid,
    parents: Vec<Oid>,
    author: Person,
    committer: Person,
}

type Verdicts = Vec<(usize, Result<Signature, SourceError>)>;
type Job = Vec<(usize, Oid, Commit)>;

/// Walks from `tip` to the roots, or to `since`, and verifies every commit on the way.
pub(super) fn verify(
    objects: &Objects,
    tip: Oid,
    since: Option<Oid>,
    ring: &Keyring,
    now: i64,
) -> Result<History, SourceError> {
    let given = since.map_or_else(|| Ok(HashMap::new()), |id| ancestry(objects, id))?;
    if let Some(since) = since
        && given.contains_key(&tip)
    {
        return Err(SourceError::Since { since, rev: tip });
    }
    let (met, verdicts) = walk(objects, tip, &given, ring)?;
    let mut signatures: Vec<Option<Signature>> = vec![None; met.len()];
    let mut refused: Option<(usize, SourceError)> = None;
    for (index, verdict) in verdicts {
        match verdict {
            Ok(signature) => signatures[index] = Some(signature),
            Err(e) if refused.as_ref().is_none_or(|(first, _)| index < *first) => {
                refused = Some((index, e));
            }
            Err(_) => {}
        }
    }
    if let Some((_, error)) = refused {
        return Err(error);
    }
    let history = assemble(met, signatures, given)?;
    let reached = |id| history.commits.iter().any(|c| c.parents.iter().any(|p| p.is_given(id)));
    if let Some(since) = since.filter(|id| !reached(*id)) {
        return Err(SourceError::Since { since, rev: tip });
    }
    admit_all(&history, ring, now)?;
    Ok(history)
}

impl Parent {
    fn is_given(&self, id: Oid) -> bool {
        matches!(self, Self::Given(given) if *given == id)
    }
}

/// Every commit that `since` is or builds on, with its tree; ids checked, signatures not.
fn ancestry(objects: &Objects, since: Oid) -> Result<HashMap<Oid, Oid>, SourceError> {
    let mut seen = HashMap::new();
    let mut queue = vec![since];
    while let Some(id) = queue.pop() {
        if seen.contains_key(&id) {
            continue;
        }
        let commit = objects.commit(id)?;
        seen.insert(id, commit.tree);
        bound(seen.len())?;
        queue.extend(commit.parents.iter().filter(|p| !seen.contains_key(p)));
    }
    Ok(seen)
}

/// Reads all commits on this thread while others verify their signatures.
fn walk(
    objects: &Objects,
    tip: Oid,
    given: &HashMap<Oid, Oid>,
    ring: &Keyring,
) -> Result<(Vec<Met>, Verdicts), SourceError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (sender, receiver) = sync_channel::<Job>(threads * 2);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| verify_jobs(&receiver, ring))).collect();
        let met = read_all(objects, tip, given, &sender);
        drop(sender);
        let mut verdicts = Vec::new();
        for worker in workers {
            verdicts.extend(worker.join().map_err(|_| gave_up(tip))?);
        }
        // A commit that can not be read is told before a signature that does not fit, as the
        // walk could not see what lies behind it.
        Ok((met?, verdicts))
    })
}

fn read_all(
    objects: &Objects,
    tip: Oid,
    given: &HashMap<Oid, Oid>,
    sender: &SyncSender<Job>,
) -> Result<Vec<Met>, SourceError> {
    let mut met: Vec<Met> = Vec::new();
    let mut seen = std::collections::HashSet::from([tip]);
    let mut queue = std::collections::VecDeque::from([tip]);
    let mut job = Vec::with_capacity(BATCH);
    let mut job_bytes = 0;
    while let Some(id) = queue.pop_front() {
        let bytes = objects.read(id, ObjectKind::Commit)?;
        let mut commit = parse_commit(id, &bytes)?;
        let index = met.len();
        bound(index)?;
        for parent in &commit.parents {
            if !given.contains_key(parent) && seen.insert(*parent) {
                queue.push_back(*parent);
            }
        }
        met.push(Met {
            id,
            tree: commit.tree,
            parents: std::mem::take(&mut commit.parents),
            author: commit.author.clone(),
            committer: commit.committer.clone(),
        });
        job.push((index, id, commit));
        job_bytes += bytes.len();
        if job.len() == BATCH || job_bytes > BATCH_BYTES {
            job_bytes = 0;
            sender.send(std::mem::take(&mut job)).map_err(|_| gave_up(id))?;
        }
    }
    sender.send(job).map_err(|_| gave_up(tip))?;
    Ok(met)
}

fn verify_jobs(receiver: &Mutex<Receiver<Job>>, ring: &Keyring) -> Verdicts {
    let mut verdicts = Vec::new();
    loop {
        let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return verdicts };
        for (index, id, commit) in job {
            let verdict = match &commit.signed {
                Some(signed) => ring.verify(|| format!("commit {id}"), signed),
                None => Err(SourceError::Unsigned { commit: id, author: commit.author.email }),
            };
            verdicts.push((index, verdict));
        }
    }
}

/// Joins what was met with its signatures, in an order where parents come first.
fn assemble(
    met: Vec<Met>,
    signatures: Vec<Option<Signature>>,
    given: HashMap<Oid, Oid>,
) -> Result<History, SourceError> {
    let index: HashMap<Oid, usize> = met.iter().enumerate().map(|(i, m)| (m.id, i)).collect();
    let mut commits = Vec::with_capacity(met.len());
    for (m, signature) in met.into_iter().zip(signatures) {
        let signature = signature.ok_or_else(|| gave_up(m.id))?;
        let parents = m
            .parents
            .iter()
            .map(|p| index.get(p).map_or(Parent::Given(*p), |i| Parent::Verified(*i)))
            .collect();
        let earliest = m.committer.time;
        let Met { id, tree, author, committer, .. } = m;
        commits.push(Node { id, tree, parents, committer, author, signature, earliest });
    }
    let order = parents_first(&commits);
    for &i in &order {
        let parents = commits[i].parents.iter().filter_map(|p| match p {
            Parent::Verified(p) => Some(commits[*p].earliest),
            Parent::Given(_) => None,
        });
        commits[i].earliest = parents.fold(commits[i].earliest, i64::max);
    }
    Ok(History { commits, given, order })
}

/// Kahn's algorithm from the tip down, turned round. Ids make cycles impossible.
fn parents_first(commits: &[Node]) -> Vec<usize> {
    let verified = |node: &Node| -> Vec<usize> {
        let parents = node.parents.iter();
        parents.filter_map(|p| if let Parent::Verified(i) = p { Some(*i) } else { None }).collect()
    };
    let mut children = vec![0usize; commits.len()];
    for parent in commits.iter().flat_map(verified) {
        children[parent] += 1;
    }
    let mut ready: Vec<usize> = (0..commits.len()).filter(|i| children[*i] == 0).collect();
    let mut order = Vec::with_capacity(commits.len());
    while let Some(i) = ready.pop() {
        order.push(i);
        for parent in verified(&commits[i]) {
            children[parent] -= 1;
            if children[parent] == 0 {
                ready.push(parent);
            }
        }
    }
    order.reverse();
    order
}

/// Judges every signature at its time; the newest commit at fault is told.
fn admit_all(history: &History, ring: &Keyring, now: i64) -> Result<(), SourceError> {
    for node in &history.commits {
        let claim = Claim {
            object: format!("commit {}", node.id),
            time: node.committer.time,
            earliest: node.earliest,
            people: &[("author", &node.author), ("committer", &node.committer)],
        };
        ring.admit(node.signature, &claim, now)?;
    }
    Ok(())
}

fn bound(commits: usize) -> Result<(), SourceError> {
    if commits <= MAX_COMMITS {
        return Ok(());
    }
    let (found, limit) = (commits as u64, MAX_COMMITS as u64);
    Err(SourceError::TooLarge { what: "commits in the history".into(), found, limit })
}

fn gave_up(id: Oid) -> SourceError {
    let problem = "a verifying thread gave up".into();
    SourceError::Unreadable { kind: ObjectKind::Commit, id, problem }
}
