//! The allowed-signers file of `ssh-keygen(1)`, as git uses it.
//!
//! A line means what it means to `ssh-keygen`, or the file is refused: an option that would be
//! skipped could be the one that takes a key's power away.

use casemate_spec::trust::{Developer, DeveloperKey};
use casemate_statement::sshsig::SshPublicKey;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::error::SourceError;
use super::{openpgp, principals};

/// The SSHSIG namespace of git's signatures.
pub(super) const NAMESPACE: &str = "git";

/// Largest file that is read, in bytes, and most lines.
const MAX_SIZE: usize = 4 << 20;

/// Reads an allowed-signers file: one developer per line that may sign in namespace `git`.
///
/// Dates without a `Z` are local time, as `ssh-keygen` has it; `local` says where. Lines for
/// other namespaces only are left out. `valid-before` is taken as exclusive, one second stricter
/// than `ssh-keygen`.
///
/// # Errors
/// [`SourceError::AllowedSigners`] with the line: an unknown option, a key that can not be read,
/// a certificate authority (not supported), or no line at all for git.
pub fn parse_allowed_signers(text: &str, local: &TimeZone) -> Result<Vec<Developer>, SourceError> {
    let refuse = |line, problem| SourceError::AllowedSigners { line, problem };
    if text.len() > MAX_SIZE {
        return Err(refuse(1, format!("the file is larger than {MAX_SIZE} bytes")));
    }
    let mut developers = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let developer = parse_line(line, local).map_err(|problem| refuse(index + 1, problem))?;
        developers.extend(developer);
    }
    if developers.is_empty() {
        return Err(refuse(1, "no line lists a key for git".into()));
    }
    Ok(developers)
}

/// Developers from armored OpenPGP certificates: each certificate's e-mail addresses become its
/// principals.
///
/// # Errors
/// [`SourceError::DeveloperKey`] if a certificate can not be read or names no address.
pub fn developer_from_openpgp(armored: &str) -> Result<Vec<Developer>, SourceError> {
    let found = openpgp::identities(armored).map_err(|problem| SourceError::DeveloperKey {
        who: "of an OpenPGP file".into(),
        problem,
    })?;
    Ok(found
        .into_iter()
        .map(|(principals, text)| Developer {
            principals,
            key: DeveloperKey::Openpgp(text),
            valid_after: None,
            valid_before: None,
        })
        .collect())
}

#[derive(Default)]
struct Options {
    namespaces: Option<String>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
}

/// One line; none if it is for other namespaces.
fn parse_line(line: &str, local: &TimeZone) -> Result<Option<Developer>, String> {
    let (names, rest) = principals_of(line)?;
    let (options, key) = if is_key_type(first_word(rest)) {
        (Options::default(), rest)
    } else {
        let (options, key) = split_options(rest)?;
        (parse_options(options, local)?, key)
    };
    let mut words = key.split_ascii_whitespace();
    let (kind, body) = (words.next().ok_or("no key")?, words.next().ok_or("no key")?);
    let key = SshPublicKey::parse(&format!("{kind} {body}")).map_err(|e| e.to_string())?.to_line();
    if let Options { valid_after: Some(after), valid_before: Some(before), .. } = &options
        && before <= after
    {
        return Err("valid-before is not after valid-after".into());
    }
    let listed: Vec<String> =
        names.split(',').filter(|p| !p.is_empty()).map(str::to_owned).collect();
    if !listed.iter().any(|p| !p.starts_with('!')) {
        return Err("no principal".into());
    }
    let Options { namespaces, valid_after, valid_before } = options;
    if let Some(namespaces) = namespaces {
        let patterns: Vec<String> = namespaces.split(',').map(str::to_owned).collect();
        if !principals::matches(&patterns, NAMESPACE) {
            return Ok(None);
        }
    }
    let key = DeveloperKey::Ssh(key);
    Ok(Some(Developer { principals: listed, key, valid_after, valid_before }))
}

