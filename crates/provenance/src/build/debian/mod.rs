//! Debian's package database: which package a file belongs to, and what its bytes should be.
//!
//! The digests are the ones each package brought along (`.md5sums`, and `Conffiles` for
//! configuration). MD5 is what dpkg keeps; it still stands against second pre-images, which is what
//! replacing an installed tool needs. What is recorded is always SHA-256 of the bytes that were read.

mod parse;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::BuildError;
pub(super) use parse::Md5;
use parse::{Diversion, Stanza};

/// Largest database file that is read.
const MAX_SIZE: u64 = 256 << 20;

/// Whether `/NAME` is a link to `/usr/NAME` on the host whose root file system is at `root`. Where
/// only `/usr` of the host is shown, it is taken to be one if `/usr` has such a directory.
pub(super) fn is_merged(root: &Path, name: &str) -> bool {
    match root.join(name).symlink_metadata() {
        Ok(metadata) => metadata.is_symlink(),
        Err(_) => root.join("usr").join(name).is_dir(),
    }
}

/// Directories that a merged `/usr` makes links of.
pub(super) const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// The installed packages of a host.
pub(super) struct Packages {
    root: PathBuf,
    stanzas: Vec<Stanza>,
    by_name: HashMap<String, Vec<usize>>,
    providers: HashMap<String, Vec<usize>>,
    diversions: Vec<Diversion>,
    /// Which of [`MERGED`] are links into `/usr` on this host.
    merged: Vec<&'static str>,
    distribution: Distribution,
}

/// A package in the words of a material.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub name: String,
    pub version: String,
    pub architecture: String,
    pub purl: String,
}

/// The packages a build may use, with every file they shipped.
pub(super) struct Toolchain {
    pub packages: Vec<Package>,
    /// Absolute path to the packages that shipped it, by index, with the digest each gives.
    files: HashMap<String, Vec<(usize, Md5)>>,
    /// Configuration files under `/etc`: path, digest, package index.
    pub conffiles: Vec<(String, Md5, usize)>,
}

/// Who a path belongs to, beyond the digests a toolchain knows.
pub(super) enum Owner {
    /// A package of the toolchain lists it, without a digest.
    WithoutDigest(String),
    /// An installed package outside the toolchain.
    Outside(String),
    /// The local administrator diverted the package's own file away.
    Diverted(String),
    /// No package.
    Nobody,
}

struct Distribution {
    id: String,
    release: Option<String>,
}

impl Toolchain {
    /// Packages that shipped the file at `path`, with the digest each gives.
    pub fn shipped(&self, path: &str) -> &[(usize, Md5)] {
        self.files.get(path).map_or(&[], Vec::as_slice)
    }

