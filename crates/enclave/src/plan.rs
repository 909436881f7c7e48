//! Which files a program needs, found without running it.
//!
//! For `root = "host"`: the program, the interpreter it names, the libraries it links to and
//! theirs, what `[files].trusted` matches, and a few constant files under `/etc`. For
//! `root = "dir:PATH"`: that whole tree. Links stay links (`/lib` -> `usr/lib`), so a path inside
//! means what it means outside. Owner, times and, for `host`, the exact mode of a file are not
//! carried: they differ between machines that hold the same bytes.

mod closure;
mod elf;
mod ldcache;
mod nodes;
mod search;
mod tree;
mod trusted;
mod view;

use casemate_enclave_protocol::net::hosts_file;
use casemate_enclave_protocol::{Content, Node, Plan};
use casemate_spec::spec::EffectiveSpec;

use crate::error::EnclaveError;
use crate::options::{DEFAULT_PATH, Program};
use closure::Closure;
use nodes::Nodes;
use view::View;

/// A program's root and the spec that takes effect.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The nodes of the root.
    pub plan: Plan,
    /// What is measured beside them.
    pub effective: EffectiveSpec,
}

/// Plans the root of `program`. Reads headers and directories, never runs anything.
///
/// # Errors
/// [`EnclaveError`] naming the file at fault and what was expected of it.
pub fn plan(program: &Program) -> Result<Planned, EnclaveError> {
    let spec = &program.spec;
    let command = if program.command.is_empty() { &spec.enclave.command } else { &program.command };
    let Some((name, arguments)) = command.split_first() else {
        return Err(EnclaveError::NoCommand);
    };
    if let Some(argument) = command.iter().find(|a| a.contains('\0')) {
        return Err(EnclaveError::Options(format!("argument {argument:?} contains a NUL byte")));
    }
    if !spec.secrets.is_empty() && program.broker.is_none() {
        return Err(EnclaveError::Options(
            "the spec names secrets, and no broker is known that could release them".into(),
        ));
    }
    let mut env = spec.enclave.env.clone();
    let path = env.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into()).clone();
    let library_path = env.get("LD_LIBRARY_PATH").cloned();

    let tree = spec.enclave.root.strip_prefix("dir:").map(|dir| program.directory.join(dir));
    let view = View::new(tree.as_deref())?;
    let directory = if tree.is_some() { "/".as_ref() } else { program.directory.as_path() };
    let resolved = search::program(&view, name, &path, directory)?;

    let mut nodes = Nodes::new(&view);
    let mut closure = Closure::new(&view, &path, library_path.as_deref());
    if tree.is_some() {
        tree::add_all(&view, &mut nodes)?;
        closure.program(&resolved, &mut nodes)?;
    } else {
        add_constants(&mut nodes)?;
        closure.program(&resolved, &mut nodes)?;
        for glob in &spec.files.trusted {
            trusted::add(&view, glob, &mut nodes, &mut closure)?;
        }
        closure.finish(&mut nodes)?;
    }

    let placed = match &program.place {
        Some(place) => nodes.place(&resolved, place)?,
        None => resolved,
    };
    let mut command = vec![placed];
    command.extend_from_slice(arguments);
    let broker = program.broker.filter(|_| !spec.secrets.is_empty());
    let mut effective = spec.effective(command, broker);
    effective.env = env;
    effective.observer = program.observer;
    nodes.set("/etc/hosts", 0o644, literal(&hosts_file(&effective.connect)));
    Ok(Planned { plan: Plan::new(nodes.into_vec())?, effective })
}

/// Files that most programs ask for and that name no machine. A trusted glob may replace them.
fn add_constants(nodes: &mut Nodes<'_>) -> Result<(), EnclaveError> {
    const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
    const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files\nservices: files\n";
    for (path, text) in
        [("/etc/passwd", PASSWD), ("/etc/group", GROUP), ("/etc/nsswitch.conf", NSSWITCH)]
    {
        nodes.set(path, 0o644, literal(text));
    }
    Ok(())
}

fn literal(text: &str) -> Content {
    Content::Literal(text.as_bytes().to_vec())
}

fn file_node(path: &str, mode: u32, content: Content) -> Node {
    Node { path: path.into(), mode, content }
}