/// The first word, which may be in quotes, and the rest.
fn principals_of(line: &str) -> Result<(&str, &str), String> {
    let (names, rest) = match line.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').ok_or("a quote without its end")?,
        None => line.split_once([' ', '\t']).ok_or("a principal, but no key")?,
    };
    Ok((names, rest.trim_start_matches([' ', '\t'])))
}

fn first_word(text: &str) -> &str {
    text.split([' ', '\t']).next().unwrap_or_default()
}

fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-", "webauthn-"].iter().any(|start| word.starts_with(start))
}

/// Splits at the first blank outside quotes.
fn split_options(text: &str) -> Result<(&str, &str), String> {
    let mut quoted = false;
    for (i, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => {
                return Ok((&text[..i], text[i..].trim_start_matches([' ', '\t'])));
            }
            _ => {}
        }
    }
    Err(if quoted { "a quote without its end" } else { "options, but no key" }.into())
}

/// `name`, `name="value"`, separated by commas.
fn parse_options(text: &str, local: &TimeZone) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let name = rest[..end].to_ascii_lowercase();
        let mut value = None;
        rest = &rest[end..];
        if let Some(after) = rest.strip_prefix('=') {
            let quoted = after.strip_prefix('"').ok_or_else(|| format!("{name}: no quotes"))?;
            let (inside, after) =
                quoted.split_once('"').ok_or_else(|| format!("{name}: no end quote"))?;
            (value, rest) = (Some(inside), after);
        }
        set_option(&mut options, &name, value, local)?;
        rest = match rest.strip_prefix(',') {
            Some("") => return Err("a comma at the end of the options".into()),
            Some(next) => next,
            None if rest.is_empty() => rest,
            None => return Err(format!("{name}: unexpected text behind it")),
        };
    }
    Ok(options)
}

fn set_option(
    options: &mut Options,
    name: &str,
    value: Option<&str>,
    local: &TimeZone,
) -> Result<(), String> {
    let twice = || format!("{name} is given twice");
    match (name, value) {
        ("cert-authority", _) => {
            Err("cert-authority: certificates are not supported, list each key".into())
        }
        ("namespaces", Some(value)) => {
            options.namespaces.replace(value.to_owned()).map_or(Ok(()), |_| Err(twice()))
        }
        ("valid-after", Some(value)) => {
            options.valid_after.replace(time(value, local)?).map_or(Ok(()), |_| Err(twice()))
        }
        ("valid-before", Some(value)) => {
            options.valid_before.replace(time(value, local)?).map_or(Ok(()), |_| Err(twice()))
        }
        ("namespaces" | "valid-after" | "valid-before", None) => Err(format!("{name}: no value")),
        _ => Err(format!("unknown option {name:?}")),
    }
}

