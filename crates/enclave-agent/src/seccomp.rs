//! Which system calls the program has.
//!
//! Two filters: what is not on the allow-list does not exist (`ENOSYS`, so that libraries use
//! what they used before); what is named as dangerous, or is so with certain arguments, is
//! forbidden (`EPERM`). Calls that are always allowed cost nothing: the kernel remembers them.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::error::AgentError;

/// Namespaces a program could make; none of them is its to make.
const NEW_NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Terminal requests that put text into another's input.
const FORBIDDEN_IOCTLS: [u64; 2] = [libc::TIOCSTI, 0x541C /* TIOCLINUX */];

/// Address families that are the kernel's business, or reach beyond the network namespace.
const FORBIDDEN_FAMILIES: [i32; 5] =
    [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_BLUETOOTH, libc::AF_KEY];

// Calls that the C library's headers do not name yet (arch/x86/entry/syscalls/syscall_64.tbl).
const IO_PGETEVENTS: i64 = 333;
const CACHESTAT: i64 = 451;
const MAP_SHADOW_STACK: i64 = 453;
const FUTEX_WAKE: i64 = 454;
const FUTEX_WAIT: i64 = 455;
const FUTEX_REQUEUE: i64 = 456;

/// Both filters, compiled.
pub(crate) struct Filters {
    allow: BpfProgram,
    forbid: BpfProgram,
}

impl Filters {
    /// The filters of a production enclave; a debuggable one has ptrace as well.
    pub(crate) fn new(production: bool) -> Result<Self, AgentError> {
        let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
            ALLOWED.iter().map(|n| (*n, Vec::new())).collect();
        // Forbidden calls pass the first filter, so that the second can say EPERM.
        allowed.extend(FORBIDDEN.iter().map(|n| (*n, Vec::new())));
        let mut forbidden: BTreeMap<i64, Vec<SeccompRule>> =
            FORBIDDEN.iter().map(|n| (*n, Vec::new())).collect();
        for number in TRACING {
            allowed.insert(number, Vec::new());
            if production {
                forbidden.insert(number, Vec::new());
            }
        }
        let mask = |argument, bits: i32| {
            let bits = bits as u64;
            rule(argument, SeccompCmpOp::MaskedEq(bits), bits)
        };
        let equal = |argument, value| rule(argument, SeccompCmpOp::Eq, value);
        forbidden.insert(
            libc::SYS_clone,
            NEW_NAMESPACES.iter().map(|f| mask(0, *f)).collect::<Result<_, _>>()?,
        );
        forbidden.insert(
            libc::SYS_ioctl,
            FORBIDDEN_IOCTLS.iter().map(|r| equal(1, *r)).collect::<Result<_, _>>()?,
        );
        forbidden.insert(
            libc::SYS_socket,
            FORBIDDEN_FAMILIES.iter().map(|f| equal(0, *f as u64)).collect::<Result<_, _>>()?,
        );
        let errno = |number: i32| SeccompAction::Errno(number.unsigned_abs());
        Ok(Self {
            allow: compile(allowed, errno(libc::ENOSYS), SeccompAction::Allow)?,
            forbid: compile(forbidden, SeccompAction::Allow, errno(libc::EPERM))?,
        })
    }

