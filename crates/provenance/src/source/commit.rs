//! Commit and tag objects, parsed strictly.
//!
//! git forgives much in these objects, and different readers forgive different things; an
//! object that two readers understand in two ways can show one author to a reviewer and another
//! to a verifier. So only the one form git itself writes is read, and the rest is refused.

use super::oid::Oid;

/// Largest commit or tag object that is read, in bytes.
pub(super) const MAX_SIZE: u64 = 16 << 20;

/// Most parents a commit may have.
const MAX_PARENTS: usize = 512;

/// A commit's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit {
    pub tree: Oid,
    pub parents: Vec<Oid>,
    pub author: Person,
    pub committer: Person,
    /// Armored signature and the bytes it covers.
    pub signed: Option<Signed>,
}

/// An annotated tag's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    pub target: Oid,
    pub target_kind: TagTarget,
    pub name: String,
    pub tagger: Option<Person>,
    pub signed: Option<Signed>,
}

/// What a tag points to, as far as a commit can be behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TagTarget {
    Commit,
    Tag,
    Other,
}

/// Who, and when by their own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    pub email: String,
    pub time: i64,
}

/// A signature and what it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    pub armor: String,
    pub payload: Vec<u8>,
}

impl Commit {
    /// Parses a commit object's content.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (headers, message_at) = headers(bytes)?;
        let mut rest = headers.iter().peekable();
        let mut take = |name: &str| rest.next_if(|h| h.name == name.as_bytes());
        let tree = take("tree").and_then(Header::oid).ok_or("expected a tree line first")?;
        let mut parents = Vec::new();
        while let Some(line) = take("parent") {
            parents.push(line.oid().ok_or("a parent line without an object id")?);
            if parents.len() > MAX_PARENTS {
                return Err(format!("more than {MAX_PARENTS} parents"));
            }
        }
        let author = take("author").ok_or("expected an author line")?.person()?;
        let committer = take("committer").ok_or("expected a committer line")?.person()?;
        let mut signature = None;
        for header in rest {
            match header.name {
                b"tree" | b"parent" | b"author" | b"committer" => {
                    return Err(format!("a second or misplaced {} line", show(header.name)));
                }
                b"gpgsig" if signature.is_none() => signature = Some(header),
                b"gpgsig" => return Err("two signatures".into()),
                b"gpgsig-sha256" => return Err("a signature for another object format".into()),
                _ => {}
            }
        }
        let signed = signature
            .map(|header| {
                let armor = unfold(header.value)?;
                let mut payload = Vec::with_capacity(bytes.len());
                payload.extend_from_slice(&bytes[..header.start]);
                payload.extend_from_slice(&bytes[header.end..]);
                Ok::<_, String>(Signed { armor, payload })
            })
            .transpose()?;
        debug_assert!(message_at <= bytes.len());
        Ok(Self { tree, parents, author, committer, signed })
    }
}

impl Tag {
    /// Parses a tag object's content.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (headers, message_at) = headers(bytes)?;
        let mut rest = headers.iter().peekable();
        let mut take = |name: &str| rest.next_if(|h| h.name == name.as_bytes());
        let target = take("object").and_then(Header::oid).ok_or("expected an object line first")?;
        let target_kind = match take("type").ok_or("expected a type line")?.value {
            b"commit" => TagTarget::Commit,
            b"tag" => TagTarget::Tag,
            _ => TagTarget::Other,
        };
        let name = take("tag").ok_or("expected a tag line")?;
        let name =
            String::from_utf8(name.value.to_vec()).map_err(|_| "a name that is not UTF-8")?;
        let tagger = take("tagger").map(Header::person).transpose()?;
        if let Some(header) = rest.next() {
            return Err(format!("an unexpected {} line", show(header.name)));
        }
        let signed = last_armor(bytes, message_at)
            .map(|at| {
                let armor = String::from_utf8(bytes[at..].to_vec())
                    .map_err(|_| "a signature that is not text")?;
                Ok::<_, String>(Signed { armor, payload: bytes[..at].to_vec() })
            })
            .transpose()?;
        Ok(Self { target, target_kind, name, tagger, signed })
    }
}

