//! OpenPGP keys over their life: expired, revoked, replaced by sub-keys.

use ::pgp::composed::{
    ArmorOptions, DetachedSignature, EncryptionCaps, KeyType, SecretKeyParamsBuilder,
    SignedPublicKey, SignedSecretKey, SubkeyParamsBuilder, SubpacketConfig,
};
use ::pgp::crypto::hash::HashAlgorithm;
use ::pgp::packet::{
    KeyFlags, RevocationCode, SignatureConfig, SignatureType, Subpacket, SubpacketData,
};
use ::pgp::types::{Duration, Password, SigningKey, Tag, Timestamp};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::source::commit::Signed;

const EMAIL: &str = "carol@example.org";
const DAY: i64 = 86_400;

fn stamp(after: i64) -> Timestamp {
    Timestamp::from_secs(u32::try_from(START + after).expect("in range"))
}

/// A key made at START, with a sub-key that signs.
fn carol(seed: u8, primary_signs: bool) -> SignedSecretKey {
    let subkey = SubkeyParamsBuilder::default()
        .key_type(KeyType::Ed25519Legacy)
        .can_sign(true)
        .can_encrypt(EncryptionCaps::None)
        .created_at(stamp(0))
        .build()
        .expect("parameters");
    SecretKeyParamsBuilder::default()
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(primary_signs)
        .created_at(stamp(0))
        .primary_user_id(format!("Carol <{EMAIL}>"))
        .subkeys(vec![subkey])
        .build()
        .expect("parameters")
        .generate(StdRng::from_seed([seed; 32]))
        .expect("a key")
}

fn armored(cert: &SignedPublicKey) -> String {
    cert.to_armored_string(ArmorOptions::default()).expect("armor")
}

fn subpackets(key: &impl SigningKey, after: i64, more: Vec<SubpacketData>) -> Vec<Subpacket> {
    let mut all = vec![
        SubpacketData::SignatureCreationTime(stamp(after)),
        SubpacketData::IssuerFingerprint(key.fingerprint()),
    ];
    all.extend(more);
    all.into_iter().map(|data| Subpacket::regular(data).expect("a subpacket")).collect()
}

fn config(
    key: &impl SigningKey,
    typ: SignatureType,
    after: i64,
    more: Vec<SubpacketData>,
) -> SignatureConfig {
    let mut config = SignatureConfig::v4(typ, key.algorithm(), HashAlgorithm::Sha256);
    config.hashed_subpackets = subpackets(key, after, more);
    config
}

/// The certificate with its one user id certified at `after`, expiring `days` after START.
fn certified(key: &SignedSecretKey, after: i64, days: Option<i64>) -> SignedPublicKey {
    let mut cert = key.to_public_key();
    let mut flags = KeyFlags::default();
    flags.set_certify(true);
    flags.set_sign(true);
    let mut more = vec![SubpacketData::KeyFlags(flags)];
    more.extend(days.map(|d| {
        SubpacketData::KeyExpirationTime(Duration::from_secs(u32::try_from(d * DAY).expect("fits")))
    }));
    let user = &mut cert.details.users[0];
    let signature = config(&key.primary_key, SignatureType::CertPositive, after, more)
        .sign_certification(
            &key.primary_key,
            &cert.primary_key,
            &Password::empty(),
            Tag::UserId,
            &user.id,
        )
        .expect("certifies");
    user.signatures = vec![signature];
    cert
}

fn revoked(
    mut cert: SignedPublicKey,
    key: &SignedSecretKey,
    after: i64,
    why: RevocationCode,
) -> SignedPublicKey {
    let more = vec![SubpacketData::RevocationReason(why, Vec::new().into())];
    let signature = config(&key.primary_key, SignatureType::KeyRevocation, after, more)
        .sign_key(&key.primary_key, &Password::empty(), &cert.primary_key)
        .expect("revokes");
    cert.details.revocation_signatures.push(signature);
    cert
}

