//! Counting people: several keys of one person are one person.

use casemate_spec::trust::Trust;
use serde::Serialize;

use crate::StatementError;
use crate::sshsig::SshSignature;

/// An approver who signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Person {
    /// The approver's name in the trust file.
    pub name: String,
    /// Fingerprint of the key that signed.
    pub fingerprint: String,
}

/// The approver who signed `message` for `namespace`.
///
/// # Errors
/// [`StatementError::NotAnApprover`], or what the verification of the signature says.
pub fn person(
    trust: &Trust,
    namespace: &str,
    message: &[u8],
    signature: &SshSignature,
) -> Result<Person, StatementError> {
    signature.verify_deliberate(namespace, message)?;
    let fingerprint = signature.key().fingerprint();
    match trust.approver_of(&signature.key().to_line()) {
        Some(approver) => Ok(Person { name: approver.name.clone(), fingerprint }),
        None => Err(StatementError::NotAnApprover { fingerprint }),
    }
}

/// Everybody who signed `message` for `namespace`: each an approver, nobody twice, at least
/// `threshold` of them.
///
/// # Errors
/// As [`person`] for the first signature that is refused; [`StatementError::SamePerson`];
/// [`StatementError::Quorum`].
pub fn people(
    trust: &Trust,
    namespace: &str,
    message: &[u8],
    signatures: &[SshSignature],
    threshold: usize,
) -> Result<Vec<Person>, StatementError> {
    let people = signatures.iter().map(|s| person(trust, namespace, message, s));
    let people = people.collect::<Result<Vec<Person>, _>>()?;
    distinct(&people)?;
    if people.len() < threshold {
        return Err(StatementError::Quorum { needed: threshold, found: people.len() });
    }
    Ok(people)
}

/// Refuses one person among `people` twice.
///
/// # Errors
/// [`StatementError::SamePerson`].
pub fn distinct(people: &[Person]) -> Result<(), StatementError> {
    for (i, person) in people.iter().enumerate() {
        if let Some(earlier) = people[..i].iter().find(|p| p.name == person.name) {
            return Err(StatementError::SamePerson {
                name: person.name.clone(),
                first: earlier.fingerprint.clone(),
                second: person.fingerprint.clone(),
            });
        }
    }
    Ok(())
}