/// Where the last line that begins a signature is, from `from` on: git takes the last one.
fn last_armor(bytes: &[u8], from: usize) -> Option<usize> {
    let mut found = None;
    let mut at = from;
    while at < bytes.len() {
        let line = &bytes[at..];
        if [
            "-----BEGIN SSH SIGNATURE-----",
            "-----BEGIN PGP SIGNATURE-----",
            "-----BEGIN PGP MESSAGE-----",
            "-----BEGIN SIGNED MESSAGE-----",
        ]
        .iter()
        .any(|begin| line.starts_with(begin.as_bytes()))
        {
            found = Some(at);
        }
        at += line.iter().position(|b| *b == b'\n').map_or(line.len(), |n| n + 1);
    }
    found
}

/// One header with its continuation lines; `start..end` are its bytes, line feed included.
struct Header<'a> {
    name: &'a [u8],
    value: &'a [u8],
    start: usize,
    end: usize,
}

/// The headers, and where the message begins.
fn headers(bytes: &[u8]) -> Result<(Vec<Header<'_>>, usize), String> {
    let mut found: Vec<Header<'_>> = Vec::new();
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.is_empty() && !found.is_empty() {
            return Ok((found, at));
        }
        let length = rest.iter().position(|b| *b == b'\n').ok_or("a header without its end")?;
        let line = &rest[..length];
        let end = at + length + 1;
        if line.contains(&0) {
            return Err("a NUL byte in a header".into());
        }
        if line.is_empty() {
            return Ok((found, end));
        }
        if line[0] == b' ' {
            let header = found.last_mut().ok_or("a continuation line before any header")?;
            let value_at = header.start + header.name.len() + 1;
            header.value = &bytes[value_at..end - 1];
            header.end = end;
        } else {
            let space = line.iter().position(|b| *b == b' ').ok_or("a header without a value")?;
            let (name, value) = (&line[..space], &line[space + 1..]);
            found.push(Header { name, value, start: at, end });
        }
        at = end;
    }
}

impl Header<'_> {
    fn oid(&self) -> Option<Oid> {
        Oid::from_hex(self.value)
    }

    /// `Name <email> seconds +hhmm`.
    fn person(&self) -> Result<Person, String> {
        let bad = |problem: &str| format!("{} line: {problem}", show(self.name));
        let text = std::str::from_utf8(self.value).map_err(|_| bad("not UTF-8"))?;
        if text.contains('\n') {
            return Err(bad("continued on the next line"));
        }
        let (name, rest) = text.split_once('<').ok_or_else(|| bad("no e-mail address"))?;
        let (email, when) = rest.split_once("> ").ok_or_else(|| bad("no date"))?;
        if name.contains('>') || email.contains(['<', '>']) || when.contains(['<', '>']) {
            return Err(bad("more than one e-mail address"));
        }
        if email.is_empty() || email.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(bad("an empty or unreadable e-mail address"));
        }
        let (seconds, zone) = when.split_once(' ').ok_or_else(|| bad("no time zone"))?;
        let digits =
            |s: &str, n| s.len() <= n && !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let zone_ok = zone.len() == 5 && zone.starts_with(['+', '-']) && digits(&zone[1..], 4);
        if !digits(seconds, 12) || !zone_ok {
            return Err(bad("a date that is not SECONDS +HHMM"));
        }
        let time = seconds.parse().map_err(|_| bad("a date out of range"))?;
        Ok(Person { email: email.to_owned(), time })
    }
}

