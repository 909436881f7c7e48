//! The files of dpkg's database, from text to values. Pure.

/// A package as dpkg's status file describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::build) struct Stanza {
    pub name: String,
    pub version: String,
    pub architecture: String,
    pub installed: bool,
    pub essential: bool,
    /// `Pre-Depends` and `Depends`: one inner list of alternatives for each requirement.
    pub depends: Vec<Vec<String>>,
    /// Virtual package names.
    pub provides: Vec<String>,
    /// Configuration files: absolute path and MD5 as shipped.
    pub conffiles: Vec<(String, Md5)>,
}

/// An MD5 digest, the only kind dpkg keeps.
pub(in crate::build) type Md5 = [u8; 16];

/// A diverted path: `from` is left to package `by`, everyone else's file lies at `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::build) struct Diversion {
    pub from: String,
    pub to: String,
    /// None: a local diversion, so no package's file lies at `from`.
    pub by: Option<String>,
}

/// Parses `/var/lib/dpkg/status`.
pub(in crate::build) fn status(text: &str) -> Result<Vec<Stanza>, String> {
    let mut stanzas = Vec::new();
    for block in text.split("\n\n") {
        if block.trim().is_empty() {
            continue;
        }
        let stanza = stanza(block)?;
        if stanza.name.is_empty() {
            return Err("a stanza without a package name".into());
        }
        stanzas.push(stanza);
    }
    Ok(stanzas)
}

fn stanza(block: &str) -> Result<Stanza, String> {
    let mut out = Stanza::default();
    let mut field = "";
    for line in block.lines() {
        if line.starts_with([' ', '\t']) {
            if field == "Conffiles" {
                out.conffiles.extend(conffile(line));
            }
            continue;
        }
        let Some((name, value)) = line.split_once(':') else {
            if line.is_empty() {
                continue;
            }
            return Err(format!("a line without a field name: {:?}", shorten(line)));
        };
        field = name;
        let value = value.trim();
        match name {
            "Package" => out.name = value.into(),
            "Version" => out.version = value.into(),
            "Architecture" => out.architecture = value.into(),
            "Status" => out.installed = value.ends_with(" installed"),
            "Essential" => out.essential = value == "yes",
            "Pre-Depends" | "Depends" => out.depends.extend(relations(value)),
            "Provides" => out.provides.extend(relations(value).into_iter().flatten()),
            _ => {}
        }
    }
    Ok(out)
}

/// `a (>= 1) | b:any, c` to `[[a, b:any], [c]]`.
fn relations(value: &str) -> Vec<Vec<String>> {
    let name = |alternative: &str| {
        let end = alternative.find(|c: char| c.is_whitespace() || matches!(c, '(' | '[' | '<'));
        alternative[..end.unwrap_or(alternative.len())].to_owned()
    };
    value
        .split(',')
        .map(|group| {
            group.split('|').map(|a| name(a.trim())).filter(|n| !n.is_empty()).collect::<Vec<_>>()
        })
        .filter(|group| !group.is_empty())
        .collect()
}

/// ` /etc/x 0123… [obsolete]`; `newconffile` and remnants have no digest to go by.
fn conffile(line: &str) -> Option<(String, Md5)> {
    let mut words = line.split_whitespace();
    let path = words.next()?;
    let digest = md5(words.next()?)?;
    (path.starts_with('/') && words.next().is_none()).then(|| (path.to_owned(), digest))
}

/// Parses a package's `.md5sums`: paths as shipped, without the leading slash.
pub(in crate::build) fn md5sums(text: &str) -> Result<Vec<(&str, Md5)>, String> {
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (digest, path) = line.split_at_checked(32).unwrap_or_default();
            let path = path.strip_prefix("  ").or_else(|| path.strip_prefix(" *"));
            match (md5(digest), path) {
                (Some(digest), Some(path)) if !path.is_empty() => Ok((path, digest)),
                _ => Err(format!("no line of the form `MD5  PATH`: {:?}", shorten(line))),
            }
        })
        .collect()
}

/// Parses `/var/lib/dpkg/diversions`: from, to and package (`:` for local) on three lines.
pub(in crate::build) fn diversions(text: &str) -> Result<Vec<Diversion>, String> {
    let lines: Vec<&str> = text.lines().collect();
    if !lines.len().is_multiple_of(3) {
        return Err(format!("{} lines, expected a multiple of three", lines.len()));
    }
    Ok(lines
        .chunks_exact(3)
        .map(|entry| Diversion {
            from: entry[0].into(),
            to: entry[1].into(),
            by: (entry[2] != ":").then(|| entry[2].into()),
        })
        .collect())
}

fn md5(text: &str) -> Option<Md5> {
    let mut digest = [0; 16];
    hex::decode_to_slice(text, &mut digest).ok().map(|()| digest)
}

fn shorten(line: &str) -> String {
    line.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
Package: gcc
Status: install ok installed
Architecture: amd64
Version: 4:12.2.0-3
Provides: c-compiler, gcc-x86-64-linux-gnu (= 4:12.2.0-3)
Depends: cpp (= 4:12.2.0-3), gcc-12 (>= 12.2.0-1~) | other:any [amd64]
Description: GNU C compiler
 Depends: not a field

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
Conffiles:
 /etc/gone.conf 0123456789abcdef0123456789abcdef
 /etc/old.conf 0123456789abcdef0123456789abcdef obsolete
 /etc/new.conf newconffile
";

    #[test]
    fn reads_relations_virtual_packages_and_conffiles() {
        let stanzas = status(STATUS).expect("a plain status file");
        assert_eq!(stanzas.len(), 2);
        assert!(stanzas[0].installed && !stanzas[1].installed);
        assert_eq!(
            stanzas[0].depends,
            [vec!["cpp".to_owned()], vec!["gcc-12".into(), "other:any".into()]]
        );
        assert_eq!(stanzas[0].provides, ["c-compiler", "gcc-x86-64-linux-gnu"]);
        let paths: Vec<_> = stanzas[1].conffiles.iter().map(|(p, _)| p.as_str()).collect();
        assert_eq!(paths, ["/etc/gone.conf"]);
    }

    #[test]
    fn refuses_a_damaged_database() {
        assert!(md5sums("0123456789abcdef0123456789abcdef  usr/bin/x\n").is_ok());
        for bad in [
            "0123  usr/bin/x",
            "0123456789abcdef0123456789abcdef",
            "zz23456789abcdef0123456789abcdef  x",
        ] {
            assert!(md5sums(bad).is_err(), "{bad:?}");
        }
        assert!(diversions("/a\n/b\ndash\n").is_ok());
        assert!(diversions("/a\n/b\n").is_err());
        assert!(status("Package: a\ngarbage\n").is_err());
        assert!(status("Version: 1\n").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "(.|\n|[a-f0-9]{32}  |Depends: ){0,60}") {
            let _ = status(&text);
            let _ = md5sums(&text);
            let _ = diversions(&text);
        }
    }
}
