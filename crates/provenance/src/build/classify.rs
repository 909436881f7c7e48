//! What a file is, from its path and its bytes. No I/O but the look-up of a package's name.

use std::collections::{BTreeMap, HashMap};

use casemate_spec::Sha256;

use super::debian::{Md5, Owner, Package, Packages, Toolchain};
use super::{BuildError, Class, Process, SourceFile};

/// Files under `/usr` that programs look for unasked and do without: caches that maintainer scripts
/// generate, so that no package vouches for their bytes, and start-up files of whatever else is
/// installed. Where the toolchain does not ship them, they are denied without stopping the build:
/// their bytes never enter it. Each entry is a prefix and a suffix of the path.
const OPTIONAL: [(&str, &str); 10] = [
    // The C library falls back to the packaged directory of each locale.
    ("/usr/lib/locale/locale-archive", ""),
    // iconv falls back to the packaged gconv-modules files.
    ("/usr/lib/", "/gconv/gconv-modules.cache"),
    ("/usr/lib/", "/gio/modules/giomodule.cache"),
    // Python compiles the packaged module itself.
    ("/usr/lib/python", ".pyc"),
    ("/usr/share/", ".pyc"),
    // Path files of every Python package on the host, read at each start of Python.
    ("/usr/lib/python3/dist-packages/", ".pth"),
    ("/usr/local/lib/python", ".pth"),
    ("/usr/share/mime/", ".cache"),
    ("/usr/share/glib-2.0/schemas/gschemas.compiled", ""),
    ("/usr/share/info/dir", ""),
];

/// Everything a build's files are compared with.
pub(super) struct Classifier {
    packages: Packages,
    toolchain: Toolchain,
    /// By path as the build sees it.
    source: BTreeMap<String, SourceFile>,
    /// What the builder itself put into the root.
    provided: HashMap<String, (Sha256, Class)>,
    fetched: HashMap<String, Sha256>,
    /// Directories bound from the host: only packages' files count there.
    bound: Vec<String>,
}

/// What becomes of an open of a file that no toolchain package gives a digest for.
pub(super) enum Unvouched {
    /// Denied; the build goes on.
    Withhold,
    /// Denied; the build stops.
    Refuse(BuildError),
}

impl Classifier {
    pub fn new(
        packages: Packages,
        toolchain: Toolchain,
        source: BTreeMap<String, SourceFile>,
        provided: HashMap<String, (Sha256, Class)>,
        bound: Vec<String>,
    ) -> Self {
        Self { packages, toolchain, source, provided, fetched: HashMap::new(), bound }
    }

    /// Whether `path` lies in a directory bound from the host.
    pub fn is_bound(&self, path: &str) -> bool {
        self.bound
            .iter()
            .any(|b| path.strip_prefix(b.as_str()).is_some_and(|rest| rest.starts_with('/')))
    }

    /// Whether a toolchain package gives a digest for `path`.
    pub fn is_shipped(&self, path: &str) -> bool {
        !self.toolchain.shipped(path).is_empty()
    }

    /// The class of a host file that a toolchain package ships.
    pub fn shipped(
        &self,
        path: &str,
        md5: Md5,
        process: impl FnOnce() -> Box<Process>,
    ) -> Result<Class, BuildError> {
        let candidates = self.toolchain.shipped(path);
        if let Some((index, _)) = candidates.iter().find(|(_, digest)| *digest == md5) {
            return Ok(class_of(&self.toolchain.packages[*index]));
        }
        let (package, expected) = match candidates.first() {
            Some((index, digest)) => {
                (self.toolchain.packages[*index].name.clone(), hex::encode(digest))
            }
            None => ("nobody".into(), String::new()),
        };
        let found = hex::encode(md5);
        Err(BuildError::ToolReplaced {
            path: path.into(),
            package,
            expected,
            found,
            process: process(),
        })
    }

    /// What to do about a host file that no toolchain package gives a digest for.
    pub fn unvouched(&self, path: &str, process: impl FnOnce() -> Box<Process>) -> Unvouched {
        if is_optional(path) {
            return Unvouched::Withhold;
        }
        let (path_text, unknown) = (path.to_owned(), |path, reason: &str, process| {
            BuildError::UnknownFile { path, reason: reason.into(), process }
        });
        Unvouched::Refuse(match self.packages.owner(path, &self.toolchain) {
            Owner::WithoutDigest(package) => {
                BuildError::NoDigest { path: path_text, package, process: process() }
            }
            Owner::Outside(package) => {
                BuildError::PackageUndeclared { path: path_text, package, process: process() }
            }
            Owner::Diverted(to) => {
                unknown(path_text, &format!("the package's file was diverted to {to}"), process())
            }
            Owner::Nobody => unknown(path_text, "no installed package owns it", process()),
        })
    }

    /// Whether bytes of declared origin are expected at `path` in the build's own memory.
    pub fn has_origin(&self, path: &str) -> bool {
        self.source.contains_key(path)
            || self.fetched.contains_key(path)
            || self.provided.contains_key(path)
    }

    /// The class of a file in the build's own memory. Nobody but the builder and the build's
    /// processes writes there, so what is not known is generated.
    pub fn own(&self, path: &str, sha256: Sha256) -> Class {
        if self.source.get(path).is_some_and(|file| file.sha256 == sha256) {
            return Class::Source;
        }
        if let Some((_, class)) = self.provided.get(path).filter(|(digest, _)| *digest == sha256) {
            return class.clone();
        }
        if self.fetched.get(path) == Some(&sha256) {
            return Class::Fetched;
        }
        Class::Generated
    }

    /// A fetch step left these bytes at `path`. False: it is the source that was there before.
    pub fn add_fetched(&mut self, path: &str, sha256: Sha256) -> bool {
        if self.own(path, sha256) == Class::Source {
            return false;
        }
        self.fetched.insert(path.to_owned(), sha256);
        true
    }

    /// Files of the root that steps may not change: changed by whom else, then, from outside.
    pub fn provide(&mut self, path: &str, sha256: Sha256) {
        self.provided.insert(path.to_owned(), (sha256, Class::Builder));
    }
}

/// A package as the class of its files.
pub(super) fn class_of(package: &Package) -> Class {
    let Package { name, version, architecture, purl } = package.clone();
    Class::Toolchain { package: name, version, architecture, purl }
}

fn is_optional(path: &str) -> bool {
    OPTIONAL.iter().any(|(prefix, suffix)| {
        path.strip_prefix(prefix).is_some_and(|rest| {
            if suffix.is_empty() { rest.is_empty() } else { rest.ends_with(suffix) }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn withholds_only_what_programs_do_without() {
        for generated in [
            "/usr/lib/locale/locale-archive",
            "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache",
            "/usr/lib/python3.11/__pycache__/os.cpython-311.pyc",
            "/usr/lib/python3/dist-packages/x/__pycache__/a.cpython-311.pyc",
        ] {
            assert!(is_optional(generated), "{generated}");
        }
        for other in [
            "/usr/lib/locale/locale-archive.so",
            "/usr/local/lib/x.pyc",
            "/usr/bin/python3",
            "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules",
        ] {
            assert!(!is_optional(other), "{other}");
        }
    }
}
