//! Commits of others' public repositories; `tests/data/git/SOURCE.txt` says whose.

use jiff::tz::TimeZone;

use super::*;
use crate::source::commit::Commit;
use crate::source::repository::check_id;

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/data/git/", $name))
    };
}

const SIGNERS: &[u8] = data!("allowed_signers.openssh");
const WEB_FLOW: &[u8] = data!("github_web-flow.asc");

/// Judges a commit by its committer alone: these projects apply others' changes.
fn judge(id: &str, bytes: &[u8], developers: &[Developer]) -> Result<(), SourceError> {
    let oid: Oid = id.parse().expect("an id");
    check_id(oid, ObjectKind::Commit, bytes)?;
    let commit =
        Commit::parse(bytes).map_err(|p| SourceError::malformed(ObjectKind::Commit, oid, p))?;
    let author = commit.author.email.clone();
    let signed = commit.signed.ok_or(SourceError::Unsigned { commit: oid, author })?;
    let ring = Keyring::new(developers)?;
    let signature = ring.verify(|| format!("commit {oid}"), &signed)?;
    let people = [("committer", &commit.committer)];
    let claim =
        Claim { object: id.into(), time: commit.committer.time, earliest: 0, people: &people };
    ring.admit(signature, &claim, 1_800_000_000)
}

fn openssh() -> Vec<Developer> {
    let text = std::str::from_utf8(SIGNERS).expect("text");
    parse_allowed_signers(text, &TimeZone::UTC).expect("parses")
}

#[test]
fn reads_the_allowed_signers_of_openssh() {
    let developers = openssh();
    assert_eq!(developers.len(), 8);
    assert!(developers[0].valid_before.is_some() && developers[0].valid_after.is_none());
}

#[test]
fn accepts_openssh_commits_by_fido_and_ordinary_keys() {
    for (id, bytes) in [
        ("88351eca17dcc55189991ba60e50819b6d4193c1", &data!("openssh-88351eca17dc.commit")[..]),
        ("3a683a19fd116ea15ebf8aa13d02646cceb302a9", data!("openssh-3a683a19fd11.commit")),
        ("826483d51a9fee60703298bbf839d9ce37943474", data!("openssh-826483d51a9f.commit")),
        // Its key ended in December 2024, two years after this commit.
        ("85e1a69243f12be8520438ad6a3cfdc0b7fcbb2d", data!("openssh-85e1a69243f1.commit")),
    ] {
        judge(id, bytes, &openssh()).unwrap_or_else(|e| panic!("{id}: {e}"));
        let mut late = openssh();
        late.iter_mut()
            .for_each(|d| d.valid_before = jiff::Timestamp::from_second(1_600_000_000).ok());
        assert_eq!(code(judge(id, bytes, &late)), "CM-SRC-0024");
        let mut altered = bytes.to_vec();
        let last = altered.len() - 2;
        altered[last] ^= 1;
        assert_eq!(code(judge(id, &altered, &openssh())), "CM-SRC-0010");
    }
}

#[test]
fn refuses_openssh_commits_by_strangers_and_without_signature() {
    for (id, bytes, expected) in [
        (
            "247ee3620fc561d85dbd9c265c9230ac095ed31b",
            &data!("openssh-247ee3620fc5.commit")[..],
            "CM-SRC-0022",
        ),
        (
            "05f976d4f44f152fe8a689b6fc9dd48eff040ec1",
            data!("openssh-05f976d4f44f.commit"),
            "CM-SRC-0022",
        ),
        // Merges a signed tag, but is not signed itself.
        (
            "4f9757382072765c09893a630608c39de0b1a3f4",
            data!("openssh-4f9757382072.commit"),
            "CM-SRC-0020",
        ),
    ] {
        assert_eq!(code(judge(id, bytes, &openssh())), expected, "{id}");
    }
}

#[test]
fn accepts_an_rsa_key_once_it_is_listed() {
    let bytes = data!("openssh-05f976d4f44f.commit");
    let commit = Commit::parse(bytes).expect("parses");
    let armor = commit.signed.expect("signed").armor;
    let key =
        casemate_statement::sshsig::SshSignature::parse(&armor).expect("parses").key().to_line();
    assert!(key.starts_with("ssh-rsa "));
    let developer = Developer {
        principals: vec!["128076160+turistu@users.noreply.github.com".into()],
        key: DeveloperKey::Ssh(key),
        ..alice().listed()
    };
    judge("05f976d4f44f152fe8a689b6fc9dd48eff040ec1", bytes, &[developer]).expect("accepted");
}

#[test]
fn judges_commits_signed_by_github_as_of_their_time() {
    let developers =
        developer_from_openpgp(std::str::from_utf8(WEB_FLOW).expect("text")).expect("parses");
    assert!(developers.iter().all(|d| d.principals == ["noreply@github.com"]));
    for (id, bytes) in [
        ("649ddf7be1cf3ade3319fde1e7d9267e3edfdd31", &data!("sigstore-go-649ddf7be1cf.commit")[..]),
        // The key expired ten days after this commit.
        ("a3df13b8ba29f11fa8225fe3d33ab22b70b8b6ca", data!("sigstore-go-a3df13b8ba29.commit")),
    ] {
        judge(id, bytes, &developers).unwrap_or_else(|e| panic!("{id}: {e}"));
        assert_eq!(code(judge(id, bytes, &openssh())), "CM-SRC-0022");
    }
}

#[test]
fn refuses_x509_signatures_by_name() {
    let bytes = data!("gitsign-d8d8c7853fb7.commit");
    let result = judge("d8d8c7853fb7b3073ed97a06f665c35639ed48de", bytes, &openssh());
    assert_eq!(code(result), "CM-SRC-0021");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]
    #[test]
    fn no_altered_commit_is_accepted_or_panics(at in 0usize..1000, byte: u8) {
        let honest = data!("openssh-826483d51a9f.commit");
        let mut bytes = honest.to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let result = judge("826483d51a9fee60703298bbf839d9ce37943474", &bytes, &openssh());
        proptest::prop_assert_eq!(result.is_ok(), bytes == honest);
    }
}