/// Takes the leading space off continuation lines.
fn unfold(value: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(value).map_err(|_| "a signature that is not text")?;
    let mut out = String::with_capacity(text.len() + 1);
    for (i, line) in text.split('\n').enumerate() {
        out.push_str(if i == 0 { line } else { line.strip_prefix(' ').unwrap_or(line) });
        out.push('\n');
    }
    Ok(out)
}

fn show(name: &[u8]) -> String {
    name.iter().take(40).map(|b| b.escape_ascii().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\
        parent 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\
        author A U Thor <a@example.org> 1700000000 +0100\n\
        committer C O Mitter <c@example.org> 1700000001 -0930\n\
        gpgsig -----BEGIN SSH SIGNATURE-----\n AAAA\n -----END SSH SIGNATURE-----\n\
        encoding UTF-8\n\nsubject\n\nbody\n";

    #[test]
    fn takes_the_signature_out_of_the_signed_bytes() {
        let commit = Commit::parse(PLAIN.as_bytes()).expect("parses");
        assert_eq!(commit.author, Person { email: "a@example.org".into(), time: 1_700_000_000 });
        assert_eq!(commit.committer.time, 1_700_000_001);
        let signed = commit.signed.expect("signed");
        assert_eq!(
            signed.armor,
            "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"
        );
        let payload = String::from_utf8(signed.payload).expect("text");
        assert!(
            payload.contains("-0930\nencoding UTF-8\n\nsubject") && !payload.contains("gpgsig")
        );
    }

    #[test]
    fn refuses_what_two_readers_could_read_in_two_ways() {
        let swap = |from: &str, to: &str| PLAIN.replacen(from, to, 1);
        for (what, bad) in [
            ("two addresses", swap("<a@example.org>", "<a@example.org> <m@example.org>")),
            ("address in a name", swap("A U Thor", "A <m@example.org> U")),
            ("two authors", swap("gpgsig", "author M <m@example.org> 1 +0000\ngpgsig")),
            ("two signatures", swap("encoding UTF-8", "gpgsig x")),
            ("sha256 signature", swap("encoding UTF-8", "gpgsig-sha256 x")),
            ("short parent", swap("parent 4b", "parent ")),
            ("upper-case id", swap("tree 4b", "tree 4B")),
            ("late parent", swap("encoding", "parent")),
            ("no date", swap(" 1700000000 +0100", "")),
            ("negative date", swap("1700000000", "-1700000000")),
            ("NUL", swap("A U Thor", "A\0Thor")),
            ("continued author", swap("+0100\n", "+0100\n \n")),
            ("blank address", swap("a@example.org", " ")),
            ("nothing", String::new()),
        ] {
            assert!(Commit::parse(bad.as_bytes()).is_err(), "{what}");
        }
    }

    #[test]
    fn splits_a_tag_before_its_last_signature() {
        let text = "object 4b825dc642cb6eb9a060e54bf8d69288fbee4904\ntype commit\ntag v1\n\
            tagger T <t@example.org> 1700000000 +0000\n\nnotes\n\
            -----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n";
        let tag = Tag::parse(text.as_bytes()).expect("parses");
        assert_eq!((tag.name.as_str(), tag.target_kind), ("v1", TagTarget::Commit));
        let signed = tag.signed.expect("signed");
        assert!(signed.payload.ends_with(b"notes\n") && signed.armor.starts_with("-----BEGIN"));
        assert!(Tag::parse(text.replacen("tagger", "tagga", 1).as_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parsers_panic(at in 0usize..PLAIN.len(), byte: u8, cut in 0usize..PLAIN.len()) {
            let mut bytes = PLAIN.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = (Commit::parse(&bytes), Tag::parse(&bytes));
            bytes.truncate(cut);
            let _ = (Commit::parse(&bytes), Tag::parse(&bytes));
        }

        #[test]
        fn no_random_bytes_make_the_parsers_panic(bytes: Vec<u8>) {
            let _ = (Commit::parse(&bytes), Tag::parse(&bytes));
        }
    }
}
