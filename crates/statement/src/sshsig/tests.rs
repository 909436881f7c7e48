#![allow(clippy::unwrap_used)]

use super::*;

macro_rules! vector {
    ($name:literal) => {
        (
            include_str!(concat!("../../tests/data/sshsig/", $name, ".pub")),
            include_str!(concat!("../../tests/data/sshsig/", $name, ".sig")),
        )
    };
}

const NAMESPACE: &str = include_str!("../../tests/data/sshsig/namespace");
const MESSAGE: &[u8] = include_bytes!("../../tests/data/sshsig/signed-data");

/// OpenSSH's own unit vectors.
const OPENSSH: [(&str, &str); 4] =
    [vector!("ed25519"), vector!("ecdsa"), vector!("ed25519_sk"), vector!("ecdsa_sk")];

#[test]
fn accepts_opensshs_own_vectors_for_their_message_and_namespace_only() {
    for (public, armored) in OPENSSH {
        let key = SshPublicKey::parse(public).unwrap();
        let signature = SshSignature::parse(armored).unwrap();
        assert_eq!(signature.key(), &key);
        assert_eq!(signature.verify(NAMESPACE, MESSAGE), Ok(()), "{key:?}");
        assert!(matches!(signature.verify("file", MESSAGE), Err(StatementError::Namespace { .. })));
        assert!(matches!(
            signature.verify(NAMESPACE, b"another message"),
            Err(StatementError::Signature { .. })
        ));
    }
}

#[test]
fn accepts_an_rsa_vector_and_a_commit_signed_with_a_security_key() {
    let (public, armored) = vector!("rsa");
    let signature = SshSignature::parse(armored).unwrap();
    assert_eq!(signature.key(), &SshPublicKey::parse(public).unwrap());
    let message = include_bytes!("../../tests/data/sshsig/rsa.txt");
    assert_eq!(signature.verify(signature.namespace(), message), Ok(()));
    let armored = include_str!("../../tests/data/sshsig/openssh-portable-3a683a19fd11.sig");
    let payload = include_bytes!("../../tests/data/sshsig/openssh-portable-3a683a19fd11.payload");
    let signature = SshSignature::parse(armored).unwrap();
    assert!(signature.key().is_hardware());
    assert_eq!(signature.verify("git", payload), Ok(()));
}

#[test]
fn armors_as_ssh_keygen_does() {
    for (_, armored) in OPENSSH {
        assert_eq!(SshSignature::parse(armored).unwrap().to_armored(), armored);
    }
    let (_, armored) = OPENSSH[0];
    let loose = armored.replace('\n', "\r\n");
    assert_eq!(SshSignature::parse(&loose).unwrap().to_armored(), armored);
    assert!(SshSignature::parse(&armored.replace("BEGIN", "begin")).is_err());
    assert!(SshSignature::parse(&armored.replace("-----END", "x-----END")).is_err());
}

#[test]
fn lines_and_fingerprints_are_those_of_ssh_keygen() {
    let (public, _) = vector!("ed25519");
    let key = SshPublicKey::parse(public).unwrap();
    assert!(public.starts_with(&key.to_line()));
    assert_eq!(key.fingerprint(), "SHA256:ZxTZQ/K7JZpz0mHqWqdmYCUcq3MAtnu9TYA66TCBkxM");
}

#[test]
fn every_leaf_is_a_signature_that_verifies_by_itself() {
    for (_, armored) in OPENSSH {
        let signature = SshSignature::parse(armored).unwrap();
        let record = signature.record(MESSAGE);
        let read = HashedRekord::parse(&record.to_leaf().unwrap()).unwrap();
        assert_eq!(read, record);
        assert_eq!(read.verify(&signature.covered(MESSAGE)), Ok(()));
        assert!(matches!(
            read.verify(&signature.covered(b"x")),
            Err(StatementError::Entry { field: "digest", .. })
        ));
    }
}