/// A commit signed by `key` so long after START, judged against `cert`.
fn judge_at(
    cert: &str,
    key: &impl SigningKey,
    hash: HashAlgorithm,
    after: i64,
) -> Result<(), SourceError> {
    let payload = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n";
    let signature = DetachedSignature::sign_binary_data_with_subpackets(
        StdRng::from_seed([7; 32]),
        key,
        &Password::empty(),
        hash,
        &payload[..],
        SubpacketConfig::UserDefined { hashed: subpackets(key, after, vec![]), unhashed: vec![] },
    )
    .expect("signs");
    let armor = signature.to_armored_string(ArmorOptions::default()).expect("armor");
    let developer = Developer {
        key: DeveloperKey::Openpgp(cert.into()),
        principals: vec![EMAIL.into()],
        ..alice().listed()
    };
    let ring = Keyring::new(&[developer])?;
    let signature =
        ring.verify(|| "commit".into(), &Signed { armor, payload: payload.to_vec() })?;
    let person = commit::Person { email: EMAIL.into(), time: START + after };
    let claim = Claim {
        object: "commit".into(),
        time: person.time,
        earliest: 0,
        people: &[("author", &person)],
    };
    ring.admit(signature, &claim, NOW)
}

fn judge(cert: &SignedPublicKey, key: &impl SigningKey, after: i64) -> Result<(), SourceError> {
    judge_at(&armored(cert), key, HashAlgorithm::Sha512, after)
}

#[test]
fn accepts_the_primary_key_and_a_signing_sub_key() {
    let key = carol(1, true);
    let cert = key.to_public_key();
    judge(&cert, &key.primary_key, 60).expect("the primary key");
    judge(&cert, &key.secret_subkeys[0].key, 60).expect("the sub-key");
}

#[test]
fn refuses_a_key_that_is_not_listed() {
    let (key, other) = (carol(1, true), carol(2, true));
    assert_eq!(code(judge(&key.to_public_key(), &other.primary_key, 60)), "CM-SRC-0022");
}

#[test]
fn refuses_a_primary_key_that_is_not_for_signing() {
    let key = carol(1, false);
    assert_eq!(code(judge(&key.to_public_key(), &key.primary_key, 60)), "CM-SRC-0025");
    judge(&key.to_public_key(), &key.secret_subkeys[0].key, 60).expect("its sub-key is");
}

#[test]
fn refuses_a_sub_key_that_did_not_sign_back() {
    let key = carol(1, true);
    let mut cert = key.to_public_key();
    let mut flags = KeyFlags::default();
    flags.set_sign(true);
    let sub = &mut cert.public_subkeys[0];
    sub.signatures = vec![
        config(
            &key.primary_key,
            SignatureType::SubkeyBinding,
            0,
            vec![SubpacketData::KeyFlags(flags)],
        )
        .sign_subkey_binding(&key.primary_key, &cert.primary_key, &Password::empty(), &sub.key)
        .expect("binds"),
    ];
    assert_eq!(code(judge(&cert, &key.secret_subkeys[0].key, 60)), "CM-SRC-0025");
    // A binding by another primary key is none.
    let stolen = carol(2, true);
    let mut thief = stolen.to_public_key();
    thief.public_subkeys = key.to_public_key().public_subkeys;
    assert!(judge(&thief, &key.secret_subkeys[0].key, 60).is_err());
}

#[test]
fn judges_expiry_as_of_the_signing_time() {
    let key = carol(1, true);
    let cert = certified(&key, 0, Some(30));
    judge(&cert, &key.primary_key, 29 * DAY).expect("before it expires");
    assert_eq!(code(judge(&cert, &key.primary_key, 31 * DAY)), "CM-SRC-0025");
    // Prolonged later: the newest self-signature of that time rules.
    let mut prolonged = certified(&key, 20 * DAY, Some(90));
    prolonged.details.users[0].signatures.extend(cert.details.users[0].signatures.clone());
    judge(&prolonged, &key.primary_key, 31 * DAY).expect("prolonged");
    assert_eq!(code(judge(&prolonged, &key.primary_key, 91 * DAY)), "CM-SRC-0025");
    // An expired primary key takes its sub-keys with it.
    assert_eq!(code(judge(&cert, &key.secret_subkeys[0].key, 31 * DAY)), "CM-SRC-0025");
}