/// `YYYYMMDD`, `YYYYMMDDHHMM` or `YYYYMMDDHHMMSS`, with `Z` for UTC.
fn time(text: &str, local: &TimeZone) -> Result<Timestamp, String> {
    let bad = || format!("{text:?} is no date (YYYYMMDD[HHMM[SS]][Z])");
    let (digits, zone) = match text.strip_suffix(['Z', 'z']) {
        Some(digits) => (digits, &TimeZone::UTC),
        None => (text, local),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !matches!(digits.len(), 8 | 12 | 14) {
        return Err(bad());
    }
    let part = |from: usize, to: usize| -> Result<i8, String> {
        digits.get(from..to).map_or(Ok(0), |s| s.parse().map_err(|_| bad()))
    };
    let year: i16 = digits[..4].parse().map_err(|_| bad())?;
    let civil = DateTime::new(
        year,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?,
        0,
    )
    .map_err(|_| bad())?;
    zone.to_timestamp(civil).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKecyjh9aNmD4rb8WblA8v91JjRb0Cd2JtkzqxcggGeG";

    fn parse(text: &str) -> Result<Vec<Developer>, SourceError> {
        parse_allowed_signers(text, &TimeZone::UTC)
    }

    fn one(text: &str) -> Developer {
        let mut all = parse(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn reads_principals_options_dates_quotes_and_comments() {
        let plain = one(&format!("# people\n\n  a@x,b@x {KEY} laptop of a\n"));
        assert_eq!(plain.principals, ["a@x", "b@x"]);
        assert_eq!(plain.key, DeveloperKey::Ssh(KEY.into()));
        let full = one(&format!(
            "\"*@x,!e@x\" NAMESPACES=\"file,g*\",valid-after=\"20240102\",valid-before=\"202403041506Z\" {KEY}"
        ));
        assert_eq!(full.principals, ["*@x", "!e@x"]);
        let text = |t: Option<Timestamp>| t.map(|t| t.to_string());
        assert_eq!(text(full.valid_after).as_deref(), Some("2024-01-02T00:00:00Z"));
        assert_eq!(text(full.valid_before).as_deref(), Some("2024-03-04T15:06:00Z"));
        let seconds = one(&format!("a@x valid-before=\"20240304150607\" {KEY}"));
        assert_eq!(text(seconds.valid_before).as_deref(), Some("2024-03-04T15:06:07Z"));
    }

    #[test]
    fn takes_dates_without_z_as_local_time() {
        let east = TimeZone::fixed(jiff::tz::offset(2));
        for (date, expected) in
            [("20240102", "2024-01-01T22:00:00Z"), ("20240102Z", "2024-01-02T00:00:00Z")]
        {
            let all = parse_allowed_signers(&format!("a@x valid-after=\"{date}\" {KEY}"), &east);
            let after = all.expect("parses")[0].valid_after.expect("a date");
            assert_eq!(after.to_string(), expected, "{date}");
        }
    }

    #[test]
    fn leaves_out_keys_for_other_namespaces() {
        let both = format!("a@x namespaces=\"file\" {KEY}\nb@x namespaces=\"git\" {KEY}");
        assert_eq!(one(&both).principals, ["b@x"]);
        assert!(parse(&format!("a@x namespaces=\"file\" {KEY}")).is_err());
        assert!(parse(&format!("a@x namespaces=\"*,!git\" {KEY}")).is_err());
    }

    #[test]
    fn refuses_lines_it_would_have_to_guess_at() {
        for bad in [
            "a@x".to_owned(),
            "a@x ssh-ed25519".to_owned(),
            "a@x ssh-ed25519 AAAA".to_owned(),
            format!("a@x cert-authority {KEY}"),
            format!("a@x cert-authority,namespaces=\"git\" {KEY}"),
            format!("a@x no-touch-required {KEY}"),
            format!("a@x namespaces=git {KEY}"),
            format!("a@x namespaces {KEY}"),
            format!("a@x namespaces=\"git {KEY}"),
            format!("a@x namespaces=\"git\",namespaces=\"git\" {KEY}"),
            format!("a@x namespaces=\"git\", {KEY}"),
            format!("a@x namespaces=\"git\"x {KEY}"),
            format!("a@x valid-after=\"2024\" {KEY}"),
            format!("a@x valid-after=\"20241301\" {KEY}"),
            format!("a@x valid-after=\"20240102+1\" {KEY}"),
            format!("a@x valid-after=\"20240102\",valid-before=\"20240102\" {KEY}"),
            format!("!a@x {KEY}"),
            format!("\"a@x {KEY}"),
            String::new(),
        ] {
            let result = parse(&bad);
            assert!(
                matches!(result, Err(SourceError::AllowedSigners { .. })),
                "{bad:?}: {result:?}"
            );
        }
        let error = parse(&format!("# c\na@x cert-authority {KEY}")).expect_err("refused");
        assert!(error.to_string().contains("line 2: cert-authority"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = parse(&text);
        }

        #[test]
        fn no_options_make_the_parser_panic(options in "[a-z\"=,* 0-9Zé-]{0,40}") {
            let _ = parse(&format!("a@x {options} {KEY}"));
        }
    }
}