    /// Every shipped file below a directory, sorted.
    pub fn under<'a>(&'a self, directory: &'a str) -> Vec<(&'a str, Vec<Md5>)> {
        let mut found: Vec<_> = self
            .files
            .iter()
            .filter(|(path, _)| path.starts_with(directory))
            .map(|(path, owners)| {
                (path.as_str(), owners.iter().map(|(_, digest)| *digest).collect())
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// Whether a package of this name is among them.
    pub fn has(&self, name: &str) -> bool {
        self.packages.iter().any(|p| p.name == name)
    }
}

impl Packages {
    /// Reads the database under `root`.
    pub fn read(root: &Path) -> Result<Self, BuildError> {
        let status = root.join("var/lib/dpkg/status");
        let stanzas = parse::status(&read(&status)?).map_err(|e| damaged(&status, e))?;
        let diversions = root.join("var/lib/dpkg/diversions");
        let diversions = match diversions.exists() {
            true => parse::diversions(&read(&diversions)?).map_err(|e| damaged(&diversions, e))?,
            false => Vec::new(),
        };
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        let mut providers: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, stanza) in stanzas.iter().enumerate().filter(|(_, s)| s.installed) {
            by_name.entry(stanza.name.clone()).or_default().push(index);
            for name in &stanza.provides {
                providers.entry(name.clone()).or_default().push(index);
            }
        }
        let merged = MERGED.into_iter().filter(|name| is_merged(root, name)).collect();
        let distribution = Distribution::read(root);
        Ok(Self {
            root: root.to_owned(),
            stanzas,
            by_name,
            providers,
            diversions,
            merged,
            distribution,
        })
    }

    /// The declared packages, essential ones (which Debian lets every package rely on unsaid), and
    /// all that they depend on.
    pub fn toolchain(&self, declared: &[String]) -> Result<Toolchain, BuildError> {
        let mut open: Vec<usize> = Vec::new();
        for entry in declared {
            open.extend(self.declared(entry)?);
        }
        open.extend(
            (0..self.stanzas.len())
                .filter(|i| self.stanzas[*i].installed && self.stanzas[*i].essential),
        );
        let mut closure = BTreeSet::new();
        while let Some(index) = open.pop() {
            if closure.insert(index) {
                for group in &self.stanzas[index].depends {
                    open.extend(self.satisfying(group, &self.stanzas[index].architecture));
                }
            }
        }
        self.load(&closure)
    }

    /// Who owns `path`, for a file whose digest no package of the toolchain gives.
    pub fn owner(&self, path: &str, toolchain: &Toolchain) -> Owner {
        if let Some(diversion) =
            self.diversions.iter().find(|d| self.canonical(&d.from) == path && d.by.is_none())
        {
            return Owner::Diverted(diversion.to.clone());
        }
        let mut names = BTreeSet::new();
        for stanza in self.stanzas.iter().filter(|s| s.installed) {
            let lists = self.info(stanza, "list").and_then(|file| read(&file).ok());
            let lists = lists.unwrap_or_default();
            if lists.lines().any(|line| self.placed(line, &stanza.name).as_deref() == Some(path)) {
                names.insert(stanza.name.clone());
            }
        }
        match names.iter().find(|name| toolchain.has(name)) {
            Some(name) => Owner::WithoutDigest(name.clone()),
            None => names.pop_first().map_or(Owner::Nobody, Owner::Outside),
        }
    }

    /// `gcc`, `libc6-dev:i386` or `gcc-12=12.2.0-14`.
    fn declared(&self, entry: &str) -> Result<Vec<usize>, BuildError> {
        let (name, pin) = entry.split_once('=').map_or((entry, None), |(n, v)| (n, Some(v)));
        let found = self.installed(name, None);
        if found.is_empty() {
            return Err(BuildError::PackageMissing { package: entry.into() });
        }
        if let Some(pin) = pin
            && let Some(other) = found.iter().find(|i| self.stanzas[**i].version != pin)
        {
            return Err(BuildError::PackageVersion {
                package: name.into(),
                wanted: pin.into(),
                found: self.stanzas[*other].version.clone(),
            });
        }
        Ok(found)
    }

    /// Installed packages named `name` or `name:architecture`; those of `near` (or of none in
    /// particular) are preferred.
    fn installed(&self, name: &str, near: Option<&str>) -> Vec<usize> {
        let (name, wanted) = name.split_once(':').map_or((name, None), |(n, a)| (n, Some(a)));
        let all = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        let of = |architecture: &str| {
            let same = |i: &&usize| {
                let own = self.stanzas[**i].architecture.as_str();
                own == architecture || own == "all"
            };
            all.iter().filter(same).copied().collect::<Vec<_>>()
        };
        match (wanted.filter(|w| *w != "any" && *w != "native"), near) {
            (Some(wanted), _) => of(wanted),
            (None, Some(near)) if !of(near).is_empty() => of(near),
            _ => all.to_vec(),
        }
    }

    /// Every installed alternative may be the one that is used; a virtual name stands for its
    /// providers when no alternative exists under its own name.
    fn satisfying(&self, group: &[String], near: &str) -> Vec<usize> {
        let real: Vec<usize> =
            group.iter().flat_map(|name| self.installed(name, Some(near))).collect();
        if !real.is_empty() {
            return real;
        }
        let plain = |name: &String| name.split(':').next().unwrap_or_default().to_owned();
        group
            .iter()
            .filter_map(|name| self.providers.get(&plain(name)))
            .flatten()
            .copied()
            .collect()
    }

    fn load(&self, closure: &BTreeSet<usize>) -> Result<Toolchain, BuildError> {
        let mut toolchain =
            Toolchain { packages: Vec::new(), files: HashMap::new(), conffiles: Vec::new() };
        for stanza in closure.iter().map(|i| &self.stanzas[*i]) {
            let index = toolchain.packages.len();
            toolchain.packages.push(self.package(stanza));
            if let Some(file) = self.info(stanza, "md5sums") {
                let text = read(&file)?;
                for (path, digest) in parse::md5sums(&text).map_err(|e| damaged(&file, e))? {
                    if let Some(placed) = self.placed(path, &stanza.name) {
                        toolchain.files.entry(placed).or_default().push((index, digest));
                    }
                }
            }
            for (path, digest) in &stanza.conffiles {
                if let Some(placed) = self.placed(path, &stanza.name) {
                    toolchain.conffiles.push((placed, *digest, index));
                }
            }
        }
        Ok(toolchain)
    }

    /// Where a path that `package` ships really lies: usr-merged and diverted.
    fn placed(&self, shipped: &str, package: &str) -> Option<String> {
        let path = self.canonical(shipped);
        for diversion in &self.diversions {
            if self.canonical(&diversion.from) == path && diversion.by.as_deref() != Some(package) {
                return Some(self.canonical(&diversion.to));
            }
        }
        (path.len() > 1).then_some(path)
    }

    /// `bin/sh`, `/bin/sh` and `/usr/bin/sh` are one file on a host with a merged `/usr`.
    fn canonical(&self, path: &str) -> String {
        let path = path.strip_prefix("./").unwrap_or(path).trim_start_matches('/');
        let top = path.split('/').next().unwrap_or_default();
        let prefix = if self.merged.contains(&top) { "/usr/" } else { "/" };
        format!("{prefix}{path}")
    }

    fn info(&self, stanza: &Stanza, kind: &str) -> Option<PathBuf> {
        let folder = self.root.join("var/lib/dpkg/info");
        // Package names come from the database; one with a slash must not lead elsewhere.
        if stanza.name.contains('/') || stanza.architecture.contains('/') {
            return None;
        }
        let plain = folder.join(format!("{}.{kind}", stanza.name));
        let qualified = folder.join(format!("{}:{}.{kind}", stanza.name, stanza.architecture));
        [qualified, plain].into_iter().find(|file| file.exists())
    }

    fn package(&self, stanza: &Stanza) -> Package {
        let Stanza { name, version, architecture, .. } = stanza;
        let Distribution { id, release } = &self.distribution;
        let mut purl = format!(
            "pkg:deb/{}/{}@{}?arch={}",
            percent(id),
            percent(name),
            percent(version),
            percent(architecture)
        );
        if let Some(release) = release {
            purl.push_str(&format!("&distro={}-{}", percent(id), percent(release)));
        }
        Package {
            name: name.clone(),
            version: version.clone(),
            architecture: architecture.clone(),
            purl,
        }
    }
}

impl Distribution {
    fn read(root: &Path) -> Self {
        let text = fs::read_to_string(root.join("usr/lib/os-release"))
            .or_else(|_| fs::read_to_string(root.join("etc/os-release")))
            .unwrap_or_default();
        let fields: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key, value.trim_matches('"')))
            .collect();
        Self {
            id: (*fields.get("ID").unwrap_or(&"debian")).to_owned(),
            release: fields.get("VERSION_ID").map(|v| (*v).to_owned()),
        }
    }
}

