//! `[files].trusted`: globs of host paths that are copied and measured.

use std::fs;

use globset::{GlobBuilder, GlobMatcher};

use super::closure::Closure;
use super::nodes::{Nodes, is_reserved, utf8};
use super::view::View;
use crate::error::EnclaveError;

const META: [char; 6] = ['*', '?', '[', ']', '{', '}'];

/// Adds what `glob` matches. A path without wildcards stands for itself and, if it is
/// a directory, for everything in it. Matched programs and libraries bring their libraries.
pub(super) fn add<'v>(
    view: &'v View,
    glob: &str,
    nodes: &mut Nodes<'v>,
    closure: &mut Closure<'v>,
) -> Result<(), EnclaveError> {
    let bad = |problem: String| EnclaveError::Glob { glob: glob.into(), problem };
    let (matcher, base) = if glob.contains(META) {
        let literal = &glob[..glob.find(META).unwrap_or(0)];
        let built = GlobBuilder::new(glob).literal_separator(true).build();
        let matcher = built.map_err(|e| bad(e.kind().to_string()))?.compile_matcher();
        (Matcher::Glob(matcher), literal[..literal.rfind('/').unwrap_or(0)].to_owned())
    } else {
        let base = glob.trim_end_matches('/').to_owned();
        (Matcher::Below(base.clone()), base)
    };
    let mut matched = 0;
    let mut walk = Walk { view, matcher, nodes, closure, matched: &mut matched };
    walk.visit(&base, true)?;
    if matched == 0 {
        return Err(bad("matches nothing on this machine".into()));
    }
    Ok(())
}

enum Matcher {
    Glob(GlobMatcher),
    /// This path and everything below it.
    Below(String),
}

impl Matcher {
    fn is_match(&self, path: &str) -> bool {
        match self {
            Self::Glob(glob) => glob.is_match(path),
            Self::Below(base) => {
                path.strip_prefix(base.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('/'))
            }
        }
    }
}

struct Walk<'a, 'v> {
    view: &'v View,
    matcher: Matcher,
    nodes: &'a mut Nodes<'v>,
    closure: &'a mut Closure<'v>,
    matched: &'a mut usize,
}

impl Walk<'_, '_> {
    fn visit(&mut self, path: &str, is_base: bool) -> Result<(), EnclaveError> {
        let here = if path.is_empty() { "/" } else { path };
        if is_reserved(here) {
            return Ok(());
        }
        let Some((real, links)) = self.view.entry(here)? else { return Ok(()) };
        let matches = self.matcher.is_match(here);
        let target = self.view.find(here)?;
        if matches {
            *self.matched += 1;
            self.nodes.add_links(&links)?;
            if let Some(found) = &target {
                self.nodes.add(found)?;
                if found.metadata.is_file() {
                    self.closure.may_load(found, self.nodes)?;
                }
            } else {
                // A dangling link is kept as it is.
                let target = super::view::read_link(&self.view.outside(&real))?;
                self.nodes.add_links(&[super::view::Link { path: real.clone(), target }])?;
            }
        }
        // A link to a directory is followed only where the glob itself begins, never in a walk:
        // the walk could have no end.
        match target {
            Some(found) if found.metadata.is_dir() && (found.path == real || is_base) => {
                self.children(path, &found.path)
            }
            _ => Ok(()),
        }
    }

    fn children(&mut self, path: &str, real: &str) -> Result<(), EnclaveError> {
        let outside = self.view.outside(real);
        let read = |source| EnclaveError::Read { path: outside.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&outside).map_err(read)? {
            names.push(utf8(entry.map_err(read)?.file_name().into())?);
        }
        names.sort();
        for name in names {
            self.visit(&format!("{path}/{name}"), false)?;
        }
        Ok(())
    }
}
