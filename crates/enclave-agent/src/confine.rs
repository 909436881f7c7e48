//! What the program may do: capabilities, Landlock, seccomp, limits.
//!
//! `execve` makes a process dumpable again, so the agent's own non-dumpable state can not be
//! handed on. What keeps the program's memory from being read instead: core dumps are limited to
//! nothing, the seccomp filter has no ptrace and no `process_vm_*`, Landlock keeps it from
//! touching the agent, and `/proc` shows nobody else. A process of the *same user on the host* is
//! not kept out by any of these: on the platform `host` only hardware could.

use std::os::fd::OwnedFd;

use casemate_spec::spec::{EffectiveSpec, VolumeKind};
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::error::AgentError;
use crate::program::has_path;
use crate::seccomp::Filters;

/// Newest Landlock version this program was written for.
const NEWEST: ABI = ABI::V7;

/// What root keeps inside its user namespace: power over the enclave's own files, processes and
/// users, none over the host.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// What the build observer keeps beside [`KEPT`]: fanotify, mounts and namespaces of its steps.
const OBSERVER: CapabilitySet = CapabilitySet::DAC_READ_SEARCH
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::LEASE);

/// Everything decided before the fork, so that the child only applies it.
pub(crate) struct Rules {
    observer: bool,
    abi: Option<ABI>,
    writable: Vec<String>,
    filters: Option<Filters>,
}

impl Rules {
    /// The rules for `spec`, and what this kernel does not offer.
    pub(crate) fn new(spec: &EffectiveSpec) -> Result<(Self, Vec<String>), AgentError> {
        let mut notices = Vec::new();
        let mut writable: Vec<String> = ["/tmp", "/dev", "/proc"].map(Into::into).into();
        for volume in &spec.volumes {
            if !volume.read_only || volume.kind == VolumeKind::Memory {
                writable.push(volume.path.clone());
            }
        }
        let (abi, filters) = if spec.observer {
            (None, None)
        } else {
            let abi = landlock_abi();
            if abi.is_none() {
                notices.push(
                    "this kernel has no Landlock: the program is confined by mounts, seccomp and \
                     namespaces only"
                        .into(),
                );
            } else if abi.is_some_and(|abi| abi < ABI::V6) {
                notices.push(
                    "this kernel's Landlock can not scope signals: the program may signal the agent"
                        .into(),
                );
            }
            (abi, Some(Filters::new(spec.production)?))
        };
        Ok((Self { observer: spec.observer, abi, writable, filters }, notices))
    }

    /// Takes everything away from the calling process. In the program's process, last.
    pub(crate) fn apply(&self, streams: &[Option<OwnedFd>]) -> Result<(), AgentError> {
        drop_capabilities(self.observer)?;
        rustix::thread::set_no_new_privs(true).map_err(confine("forbidding new privileges"))?;
        if let Some(abi) = self.abi {
            restrict_paths(abi, &self.writable, streams)?;
        }
        match &self.filters {
            Some(filters) => filters.install(),
            None => Ok(()),
        }
    }
}

/// The Landlock version that this kernel and this program share.
pub(crate) fn landlock_abi() -> Option<ABI> {
    [ABI::V1, ABI::V2, ABI::V3, ABI::V4, ABI::V5, ABI::V6, NEWEST].into_iter().rfind(|abi| {
        // Asking for all of a version, required hard, is refused by kernels that lack a part.
        ruleset(*abi).is_ok()
    })
}

fn ruleset(abi: ABI) -> Result<RulesetCreated, landlock::RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))?;
    let scopes = Scope::from_all(abi);
    if scopes.is_empty() { ruleset.create() } else { ruleset.scope(scopes)?.create() }
}

fn restrict_paths(
    abi: ABI,
    writable: &[String],
    streams: &[Option<OwnedFd>],
) -> Result<(), AgentError> {
    const DOING: &str = "Landlock";
    let open = |path: &str| PathFd::new(path).map_err(confine(DOING));
    let all = AccessFs::from_all(abi);
    let mut rules = ruleset(abi)
        .map_err(confine(DOING))?
        .add_rule(PathBeneath::new(open("/")?, AccessFs::from_read(abi)))
        .map_err(confine(DOING))?;
    for path in writable {
        rules = rules.add_rule(PathBeneath::new(open(path)?, all)).map_err(confine(DOING))?;
    }
    // A program may open its streams again by name (/dev/stdout); they lie outside of its root.
    let file: BitFlags<AccessFs> = AccessFs::from_file(abi);
    for stream in streams.iter().flatten().filter(|s| has_path(s)) {
        rules = rules.add_rule(PathBeneath::new(stream, file)).map_err(confine(DOING))?;
    }
    let status = rules.restrict_self().map_err(confine(DOING))?;
    if status.ruleset != RulesetStatus::FullyEnforced {
        return Err(confine(DOING)(format!("the kernel enforces only {:?}", status.ruleset)));
    }
    Ok(())
}

fn drop_capabilities(observer: bool) -> Result<(), AgentError> {
    const DOING: &str = "dropping capabilities";
    let root = rustix::process::geteuid().is_root();
    let wanted = match (observer, root) {
        (true, _) => KEPT.union(OBSERVER),
        (false, true) => KEPT,
        (false, false) => CapabilitySet::empty(),
    };
    let had = rustix::thread::capabilities(None).map_err(confine(DOING))?;
    for capability in CapabilitySet::all().iter() {
        let known = rustix::thread::capability_is_in_bounding_set(capability);
        if !wanted.contains(capability) && known.unwrap_or(false) {
            rustix::thread::remove_capability_from_bounding_set(capability)
                .map_err(confine(DOING))?;
        }
    }
    let _ = rustix::thread::clear_ambient_capability_set();
    let kept = wanted.intersection(had.permitted);
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(confine(DOING))
}

fn confine<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> AgentError {
    move |problem| AgentError::Confine { doing, problem: problem.to_string() }
}
