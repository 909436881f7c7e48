//! System calls that a build step does not get.
//!
//! The list is short and each entry closes a way past the observer. A new user namespace would let
//! a step make mounts of its own, which carry no marks; `open_by_handle_at` opens without a path;
//! io_uring, keyrings, BPF and perf are ways to data that no file event shows; `AF_VSOCK`, which
//! reaches a virtual machine's host, and some other socket families belong to no network namespace.
//! `clone3` hides its flags from a filter, so it is reported as missing and programs use `clone`.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::BuildError;

/// The x32 entry points of the same kernel calls.
const X32: i64 = 0x4000_0000;

/// Applies the filter to this thread and all it starts. Sets `no_new_privs` as well.
pub(super) fn apply() -> Result<(), BuildError> {
    for filter in [forbidden(), missing(), foreign_sockets()] {
        let program = filter.map_err(|e| BuildError::setup("making the system call filter", e))?;
        seccompiler::apply_filter(&program)
            .map_err(|e| BuildError::setup("applying the system call filter", e))?;
    }
    Ok(())
}

fn forbidden() -> Result<BpfProgram, seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
        libc::SYS_open_by_handle_at,
        libc::SYS_io_uring_setup,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_fanotify_init,
    ]
    .into_iter()
    .map(|call| (call, Vec::new()))
    .collect();
    let user = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        let new_user =
            SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(user), user)?;
        rules.insert(call, vec![SeccompRule::new(vec![new_user])?]);
    }
    compile(rules, libc::EPERM)
}

fn missing() -> Result<BpfProgram, seccompiler::Error> {
    compile(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)
}

/// Only the families that network namespaces confine.
fn foreign_sockets() -> Result<BpfProgram, seccompiler::Error> {
    let other_than = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK]
        .into_iter()
        .map(|family| {
            let family = u64::from(family.cast_unsigned());
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let rule = SeccompRule::new(other_than)?;
    let rules = [libc::SYS_socket, libc::SYS_socketpair].map(|call| (call, vec![rule.clone()]));
    compile(BTreeMap::from(rules), libc::EAFNOSUPPORT)
}

fn compile(
    mut rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: i32,
) -> Result<BpfProgram, seccompiler::Error> {
    if cfg!(target_arch = "x86_64") {
        let x32: Vec<_> = rules.iter().map(|(call, rules)| (call | X32, rules.clone())).collect();
        rules.extend(x32);
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno.cast_unsigned()),
        std::env::consts::ARCH.try_into()?,
    )?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_gets_no_user_namespace() {
        let denied = std::thread::spawn(|| {
            apply().expect("a filter");
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)
        });
        assert_eq!(denied.join().expect("thread"), Err(nix::errno::Errno::EPERM));
    }

    #[test]
    fn a_step_reaches_no_virtual_machine_host() {
        use rustix::net::{AddressFamily, SocketType, socket};
        let open = |family| {
            std::thread::spawn(move || {
                apply().expect("a filter");
                socket(family, SocketType::STREAM, None).map(drop)
            })
        };
        assert_eq!(
            open(AddressFamily::VSOCK).join().expect("thread"),
            Err(rustix::io::Errno::AFNOSUPPORT)
        );
        for honest in [AddressFamily::UNIX, AddressFamily::INET, AddressFamily::INET6] {
            assert_eq!(open(honest).join().expect("thread"), Ok(()));
        }
    }

    #[test]
    fn a_step_can_start_threads_and_processes() {
        let started = std::thread::spawn(|| {
            apply().expect("a filter");
            let inner = std::thread::spawn(|| 1).join();
            (
                inner.expect("thread"),
                std::process::Command::new("true").status().expect("true").success(),
            )
        });
        assert_eq!(started.join().expect("thread"), (1, true));
    }
}
