//! The dynamic linker's cache: which directories the host configures, and a cache of our own that
//! names exactly the libraries of the root.
//!
//! The host's `/etc/ld.so.cache` lists every library of the machine, so it can not be measured;
//! without any, libraries in directories of `/etc/ld.so.conf` would not be found. The format is
//! glibc's second one (`glibc-ld.so.cache1.1`, `sysdeps/generic/dl-cache.h`).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;

use globset::GlobBuilder;

use super::view::View;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;

/// `FLAG_ELF_LIBC6 | FLAG_X8664_LIB64`.
const FLAGS: u32 = 0x0303;

/// `cache_file_new_flags_endian_little`.
const LITTLE_ENDIAN: u32 = 2;

const MAX_INCLUDES: usize = 64;

/// The directories that `/etc/ld.so.conf` and its includes name, in order.
pub(super) fn configured_directories(view: &View) -> Vec<String> {
    let mut directories = Vec::new();
    let mut files = vec!["/etc/ld.so.conf".to_owned()];
    let mut seen = 0;
    while let Some(file) = files.pop() {
        seen += 1;
        let found = view.find(&file).ok().flatten();
        let Some(found) = found.filter(|_| seen <= MAX_INCLUDES) else { continue };
        let Ok(text) = fs::read_to_string(view.outside(&found.path)) else { continue };
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(globs) = line.strip_prefix("include").filter(|r| r.starts_with([' ', '\t']))
            {
                for glob in globs.split_ascii_whitespace() {
                    files.extend(included(view, glob));
                }
            } else if line.starts_with('/') {
                directories.push(line.trim_end_matches('/').to_owned());
            }
        }
    }
    directories.dedup();
    directories
}

/// Files that an include line means, last first.
fn included(view: &View, glob: &str) -> Vec<String> {
    let glob = if glob.starts_with('/') { glob.to_owned() } else { format!("/etc/{glob}") };
    let Some((directory, _)) = glob.rsplit_once('/') else { return Vec::new() };
    let Ok(matcher) = GlobBuilder::new(&glob).literal_separator(true).build() else {
        return Vec::new();
    };
    let matcher = matcher.compile_matcher();
    let Ok(entries) = fs::read_dir(view.outside(directory)) else { return Vec::new() };
    let mut files: Vec<String> = entries
        .flatten()
        .filter_map(|e| Some(format!("{directory}/{}", e.file_name().to_str()?)))
        .filter(|path| matcher.is_match(path))
        .collect();
    files.sort_by(|a, b| b.cmp(a));
    files
}

/// A cache that maps each library name to its path.
pub(super) fn build(libraries: &BTreeMap<String, String>) -> Vec<u8> {
    let mut sorted: Vec<(&String, &String)> = libraries.iter().collect();
    sorted.sort_by(|a, b| compare(b.0.as_bytes(), a.0.as_bytes()));
    let mut strings = Vec::new();
    let mut entries = Vec::new();
    let start = HEADER + ENTRY * sorted.len();
    for (name, path) in sorted {
        entries.extend(FLAGS.to_le_bytes());
        for text in [name, path] {
            entries.extend(((start + strings.len()) as u32).to_le_bytes());
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
        }
        entries.extend([0; 12]); // OS version, hardware capabilities
    }
    let mut cache = MAGIC.to_vec();
    cache.extend(((entries.len() / ENTRY) as u32).to_le_bytes());
    cache.extend((strings.len() as u32).to_le_bytes());
    cache.extend(LITTLE_ENDIAN.to_le_bytes());
    cache.resize(HEADER, 0);
    cache.extend(entries);
    cache.extend(strings);
    cache
}

/// The linker's order of names: runs of digits compare as numbers, and sort after other text.
fn compare(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while let (Some(x), rest) = (a.first().copied(), b) {
        let y = rest.first().copied().unwrap_or(0);
        match (x.is_ascii_digit(), y.is_ascii_digit()) {
            (true, true) => {
                let (m, n) = (number(&mut a), number(&mut b));
                if m != n {
                    return m.cmp(&n);
                }
            }
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) if x != y => return x.cmp(&y),
            (false, false) => {
                a = &a[1..];
                b = b.get(1..).unwrap_or_default();
            }
        }
    }
    if b.is_empty() { Ordering::Equal } else { Ordering::Less }
}

fn number(text: &mut &[u8]) -> u64 {
    let mut value = 0u64;
    while let Some(digit) = text.first().filter(|b| b.is_ascii_digit()) {
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        *text = &text[1..];
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_names_as_the_linker_does() {
        assert_eq!(compare(b"libz.so.9", b"libz.so.10"), Ordering::Less);
        assert_eq!(compare(b"liba.so", b"libb.so"), Ordering::Less);
        assert_eq!(compare(b"lib1", b"libz"), Ordering::Greater);
        assert_eq!(compare(b"libc.so.6", b"libc.so.6"), Ordering::Equal);
        assert_eq!(compare(b"libc", b"libc.so"), Ordering::Less);
    }

    #[test]
    fn writes_the_layout_of_glibc() {
        let cache = build(&BTreeMap::from([("a.so".to_owned(), "/x/a.so".to_owned())]));
        assert_eq!(cache.len(), HEADER + ENTRY + 5 + 8);
        assert_eq!(&cache[..20], MAGIC);
        assert_eq!(cache[20..24], 1u32.to_le_bytes());
        let key = u32::from_le_bytes([cache[52], cache[53], cache[54], cache[55]]) as usize;
        assert_eq!(&cache[key..key + 5], b"a.so\0");
    }
}