    /// Installs both for the calling thread and all it starts. `no_new_privs` must be set.
    pub(crate) fn install(&self) -> Result<(), AgentError> {
        // Of two that return an error, the kernel takes the one installed last.
        for filter in [&self.allow, &self.forbid] {
            seccompiler::apply_filter(filter).map_err(failed)?;
        }
        Ok(())
    }
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, AgentError> {
    SeccompFilter::new(rules, otherwise, matching, TargetArch::x86_64)
        .and_then(TryInto::try_into)
        .map_err(failed)
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, AgentError> {
    // The kernel looks at the lower half of these arguments only, and so must the filter.
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
    condition.and_then(|c| SeccompRule::new(vec![c])).map_err(failed)
}

fn failed<E: std::fmt::Display>(problem: E) -> AgentError {
    AgentError::Confine { doing: "seccomp", problem: problem.to_string() }
}

/// Reading and steering other processes: only where nothing is secret.
const TRACING: [i64; 4] =
    [libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_kcmp];

/// Calls that change or inspect the machine, or leave the enclave: `EPERM`.
const FORBIDDEN: [i64; 48] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_uselib,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    libc::SYS_pidfd_getfd,
];

/// Calls that programs use. `clone3` is not among them: its arguments lie in memory, where
/// a filter can not see them, and every library goes back to `clone`. Nor is `io_uring`.
#[rustfmt::skip]
const ALLOWED: &[i64] = &[
    // files
    libc::SYS_read, libc::SYS_write, libc::SYS_open, libc::SYS_close, libc::SYS_stat,
    libc::SYS_fstat, libc::SYS_lstat, libc::SYS_lseek, libc::SYS_pread64, libc::SYS_pwrite64,
    libc::SYS_readv, libc::SYS_writev, libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2,
    libc::SYS_pwritev2, libc::SYS_access, libc::SYS_faccessat, libc::SYS_faccessat2,
    libc::SYS_pipe, libc::SYS_pipe2, libc::SYS_dup, libc::SYS_dup2, libc::SYS_dup3,
    libc::SYS_sendfile, libc::SYS_fcntl, libc::SYS_flock, libc::SYS_fsync, libc::SYS_fdatasync,
    libc::SYS_truncate, libc::SYS_ftruncate, libc::SYS_getdents, libc::SYS_getdents64,
    libc::SYS_getcwd, libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_rename, libc::SYS_renameat,
    libc::SYS_renameat2, libc::SYS_mkdir, libc::SYS_mkdirat, libc::SYS_rmdir, libc::SYS_creat,
    libc::SYS_link, libc::SYS_linkat, libc::SYS_unlink, libc::SYS_unlinkat, libc::SYS_symlink,
    libc::SYS_symlinkat, libc::SYS_readlink, libc::SYS_readlinkat, libc::SYS_chmod,
    libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchmodat2, libc::SYS_chown, libc::SYS_fchown,
    libc::SYS_lchown, libc::SYS_fchownat, libc::SYS_umask, libc::SYS_utime, libc::SYS_utimes,
    libc::SYS_futimesat, libc::SYS_utimensat, libc::SYS_mknod, libc::SYS_mknodat, libc::SYS_statfs,
    libc::SYS_fstatfs, libc::SYS_statx, libc::SYS_newfstatat, libc::SYS_openat, libc::SYS_openat2,
    libc::SYS_close_range, libc::SYS_sync, libc::SYS_syncfs, libc::SYS_sync_file_range,
    libc::SYS_fallocate, libc::SYS_fadvise64, libc::SYS_readahead, libc::SYS_splice, libc::SYS_tee,
    libc::SYS_vmsplice, libc::SYS_copy_file_range, libc::SYS_setxattr, libc::SYS_lsetxattr,
    libc::SYS_fsetxattr, libc::SYS_getxattr, libc::SYS_lgetxattr, libc::SYS_fgetxattr,
    libc::SYS_listxattr, libc::SYS_llistxattr, libc::SYS_flistxattr, libc::SYS_removexattr,
    libc::SYS_lremovexattr, libc::SYS_fremovexattr, libc::SYS_inotify_init,
    libc::SYS_inotify_init1, libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch,
    libc::SYS_ioctl, libc::SYS_memfd_create, libc::SYS_memfd_secret, CACHESTAT,
    libc::SYS_io_setup, libc::SYS_io_destroy, libc::SYS_io_submit, libc::SYS_io_getevents,
    IO_PGETEVENTS, libc::SYS_io_cancel, libc::SYS_ustat, libc::SYS_sysfs,
    // memory
    libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_msync,
    libc::SYS_mincore, libc::SYS_madvise, libc::SYS_brk, libc::SYS_mlock, libc::SYS_mlock2,
    libc::SYS_munlock, libc::SYS_mlockall, libc::SYS_munlockall, libc::SYS_pkey_alloc,
    libc::SYS_pkey_free, libc::SYS_pkey_mprotect, libc::SYS_remap_file_pages, libc::SYS_membarrier,
    libc::SYS_mbind, libc::SYS_set_mempolicy, libc::SYS_get_mempolicy, libc::SYS_migrate_pages,
    libc::SYS_move_pages, libc::SYS_set_mempolicy_home_node, libc::SYS_mseal,
    libc::SYS_process_mrelease, MAP_SHADOW_STACK,
    // processes and threads
    libc::SYS_clone, libc::SYS_fork, libc::SYS_vfork, libc::SYS_execve, libc::SYS_execveat,
    libc::SYS_exit, libc::SYS_exit_group, libc::SYS_wait4, libc::SYS_waitid, libc::SYS_kill,
    libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_gettid,
    libc::SYS_getpgrp, libc::SYS_getpgid, libc::SYS_setpgid, libc::SYS_getsid, libc::SYS_setsid,
    libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getresuid,
    libc::SYS_getresgid, libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid,
    libc::SYS_setregid, libc::SYS_setresuid, libc::SYS_setresgid, libc::SYS_setfsuid,
    libc::SYS_setfsgid, libc::SYS_getgroups, libc::SYS_setgroups, libc::SYS_capget,
    libc::SYS_capset, libc::SYS_prctl, libc::SYS_arch_prctl, libc::SYS_personality,
    libc::SYS_getrlimit, libc::SYS_setrlimit, libc::SYS_prlimit64, libc::SYS_getrusage,
    libc::SYS_times, libc::SYS_sched_yield, libc::SYS_sched_getparam, libc::SYS_sched_setparam,
    libc::SYS_sched_getscheduler, libc::SYS_sched_setscheduler, libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min, libc::SYS_sched_rr_get_interval, libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity, libc::SYS_sched_getattr, libc::SYS_sched_setattr,
    libc::SYS_getpriority, libc::SYS_setpriority, libc::SYS_ioprio_get, libc::SYS_ioprio_set,
    libc::SYS_getcpu, libc::SYS_set_tid_address, libc::SYS_set_robust_list,
    libc::SYS_get_robust_list, libc::SYS_rseq, libc::SYS_futex, libc::SYS_futex_waitv,
    FUTEX_WAKE, FUTEX_WAIT, FUTEX_REQUEUE,
    libc::SYS_set_thread_area, libc::SYS_get_thread_area, libc::SYS_modify_ldt,
    libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal, libc::SYS_seccomp,
    libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self, libc::SYS_restart_syscall,
    // signals, time, events
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending, libc::SYS_rt_sigtimedwait, libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo, libc::SYS_rt_sigsuspend, libc::SYS_sigaltstack, libc::SYS_pause,
    libc::SYS_alarm, libc::SYS_getitimer, libc::SYS_setitimer, libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep, libc::SYS_clock_gettime, libc::SYS_clock_getres,
    libc::SYS_gettimeofday, libc::SYS_time, libc::SYS_timer_create, libc::SYS_timer_settime,
    libc::SYS_timer_gettime, libc::SYS_timer_getoverrun, libc::SYS_timer_delete,
    libc::SYS_timerfd_create, libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime,
    libc::SYS_signalfd, libc::SYS_signalfd4, libc::SYS_eventfd, libc::SYS_eventfd2,
    libc::SYS_poll, libc::SYS_ppoll, libc::SYS_select, libc::SYS_pselect6, libc::SYS_epoll_create,
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_wait, libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    // sockets
    libc::SYS_socket, libc::SYS_socketpair, libc::SYS_connect, libc::SYS_accept, libc::SYS_accept4,
    libc::SYS_bind, libc::SYS_listen, libc::SYS_getsockname, libc::SYS_getpeername,
    libc::SYS_setsockopt, libc::SYS_getsockopt, libc::SYS_shutdown, libc::SYS_sendto,
    libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    // System V and POSIX objects of the enclave's own
    libc::SYS_shmget, libc::SYS_shmat, libc::SYS_shmctl, libc::SYS_shmdt, libc::SYS_semget,
    libc::SYS_semop, libc::SYS_semctl, libc::SYS_semtimedop, libc::SYS_msgget, libc::SYS_msgsnd,
    libc::SYS_msgrcv, libc::SYS_msgctl, libc::SYS_mq_open, libc::SYS_mq_unlink,
    libc::SYS_mq_timedsend, libc::SYS_mq_timedreceive, libc::SYS_mq_notify,
    libc::SYS_mq_getsetattr,
    // the system
    libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_getrandom,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_and_stay_within_the_kernel_s_limit() {
        for production in [true, false] {
            let filters = Filters::new(production).expect("filters");
            assert!(filters.allow.len() < 4096 && filters.forbid.len() < 4096);
        }
    }

    #[test]
    fn no_call_is_both_allowed_and_forbidden() {
        for number in FORBIDDEN.iter().chain(&TRACING) {
            assert!(!ALLOWED.contains(number), "{number}");
        }
        assert!(!ALLOWED.contains(&libc::SYS_clone3));
        assert!(!ALLOWED.contains(&libc::SYS_io_uring_setup));
    }
}
