//! Watching the ledger: every leaf is read once and hashed into the broker's own tree.
//!
//! The host can put back an old state file, run two brokers with the same keys, or show a broker
//! another log than everyone else. Each change of state is a leaf, and the first leaf of an epoch
//! is the one that counts. So whoever knows all leaves knows the state the broker *must* be in,
//! and whoever recomputes the root knows that the log it is shown only ever grew.

use std::collections::BTreeMap;

use casemate_service::ServiceError;
use casemate_service::log::LogClient;
use casemate_service::sealed::SealedFile;
use casemate_spec::Sha256;
use casemate_statement::PublicKey;
use casemate_statement::dsse::{Envelope, INTOTO};
use casemate_statement::intoto::Statement;
use casemate_statement::rekor::{DataDigest, HashedRekord, Verifier};
use casemate_tlog::{Checkpoint, merkle};
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::error::BrokerError;

/// Leaves after which what was seen is written down, at the latest.
const REMEMBER_EVERY: u64 = 1024;

/// The state that the ledger says the broker is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    pub(crate) epoch: u64,
    pub(crate) state: Sha256,
}

/// The part of the ledger that the broker has read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    frontier: Frontier,
    /// The latest state in it; none before the first start.
    head: Option<Head>,
}

/// Reads the ledger as it grows.
#[derive(Debug)]
pub(crate) struct Watch {
    key: PublicKey,
    seen: Seen,
    /// Size when it was last written down.
    remembered: u64,
    /// Statements that this process logs.
    own: BTreeMap<Sha256, Own>,
}

/// A statement that this process logs; its content need not be fetched to know it.
#[derive(Debug)]
struct Own {
    change: Option<Change>,
    /// Whether it was read back from the log.
    read: bool,
}

impl Watch {
    /// Goes on where `file` says, or begins at the first leaf if there is no file.
    pub(crate) fn open(file: &SealedFile<'_>, key: PublicKey) -> Result<Self, ServiceError> {
        let content = |problem: String| ServiceError::Content { file: file.shown(), problem };
        let seen = match file.read()? {
            None => Seen { frontier: Frontier::default(), head: None },
            Some(sealed) => {
                serde_json::from_slice(&sealed.bytes).map_err(|e| content(e.to_string()))?
            }
        };
        if !seen.frontier.is_sound() {
            return Err(content("hashes and size do not fit together".into()));
        }
        let remembered = seen.frontier.size;
        Ok(Self { key, seen, remembered, own: BTreeMap::new() })
    }

    /// The state that the ledger says the broker is in.
    pub(crate) const fn head(&self) -> Option<Head> {
        self.seen.head
    }

    /// Says that this process is about to log a statement with this digest: this change of state,
    /// or another statement.
    pub(crate) fn expect(&mut self, digest: Sha256, change: Option<Change>) {
        self.own.insert(digest, Own { change, read: false });
    }

    /// Forgets a statement, whether or not it arrived.
    pub(crate) fn forget(&mut self, digest: &Sha256) {
        self.own.remove(digest);
    }

    /// Whether an expected statement was read back from the log.
    pub(crate) fn has(&self, digest: &Sha256) -> bool {
        self.own.get(digest).is_some_and(|own| own.read)
    }

    /// Reads the ledger up to its latest checkpoint. If anything is wrong, nothing is taken over,
    /// so the next call finds it again.
    pub(crate) fn advance(&mut self, log: &dyn LogClient) -> Result<(), BrokerError> {
        let target = log.checkpoint()?;
        let mut next = self.seen.clone();
        let mut arrived = Vec::new();
        if target.size < next.frontier.size {
            return Err(broken(format!(
                "expected at least {} leaves, found {}: the log was rolled back or truncated",
                next.frontier.size, target.size
            )));
        }
        while next.frontier.size < target.size {
            let leaves = log.leaves(next.frontier.size, target.size)?;
            let room = usize::try_from(target.size - next.frontier.size).unwrap_or(usize::MAX);
            if leaves.is_empty() || leaves.len() > room {
                return Err(broken(format!("leaf {} is missing", next.frontier.size)));
            }
            for leaf in leaves {
                self.read(log, &leaf, &mut next, &mut arrived)?;
                next.frontier.push(merkle::leaf_hash(&leaf));
            }
        }
        check_root(&next.frontier, &target)?;
        self.seen = next;
        for digest in arrived {
            self.own.entry(digest).and_modify(|own| own.read = true);
        }
        Ok(())
    }

    /// Writes down what was seen.
    pub(crate) fn remember(&mut self, file: &SealedFile<'_>) -> Result<(), ServiceError> {
        let bytes = serde_json::to_vec(&self.seen)
            .map_err(|e| ServiceError::Content { file: file.shown(), problem: e.to_string() })?;
        file.write(self.seen.head.map_or(0, |h| h.epoch), &bytes)?;
        self.remembered = self.seen.frontier.size;
        Ok(())
    }

    /// Writes down what was seen if it has become much.
    pub(crate) fn remember_sometimes(&mut self, file: &SealedFile<'_>) -> Result<(), ServiceError> {
        if self.seen.frontier.size - self.remembered >= REMEMBER_EVERY {
            return self.remember(file);
        }
        Ok(())
    }