/// Percent-encodes for a package URL: everything but letters, digits and `.`, `-`, `_`, `~`.
fn percent(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'~');
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

fn read(path: &Path) -> Result<String, BuildError> {
    let size = fs::metadata(path).map_err(|e| damaged(path, e))?.len();
    if size > MAX_SIZE {
        return Err(damaged(path, format!("larger than {MAX_SIZE} bytes")));
    }
    let bytes = fs::read(path).map_err(|e| damaged(path, e))?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

fn damaged(path: &Path, problem: impl std::fmt::Display) -> BuildError {
    BuildError::PackageDatabase { path: path.display().to_string(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "0123456789abcdef0123456789abcdef";

    /// A host with a merged /usr: dash diverts bash's sh, awk is virtual, one package is missing.
    fn host() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = dir.path();
        fs::create_dir_all(root.join("usr/bin")).expect("usr");
        fs::create_dir_all(root.join("var/lib/dpkg/info")).expect("dpkg");
        std::os::unix::fs::symlink("usr/bin", root.join("bin")).expect("link");
        let mut status = String::new();
        for (name, extra) in [
            ("gcc", "Depends: libc (>= 2), awk, missing | make:any\n"),
            ("libc", ""),
            ("make", ""),
            ("mawk", "Provides: awk\n"),
            ("dash", "Essential: yes\n"),
            ("bison", ""),
        ] {
            status += &format!(
                "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2+b~3\n{extra}\n"
            );
            let paths = match name {
                "dash" => vec!["bin/sh".to_owned(), "bin/dash".into()],
                "libc" => vec!["bin/sh".to_owned(), "bin/libc".into()],
                _ => vec![format!("usr/bin/{name}")],
            };
            let sums: String = paths.iter().map(|p| format!("{SUM}  {p}\n")).collect();
            let list: String = paths.iter().map(|p| format!("/{p}\n")).collect();
            let file = if name == "libc" { "libc:amd64" } else { name };
            fs::write(root.join(format!("var/lib/dpkg/info/{file}.md5sums")), sums).expect("sums");
            fs::write(root.join(format!("var/lib/dpkg/info/{file}.list")), list + "/usr/bin/x\n")
                .expect("list");
        }
        fs::write(root.join("var/lib/dpkg/status"), status).expect("status");
        fs::write(root.join("var/lib/dpkg/diversions"), "/bin/sh\n/bin/sh.distrib\ndash\n")
            .expect("diversions");
        dir
    }

    fn declare(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn follows_alternatives_virtual_packages_and_essential_ones() {
        let host = host();
        let packages = Packages::read(host.path()).expect("a database");
        let toolchain = packages.toolchain(&declare(&["gcc"])).expect("installed");
        let mut names: Vec<_> = toolchain.packages.iter().map(|p| p.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["dash", "gcc", "libc", "make", "mawk"]);
        assert_eq!(toolchain.packages[0].purl, "pkg:deb/debian/gcc@1%3A2%2Bb~3?arch=amd64");
    }

    #[test]
    fn knows_merged_usr_and_diversions() {
        let host = host();
        let packages = Packages::read(host.path()).expect("a database");
        let toolchain = packages.toolchain(&declare(&["gcc"])).expect("installed");
        let owners = |path: &str| {
            toolchain
                .shipped(path)
                .iter()
                .map(|(i, _)| toolchain.packages[*i].name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(owners("/usr/bin/sh"), ["dash"]);
        assert_eq!(owners("/usr/bin/sh.distrib"), ["libc"]);
        assert_eq!(owners("/usr/bin/libc"), ["libc"]);
        assert!(owners("/bin/libc").is_empty(), "the kernel never reports the alias");
    }

    #[test]
    fn names_the_owner_of_what_is_not_declared() {
        let host = host();
        let packages = Packages::read(host.path()).expect("a database");
        let toolchain = packages.toolchain(&declare(&["libc"])).expect("installed");
        assert!(
            matches!(packages.owner("/usr/bin/bison", &toolchain), Owner::Outside(p) if p == "bison")
        );
        assert!(matches!(packages.owner("/usr/bin/x", &toolchain), Owner::WithoutDigest(_)));
        assert!(matches!(packages.owner("/usr/local/bin/cc", &toolchain), Owner::Nobody));
    }

    #[test]
    fn refuses_missing_and_wrongly_pinned_packages() {
        let host = host();
        let packages = Packages::read(host.path()).expect("a database");
        assert!(packages.toolchain(&declare(&["gcc=1:2+b~3"])).is_ok());
        let missing = packages.toolchain(&declare(&["rustc"])).err();
        assert!(
            matches!(missing, Some(BuildError::PackageMissing { package }) if package == "rustc")
        );
        let pinned = packages.toolchain(&declare(&["gcc=2"])).err();
        assert!(
            matches!(pinned, Some(BuildError::PackageVersion { found, .. }) if found == "1:2+b~3")
        );
    }
}
