//! What this machine allows enclaves to have, for `doctor`. Found by trying, never by guessing
//! from versions.

use std::fs;

use casemate_enclave_protocol::message::Probe;
use serde::Serialize;

use crate::launch;

/// One thing an enclave needs or profits from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was tried.
    pub name: &'static str,
    /// Whether it is there.
    pub ok: bool,
    /// Whether enclaves can not start without it.
    pub needed: bool,
    /// What was found.
    pub detail: String,
    /// What to do if it is not there.
    pub fix: Option<String>,
}

/// Tries everything that enclaves on this machine need.
pub fn probe() -> Vec<Finding> {
    let mut findings = Vec::new();
    let root = rustix::process::geteuid().is_root();
    match ask_agent() {
        Err(problem) => findings.push(finding("agent", true, Some(problem), "", NO_EXEC)),
        Ok(probe) => findings.extend(from_probe(probe, root)),
    }
    findings.push(user_namespace_limit());
    findings.push(proc_is_whole());
    findings.push(swap());
    findings.push(process_limit());
    findings.push(cgroup());
    findings
}

const NO_EXEC: &str = "allow executing anonymous memory (sysctl vm.memfd_noexec=0) and mount /proc";
const NO_USERNS: &str = "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1, \
                         kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces \
                         above 0; in a container, a seccomp profile that has unshare and mount";

fn ask_agent() -> Result<Probe, String> {
    let (_agent, channel) = launch::spawn(&["probe"]).map_err(|e| describe(&e))?;
    match channel.recv::<Probe>() {
        Ok(Some((probe, _))) => Ok(probe),
        Ok(None) => Err("the agent ended without an answer".into()),
        Err(e) => Err(e.to_string()),
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn from_probe(probe: Probe, root: bool) -> Vec<Finding> {
    let Probe { landlock_abi, memfd_secret, fanotify, seccomp, namespaces } = probe;
    let landlock = (landlock_abi == 0).then(|| "not in this kernel, or switched off".to_owned());
    let observer = match (&fanotify, root) {
        (None, true) => "permission events work: builds can be traced",
        _ => "",
    };
    vec![
        finding("agent", true, None, "runs from sealed memory", NO_EXEC),
        finding(
            "namespaces",
            true,
            namespaces,
            "user, mount, pid, net, ipc, uts, cgroup",
            NO_USERNS,
        ),
        finding(
            "seccomp",
            true,
            seccomp,
            "filters install",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
        finding(
            "landlock",
            false,
            landlock,
            &format!("version {landlock_abi}"),
            "boot with lsm=landlock,... on a kernel with CONFIG_SECURITY_LANDLOCK",
        ),
        finding(
            "memfd_secret",
            false,
            (!memfd_secret).then(|| "not in this kernel, or switched off".into()),
            "available",
            "boot with secretmem.enable=1",
        ),
        finding("fanotify", false, fanotify, observer, "traced builds need root (CAP_SYS_ADMIN)"),
    ]
}

fn user_namespace_limit() -> Finding {
    let text = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let limit = text.trim();
    let problem = (limit == "0").then(|| "the limit is 0".to_owned());
    finding("user namespace limit", true, problem, limit, NO_USERNS)
}

/// The kernel gives an enclave its own `/proc` only where the host's is visible as a whole.
fn proc_is_whole() -> Finding {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let over = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .find(|path| path.starts_with("/proc/") && !path.starts_with("/proc/sys/fs/binfmt_misc"));
    let problem = over.map(|path| format!("{path} is mounted over"));
    let fix = "run outside of this container, or let it have an unmasked /proc";
    finding("whole /proc", true, problem, "nothing is mounted over it", fix)
}

fn swap() -> Finding {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let problem = (swaps.lines().count() > 1)
        .then(|| "swap is on: the enclave's memory may reach a disk".to_owned());
    finding(
        "no swap",
        false,
        problem,
        "nothing of an enclave is swapped out",
        "swapoff -a, or encrypt it",
    )
}

fn process_limit() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nproc);
    let text = limit.current.map_or_else(|| "unlimited".into(), |n| n.to_string());
    let problem = limit.current.is_some_and(|n| n < 64).then(|| format!("only {text} processes"));
    finding("process limit", false, problem, &text, "raise ulimit -u")
}

fn cgroup() -> Finding {
    let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    let problem = unified.is_err().then(|| "no unified cgroup v2 hierarchy".to_owned());
    let detail = unified.unwrap_or_default().trim().to_owned();
    finding("cgroup v2", false, problem, &detail, "only needed for limits on memory and processes")
}

fn finding(
    name: &'static str,
    needed: bool,
    problem: Option<String>,
    detail: &str,
    fix: &str,
) -> Finding {
    let ok = problem.is_none();
    Finding {
        name,
        ok,
        needed,
        detail: problem.unwrap_or_else(|| detail.to_owned()),
        fix: (!ok).then(|| fix.to_owned()),
    }
}