    fn read(
        &self,
        log: &dyn LogClient,
        leaf: &[u8],
        next: &mut Seen,
        arrived: &mut Vec<Sha256>,
    ) -> Result<(), BrokerError> {
        // A leaf of another kind, or of another key, is none of ours; it is hashed all the same.
        let Ok(record) = HashedRekord::parse(leaf) else { return Ok(()) };
        let (Verifier::Key { key, .. }, DataDigest::Sha256(digest)) =
            (&record.verifier, &record.digest)
        else {
            return Ok(());
        };
        if *key != self.key {
            return Ok(());
        }
        if let Some(own) = self.own.get(digest) {
            arrived.push(*digest);
            return own.change.as_ref().map_or(Ok(()), |change| next.follow(change));
        }
        let signed = log.blob(digest)?;
        if Sha256::of(&signed) != *digest {
            return Err(broken(format!("expected the statement {digest}, found other bytes")));
        }
        if record.verify(&signed).is_err() {
            return Ok(());
        }
        match Change::of_signed(&signed) {
            Some(change) => next.follow(&change),
            None => Ok(()),
        }
    }
}

impl Seen {
    /// The first statement of an epoch counts; later ones of the same epoch change nothing.
    fn follow(&mut self, change: &Change) -> Result<(), BrokerError> {
        let epoch = self.head.map_or(0, |h| h.epoch);
        if change.epoch > epoch + 1 {
            return Err(broken(format!(
                "expected this broker's state of epoch {}, found that of epoch {}",
                epoch + 1,
                change.epoch
            )));
        }
        if change.epoch == epoch + 1 {
            self.head = Some(Head { epoch: change.epoch, state: change.state });
        }
        Ok(())
    }
}

impl Change {
    /// The change that an envelope of this broker speaks of.
    pub(crate) fn of_envelope(envelope: &Envelope) -> Result<Self, BrokerError> {
        Statement::<Self>::parse(&envelope.payload).map(|s| s.predicate).map_err(BrokerError::other)
    }

    /// The change that signed bytes (a DSSE pre-authentication encoding) speak of, if any.
    fn of_signed(signed: &[u8]) -> Option<Self> {
        let head = format!("DSSEv1 {} {INTOTO} ", INTOTO.len());
        let rest = signed.strip_prefix(head.as_bytes())?;
        let space = rest.iter().position(|b| *b == b' ')?;
        Statement::<Self>::parse(rest.get(space + 1..)?).ok().map(|s| s.predicate)
    }
}

/// The hashes of the complete subtrees of a log (RFC 9162), largest first: enough to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Frontier {
    size: u64,
    hashes: Vec<Sha256>,
}

impl Frontier {
    fn is_sound(&self) -> bool {
        self.hashes.len() == self.size.count_ones() as usize
    }

    fn push(&mut self, leaf: Sha256) {
        let (mut hash, mut size) = (leaf, self.size);
        while size & 1 == 1 {
            if let Some(left) = self.hashes.pop() {
                hash = merkle::node_hash(&left, &hash);
            }
            size >>= 1;
        }
        self.hashes.push(hash);
        self.size += 1;
    }

    fn root(&self) -> Sha256 {
        let mut hashes = self.hashes.iter().rev();
        let Some(last) = hashes.next() else { return merkle::empty_root() };
        hashes.fold(*last, |right, left| merkle::node_hash(left, &right))
    }
}

fn check_root(frontier: &Frontier, target: &Checkpoint) -> Result<(), BrokerError> {
    let found = frontier.root();
    if found == target.root {
        return Ok(());
    }
    Err(broken(format!(
        "at {} leaves its checkpoint has root {}, the leaves this broker has read lead to {found}: \
         the log was edited or forked",
        target.size, target.root
    )))
}

fn broken(problem: String) -> BrokerError {
    BrokerError::Service(ServiceError::Ledger(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frontier_has_the_root_of_the_tree() {
        let (mut frontier, mut tree) = (Frontier::default(), casemate_tlog::Tree::new());
        assert_eq!(frontier.root(), tree.root());
        for i in 0u32..130 {
            let hash = merkle::leaf_hash(&i.to_be_bytes());
            frontier.push(hash);
            tree.push(hash);
            assert_eq!(frontier.root(), tree.root(), "size {}", i + 1);
            assert!(frontier.is_sound());
        }
    }

    #[test]
    fn the_first_statement_of_an_epoch_counts() {
        let mut seen = Seen { frontier: Frontier::default(), head: None };
        let change = |epoch, n| Change::example(epoch, Sha256([n; 32]));
        seen.follow(&change(1, 1)).expect("first");
        seen.follow(&change(1, 2)).expect("second of the same epoch");
        seen.follow(&change(2, 3)).expect("next");
        assert_eq!(seen.head, Some(Head { epoch: 2, state: Sha256([3; 32]) }));
        assert!(seen.follow(&change(4, 4)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, framed: bool) {
            let head = format!("DSSEv1 {} {INTOTO} 3 ", INTOTO.len());
            let bytes = if framed { [head.as_bytes(), &bytes].concat() } else { bytes };
            let _ = Change::of_signed(&bytes);
        }
    }
}