#[test]
fn judges_revocation_by_its_reason() {
    let key = carol(1, true);
    let retired = revoked(certified(&key, 0, None), &key, 10 * DAY, RevocationCode::KeyRetired);
    judge(&retired, &key.primary_key, 9 * DAY).expect("before it was retired");
    assert_eq!(code(judge(&retired, &key.primary_key, 10 * DAY)), "CM-SRC-0025");
    for why in [RevocationCode::KeyCompromised, RevocationCode::NoReason] {
        let lost = revoked(certified(&key, 0, None), &key, 10 * DAY, why);
        assert_eq!(code(judge(&lost, &key.primary_key, 9 * DAY)), "CM-SRC-0025");
    }
    // A revocation by another key revokes nothing.
    let other = carol(2, true);
    let foreign = revoked(certified(&key, 0, None), &other, 1, RevocationCode::KeyCompromised);
    judge(&foreign, &key.primary_key, 9 * DAY).expect("not revoked");
}

#[test]
fn refuses_signatures_older_than_their_key() {
    let key = carol(1, true);
    assert_eq!(code(judge(&key.to_public_key(), &key.primary_key, -1)), "CM-SRC-0025");
}

#[test]
fn refuses_weak_hashes() {
    let key = SecretKeyParamsBuilder::default()
        .key_type(KeyType::Rsa(2048))
        .can_certify(true)
        .can_sign(true)
        .created_at(stamp(0))
        .primary_user_id(format!("Carol <{EMAIL}>"))
        .build()
        .expect("parameters")
        .generate(StdRng::from_seed([1; 32]))
        .expect("a key");
    let cert = armored(&key.to_public_key());
    judge_at(&cert, &key.primary_key, HashAlgorithm::Sha256, 60).expect("SHA-256");
    let weak = judge_at(&cert, &key.primary_key, HashAlgorithm::Sha1, 60);
    assert_eq!(code(weak), "CM-SRC-0023");
}

#[test]
fn makes_developers_of_certificates() {
    let key = carol(1, true);
    let text = armored(&key.to_public_key());
    let developers = developer_from_openpgp(&text).expect("a developer");
    assert_eq!(developers.len(), 1);
    assert_eq!(developers[0].principals, [EMAIL]);
    assert!(Keyring::new(&developers).is_ok());
    for bad in ["", "garbage", &text[..text.len() / 2], &text.replace("PUBLIC", "PRIVATE")] {
        assert_eq!(code(developer_from_openpgp(bad)), "CM-SRC-0041", "{bad:?}");
    }
}

#[test]
fn adds_up_entries_of_one_certificate_but_not_of_two_texts_of_it() {
    let key = carol(1, true);
    let cert = certified(&key, 0, None);
    let listed = |principal: &str, cert: &SignedPublicKey| Developer {
        principals: vec![principal.into()],
        key: DeveloperKey::Openpgp(armored(cert)),
        ..alice().listed()
    };
    assert!(Keyring::new(&[listed("a@x", &cert), listed("b@x", &cert)]).is_ok());
    let lost = revoked(cert.clone(), &key, 1, RevocationCode::KeyCompromised);
    let both = Keyring::new(&[listed("a@x", &cert), listed("b@x", &lost)]).map(|_| ());
    assert_eq!(code(both), "CM-SRC-0041");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_certificate_makes_the_parser_panic(at in 0usize..400, byte: u8) {
        let mut bytes = armored(&carol(1, true).to_public_key()).into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = developer_from_openpgp(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_signature_makes_the_parser_panic(text in "[A-Za-z0-9+/=\n]{0,200}") {
        let armor = format!("-----BEGIN PGP SIGNATURE-----\n\n{text}\n-----END PGP SIGNATURE-----\n");
        let _ = crate::source::openpgp::ParsedSignature::parse(&armor);
    }
}