#[test]
fn refuses_every_flipped_byte() {
    for (_, armored) in OPENSSH {
        let blob = SshSignature::parse(armored).unwrap().blob;
        for at in 0..blob.len() {
            for mask in [1, 0x80] {
                let mut altered = blob.clone();
                altered[at] ^= mask;
                let accepted = SshSignature::from_blob(&altered)
                    .is_ok_and(|s| s.verify(NAMESPACE, MESSAGE).is_ok());
                assert!(!accepted, "byte {at} ^ {mask}");
            }
        }
        for size in 0..blob.len() {
            assert!(SshSignature::from_blob(&blob[..size]).is_err(), "cut at {size}");
        }
        assert!(SshSignature::from_blob(&[blob.as_slice(), &[0]].concat()).is_err());
    }
}

#[test]
fn a_security_key_that_nobody_touched_signs_commits_but_not_deliberately() {
    let armored = include_str!("../../tests/data/sshsig/openssh-portable-3a683a19fd11.sig");
    let payload = include_bytes!("../../tests/data/sshsig/openssh-portable-3a683a19fd11.payload");
    let untouched = SshSignature::parse(armored).unwrap();
    assert_eq!(untouched.verify("git", payload), Ok(()));
    assert_eq!(
        untouched.verify_deliberate("git", payload),
        Err(StatementError::UserPresence { flags: 0 })
    );
    for (_, armored) in OPENSSH {
        let signature = SshSignature::parse(armored).unwrap();
        assert_eq!(signature.verify_deliberate(NAMESPACE, MESSAGE), Ok(()));
    }
}

#[test]
fn refuses_keys_that_are_not_accepted_or_not_canonical() {
    let (public, _) = vector!("rsa");
    let key = SshPublicKey::parse(public).unwrap();
    let blob = &key.blob;
    // the name of the type must be that of the blob
    let misnamed = key.to_line().replace("ssh-rsa", "ssh-ed25519");
    assert!(SshPublicKey::parse(&misnamed).is_err());
    // an exponent with a leading zero is another blob of the same key
    let mut padded = blob[..11].to_vec();
    put(&mut padded, &[0, 1, 0, 1]);
    padded.extend_from_slice(&blob[18..]);
    assert!(SshPublicKey::from_blob(&padded).is_err());
    let mut short = Vec::new();
    put(&mut short, b"ssh-rsa");
    put(&mut short, &[1, 0, 1]);
    put(&mut short, &[0x7f; 128]);
    assert!(matches!(SshPublicKey::from_blob(&short), Err(StatementError::PublicKey(_))));
    for kind in ["ssh-dss", "ssh-ed25519-cert-v01@openssh.com", ""] {
        let mut blob = Vec::new();
        put(&mut blob, kind.as_bytes());
        assert!(SshPublicKey::from_blob(&blob).is_err(), "{kind}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes: Vec<u8>, text: String) {
        let _ = SshSignature::from_blob(&[MAGIC, &bytes].concat());
        let _ = SshSignature::parse(&text);
        let _ = SshSignature::parse(&format!("{BEGIN}\n{text}\n{END}"));
        let _ = SshPublicKey::from_blob(&bytes);
        let _ = SshPublicKey::parse(&text);
        let _ = sign(&bytes, None, "n", b"m");
    }

    #[test]
    fn no_splice_of_a_signature_panics_or_is_accepted(
        which in 0usize..4, at in 0usize..300, bytes in proptest::collection::vec(0u8.., 1..9),
    ) {
        let blob = SshSignature::parse(OPENSSH[which].1).unwrap().blob;
        let mut altered = blob.clone();
        let at = at % blob.len();
        altered.splice(at..(at + bytes.len()).min(blob.len()), bytes);
        if altered != blob {
            let accepted = SshSignature::from_blob(&altered)
                .is_ok_and(|s| s.verify(NAMESPACE, MESSAGE).is_ok());
            assert!(!accepted);
        }
    }
}
