//! A program's interpreter and libraries, found as the dynamic linker will find them.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;

use super::elf::{self, Elf, Kind};
use super::ldcache;
use super::nodes::Nodes;
use super::search;
use super::view::{Found, View};
use crate::error::EnclaveError;
use casemate_enclave_protocol::Content;

/// Where glibc looks at last, in the order of the common distributions.
const GLIBC_DIRECTORIES: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// Where musl looks at last.
const MUSL_DIRECTORIES: [&str; 3] = ["/lib", "/usr/local/lib", "/usr/lib"];

/// Where musl looks instead, if this is there.
const MUSL_PATH: &str = "/etc/ld-musl-x86_64.path";

/// How deep scripts may name scripts as interpreters (the kernel's own limit).
const MAX_SCRIPTS: usize = 5;

/// Collects what programs need.
#[derive(Debug)]
pub(super) struct Closure<'a> {
    view: &'a View,
    path: &'a str,
    library_path: Vec<String>,
    configured: Vec<String>,
    /// Real paths whose needs are already known.
    done: HashSet<String>,
    /// Libraries found by the standard search, by name: the enclave's ld.so.cache.
    cached: BTreeMap<String, String>,
    musl: bool,
}

/// A file whose needs are to be found.
struct Todo {
    path: String,
    elf: Elf,
    /// Search paths inherited from the files that led here.
    inherited: Vec<String>,
    /// Whether a missing library is an error: not for files that merely may be loaded.
    strict: bool,
}

impl<'a> Closure<'a> {
    pub(super) fn new(view: &'a View, path: &'a str, library_path: Option<&str>) -> Self {
        let library_path = library_path.unwrap_or_default();
        let absolute = |p: &&str| p.starts_with('/');
        Self {
            view,
            path,
            library_path: library_path.split([':', ';']).filter(absolute).map(Into::into).collect(),
            configured: ldcache::configured_directories(view),
            done: HashSet::new(),
            cached: BTreeMap::new(),
            musl: false,
        }
    }

    /// Adds the program at `path` (inside) with all it needs to start.
    pub(super) fn program(
        &mut self,
        path: &str,
        nodes: &mut Nodes<'_>,
    ) -> Result<(), EnclaveError> {
        let mut wanted = VecDeque::from([(path.to_owned(), path.to_owned(), 0)]);
        while let Some((path, wanted_by, depth)) = wanted.pop_front() {
            let missing = || EnclaveError::MissingInterpreter {
                interpreter: path.clone(),
                path: wanted_by.clone().into(),
            };
            let found = self.view.find(&path)?.ok_or_else(missing)?;
            nodes.add(&found)?;
            let outside = self.view.outside(&found.path);
            let read = |source| EnclaveError::Read { path: outside.clone(), source };
            match elf::read(&outside).map_err(read)? {
                Kind::Other(problem) => {
                    return Err(EnclaveError::NotAProgram { path: outside, problem });
                }
                Kind::Elf(elf) => self.libraries(found.path, elf, true, nodes)?,
                Kind::Script(interpreter, argument) => {
                    if depth == MAX_SCRIPTS {
                        let problem = "its interpreters are scripts without end".into();
                        return Err(EnclaveError::NotAProgram { path: outside, problem });
                    }
                    if let Some(name) = env_program(&interpreter, argument.as_deref()) {
                        let real =
                            search::in_path(self.view, name, self.path)?.ok_or_else(|| {
                                EnclaveError::MissingInterpreter {
                                    interpreter: name.into(),
                                    path: path.clone().into(),
                                }
                            })?;
                        wanted.push_back((real, path.clone(), depth + 1));
                    }
                    wanted.push_back((interpreter, path, depth + 1));
                }
            }
        }
        Ok(())
    }

    /// Adds what a trusted file needs, if it is ELF, as far as it is there.
    pub(super) fn may_load(
        &mut self,
        found: &Found,
        nodes: &mut Nodes<'_>,
    ) -> Result<(), EnclaveError> {
        let outside = self.view.outside(&found.path);
        // A file that can not be read is refused by the agent, by name.
        let Ok(Kind::Elf(elf)) = elf::read(&outside) else { return Ok(()) };
        if let Some((directory, name)) = found.path.rsplit_once('/')
            && name.contains(".so")
            && self.configured.iter().any(|d| d == directory)
        {
            self.cached.entry(name.into()).or_insert_with(|| found.path.clone());
        }
        self.libraries(found.path.clone(), elf, false, nodes)
    }

    /// Adds the linker cache that makes the dynamic linker find what was found here.
    pub(super) fn finish(self, nodes: &mut Nodes<'_>) -> Result<(), EnclaveError> {
        if self.cached.is_empty() {
            return Ok(());
        }
        if self.musl {
            let text = format!("{}\n", self.default_directories().join("\n"));
            nodes.set(MUSL_PATH, 0o644, Content::Literal(text.into_bytes()));
        } else {
            let cache = ldcache::build(&self.cached);
            nodes.set("/etc/ld.so.cache", 0o644, Content::Literal(cache));
        }
        Ok(())
    }

    fn libraries(
        &mut self,
        path: String,
        elf: Elf,
        strict: bool,
        nodes: &mut Nodes<'_>,
    ) -> Result<(), EnclaveError> {
        if !self.done.insert(path.clone()) {
            return Ok(());
        }
        let mut todo = VecDeque::from([Todo { path, elf, inherited: Vec::new(), strict }]);
        while let Some(Todo { path, elf, inherited, strict }) = todo.pop_front() {
            if let Some(interpreter) = &elf.interpreter {
                self.musl |= interpreter.contains("ld-musl");
                match self.view.find(interpreter)? {
                    Some(found) => nodes.add(&found)?,
                    None if !strict => continue,
                    None => {
                        return Err(EnclaveError::MissingInterpreter {
                            interpreter: interpreter.clone(),
                            path: path.into(),
                        });
                    }
                }
            }
            let origin = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            let mut passed_on = expand(&elf.rpath, origin);
            passed_on.extend(inherited.iter().cloned());
            for name in &elf.needed {
                let Some(found) = self.library(name, &elf, origin, &passed_on)? else {
                    if !strict {
                        continue;
                    }
                    return Err(EnclaveError::MissingLibrary {
                        library: name.clone(),
                        needed_by: self.view.outside(&path),
                        searched: self.directories(&elf, origin, &passed_on).join(", "),
                    });
                };
                nodes.add(&found)?;
                if !self.done.insert(found.path.clone()) {
                    continue;
                }
                if let Some(elf) = self.readable_elf(&found.path)? {
                    let inherited = passed_on.clone();
                    todo.push_back(Todo { path: found.path, elf, inherited, strict });
                }
            }
        }
        Ok(())
    }

    fn library(
        &mut self,
        name: &str,
        elf: &Elf,
        origin: &str,
        rpath: &[String],
    ) -> Result<Option<Found>, EnclaveError> {
        if name.contains('/') {
            return self.view.find(&expand_one(name, origin));
        }
        let own = self.directories_before_default(elf, origin, rpath);
        for (at, directory) in own.iter().chain(&self.default_directories()).enumerate() {
            let candidate = format!("{}/{name}", directory.trim_end_matches('/'));
            if let Some(found) = self.view.find(&candidate)?
                && found.metadata.is_file()
                && self.readable_elf(&found.path)?.is_some()
            {
                if at >= own.len() {
                    self.cached.entry(name.into()).or_insert(candidate);
                }
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn directories(&self, elf: &Elf, origin: &str, rpath: &[String]) -> Vec<String> {
        let mut all = self.directories_before_default(elf, origin, rpath);
        all.extend(self.default_directories());
        all
    }

    fn directories_before_default(&self, elf: &Elf, origin: &str, rpath: &[String]) -> Vec<String> {
        // A file's own RUNPATH switches off every RPATH for it (ld.so(8)).
        let mut all = if elf.runpath.is_empty() { rpath.to_vec() } else { Vec::new() };
        all.extend(self.library_path.iter().cloned());
        all.extend(expand(&elf.runpath, origin));
        all
    }

    fn default_directories(&self) -> Vec<String> {
        if self.musl {
            let own = self.view.find(MUSL_PATH).ok().flatten();
            let text = own.and_then(|f| std::fs::read_to_string(self.view.outside(&f.path)).ok());
            return match text {
                Some(text) => {
                    text.split([':', '\n']).filter(|d| d.starts_with('/')).map(Into::into).collect()
                }
                None => MUSL_DIRECTORIES.map(Into::into).into(),
            };
        }
        let mut all = self.configured.clone();
        all.extend(GLIBC_DIRECTORIES.map(Into::into));
        all
    }

    fn readable_elf(&self, path: &str) -> Result<Option<Elf>, EnclaveError> {
        let outside = self.view.outside(path);
        match elf::read(&outside) {
            Ok(Kind::Elf(elf)) => Ok(Some(elf)),
            Ok(_) => Ok(None),
            Err(source) => Err(EnclaveError::Read { path: outside, source }),
        }
    }
}

/// The program that `#!/usr/bin/env NAME` will start.
fn env_program<'a>(interpreter: &str, argument: Option<&'a str>) -> Option<&'a str> {
    if Path::new(interpreter).file_name()? != "env" {
        return None;
    }
    argument?
        .split_ascii_whitespace()
        .find(|word| !word.starts_with('-') && !word.contains('='))
        .filter(|word| !word.contains('/'))
}

fn expand(directories: &[String], origin: &str) -> Vec<String> {
    directories.iter().map(|d| expand_one(d, origin)).filter(|d| d.starts_with('/')).collect()
}

fn expand_one(path: &str, origin: &str) -> String {
    let mut path = path.to_owned();
    for (name, value) in
        [("ORIGIN", origin), ("LIB", "lib/x86_64-linux-gnu"), ("PLATFORM", "x86_64")]
    {
        path = path.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_program_behind_env() {
        assert_eq!(env_program("/usr/bin/env", Some("python3 -u")), Some("python3"));
        assert_eq!(env_program("/usr/bin/env", Some("-S A=b node x")), Some("node"));
        assert_eq!(env_program("/bin/sh", Some("-e")), None);
        assert_eq!(env_program("/usr/bin/env", None), None);
    }

    #[test]
    fn expands_the_linker_s_variables() {
        assert_eq!(expand_one("$ORIGIN/../lib", "/opt/x/bin"), "/opt/x/bin/../lib");
        assert_eq!(expand_one("${ORIGIN}/$LIB", "/o"), "/o/lib/x86_64-linux-gnu");
    }
}
