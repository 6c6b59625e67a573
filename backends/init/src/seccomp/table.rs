//! moat's own filter as data: which system calls a workload may not make. A list of what is denied,
//! with the effect of the lists of what is allowed that Docker and Podman ship (moby/profiles
//! `seccomp/default.json` of 2026-05, containers/container-libs
//! `common/pkg/seccomp/seccomp.json`); where the two differ, the stricter holds, unless programs
//! would break on it, which is said below. `tests/facts.rs` holds the two lists and compares.

use std::ops::RangeInclusive;

use moat_core::seccomp::{Action, Condition, Operator};
use moat_core::spec::Capability;

/// The calls that either list knows (asm/unistd_64.h). Any other does not exist (`ENOSYS`), so
/// that programs fall back on an older one: calls newer than the lists, and x32 calls.
pub(super) const KNOWN: [RangeInclusive<u32>; 2] = [0..=335, 424..=466];

/// Calls that are denied, whatever their arguments.
pub(super) struct Denied {
    /// To all but workloads that have one of these.
    pub(super) unless: &'static [Capability],
    /// With this error.
    pub(super) action: Action,
    /// By number.
    pub(super) calls: &'static [libc::c_long],
}

/// A call that is decided by its arguments.
pub(super) struct Conditional {
    /// For all but workloads that have this, for which it is allowed.
    pub(super) unless: &'static [Capability],
    /// Its number.
    pub(super) call: libc::c_long,
    /// In this order: the first that matches decides.
    pub(super) rules: &'static [Rule],
    /// What is done where none does.
    pub(super) otherwise: Action,
}

/// What is done where all conditions hold.
pub(super) struct Rule {
    /// Not for workloads that have one of these.
    pub(super) unless: &'static [Capability],
    pub(super) conditions: &'static [Condition],
    pub(super) action: Action,
}

const EPERM: Action = Action::Errno(1);
const EINVAL: Action = Action::Errno(22);
const ENOSYS: Action = Action::Errno(38);

const fn denied(unless: &'static [Capability], calls: &'static [libc::c_long]) -> Denied {
    Denied { unless, action: EPERM, calls }
}

pub(super) const CALLS: &[Denied] = &[
    denied(
        &[Capability::SYS_ADMIN],
        &[
            libc::SYS_fanotify_init,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fsopen,
            libc::SYS_fspick,
            libc::SYS_lookup_dcookie,
            LSM_GET_SELF_ATTR,
            LSM_LIST_MODULES,
            LSM_SET_SELF_ATTR,
            libc::SYS_mount,
            libc::SYS_mount_setattr,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_setdomainname,
            libc::SYS_sethostname,
            libc::SYS_setns,
            libc::SYS_umount2,
            libc::SYS_unshare,
        ],
    ),
    denied(&[Capability::SYS_ADMIN, Capability::BPF], &[libc::SYS_bpf]),
    denied(&[Capability::SYS_ADMIN, Capability::PERFMON], &[libc::SYS_perf_event_open]),
    denied(&[Capability::SYS_ADMIN, Capability::SYSLOG], &[libc::SYS_syslog]),
    denied(&[Capability::DAC_READ_SEARCH], &[libc::SYS_open_by_handle_at]),
    denied(&[Capability::SYS_BOOT], &[libc::SYS_reboot]),
    denied(&[Capability::SYS_CHROOT], &[libc::SYS_chroot]),
    denied(
        &[Capability::SYS_MODULE],
        &[libc::SYS_delete_module, libc::SYS_finit_module, libc::SYS_init_module],
    ),
    denied(
        &[Capability::SYS_NICE],
        &[
            libc::SYS_get_mempolicy,
            libc::SYS_mbind,
            libc::SYS_set_mempolicy,
            libc::SYS_set_mempolicy_home_node,
        ],
    ),
    denied(&[Capability::SYS_PACCT], &[libc::SYS_acct]),
    denied(
        &[Capability::SYS_PTRACE],
        &[libc::SYS_kcmp, libc::SYS_pidfd_getfd, libc::SYS_process_madvise],
    ),
    denied(&[Capability::SYS_RAWIO], &[libc::SYS_ioperm, libc::SYS_iopl]),
    denied(&[Capability::SYS_TIME], &[libc::SYS_clock_settime, libc::SYS_settimeofday]),
    denied(&[Capability::SYS_TTY_CONFIG], &[libc::SYS_vhangup]),
    denied(
        &[],
        &[
            // Keys are not kept apart by namespaces.
            libc::SYS_add_key,
            libc::SYS_keyctl,
            libc::SYS_request_key,
            // Around the root and the limits.
            libc::SYS_pivot_root,
            libc::SYS_migrate_pages,
            libc::SYS_move_pages,
            // What others have in the page cache.
            CACHESTAT,
            // Too much of the kernel for too few users.
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_vmsplice,
            // The machine's own.
            libc::SYS_kexec_file_load,
            libc::SYS_kexec_load,
            libc::SYS_nfsservctl,
            libc::SYS_swapoff,
            libc::SYS_swapon,
            // Long gone from programs, and most of them from kernels.
            libc::SYS__sysctl,
            libc::SYS_afs_syscall,
            CREATE_MODULE,
            GET_KERNEL_SYMS,
            libc::SYS_getpmsg,
            libc::SYS_putpmsg,
            QUERY_MODULE,
            libc::SYS_security,
            libc::SYS_sysfs,
            libc::SYS_tuxcall,
            libc::SYS_uselib,
            libc::SYS_ustat,
            libc::SYS_vserver,
        ],
    ),
    // Its flags are behind a pointer, and programs fall back to clone.
    Denied { unless: &[Capability::SYS_ADMIN], action: ENOSYS, calls: &[libc::SYS_clone3] },
    // Not denied, though Podman does: io_pgetevents, for which programs have no other than
    // `ENOSYS` to fall back on, and which does what io_getevents does; map_shadow_stack, without
    // which makecontext(3) fails where programs run with shadow stacks; and what is newer than
    // Podman's list, or between two of it: uretprobe, statmount, listmount, mseal, the *xattrat.
];

// asm/unistd_64.h of Linux 6.18, what the libc crate does not have.
const CREATE_MODULE: libc::c_long = 174;
const GET_KERNEL_SYMS: libc::c_long = 177;
const QUERY_MODULE: libc::c_long = 178;
const CACHESTAT: libc::c_long = 451;
const LSM_GET_SELF_ATTR: libc::c_long = 459;
const LSM_SET_SELF_ATTR: libc::c_long = 460;
const LSM_LIST_MODULES: libc::c_long = 461;

/// Flags of clone(2) that make namespaces, but for `CLONE_NEWTIME`: there, its bit is a signal's.
const NAMESPACES: u64 = 0x7e02_0000;

const fn test(argument: u8, operator: Operator, value: u64) -> Condition {
    Condition { argument, operator, value }
}

const fn rule(conditions: &'static [Condition], action: Action) -> Rule {
    Rule { unless: &[], conditions, action }
}

/// A rule for one value of one argument.
macro_rules! is {
    ($argument:literal, $value:expr => $action:expr) => {
        rule(&[test($argument, Operator::Equal, $value)], $action)
    };
}

/// The kernel looks at the lower 32 bits of all of these arguments alone, and so does the filter.
pub(super) const CONDITIONAL: &[Conditional] = &[
    Conditional {
        unless: &[Capability::SYS_ADMIN],
        call: libc::SYS_clone,
        rules: &[rule(&[test(0, Operator::MaskedEqual(NAMESPACES), 0)], Action::Allow)],
        otherwise: EPERM,
    },
    Conditional {
        unless: &[],
        call: libc::SYS_personality,
        // Linux itself, `UNAME26`, and the question.
        rules: &[
            is!(0, 0 => Action::Allow),
            is!(0, 0x8 => Action::Allow),
            is!(0, 0x2_0000 => Action::Allow),
            is!(0, 0x2_0008 => Action::Allow),
            is!(0, 0xffff_ffff => Action::Allow),
        ],
        otherwise: EPERM,
    },
    Conditional {
        unless: &[],
        call: libc::SYS_socket,
        rules: &[
            // The families of nearly all programs: UNIX, INET, INET6.
            rule(&[test(0, Operator::Less, 12)], Action::Allow),
            // `NETLINK_AUDIT`: what PAM takes for a kernel without auditing, and goes on.
            Rule {
                unless: &[Capability::AUDIT_WRITE],
                conditions: &[test(0, Operator::Equal, 16), test(2, Operator::Equal, 9)],
                action: EINVAL,
            },
            // DECnet, ECONET, ATMSVC, IRDA, WANPIPE, ISDN, CAIF: no programs, and bugs.
            is!(0, 12 => EPERM),
            is!(0, 19 => EPERM),
            is!(0, 20 => EPERM),
            is!(0, 23 => EPERM),
            is!(0, 25 => EPERM),
            is!(0, 34 => EPERM),
            is!(0, 37 => EPERM),
            // ALG: the kernel's ciphers (CVE-2026-31431).
            is!(0, 38 => EPERM),
            // VSOCK: around the network namespace, to the hypervisor.
            is!(0, 40 => EPERM),
            // Newer than the lists.
            rule(&[test(0, Operator::Greater, 45)], EPERM),
        ],
        otherwise: Action::Allow,
    },
    Conditional {
        unless: &[],
        call: libc::SYS_ioctl,
        // Stricter than either list: what types on a terminal in the user's place, `TIOCSTI`
        // (ioctl_tty(2)) and, on a Linux console, `TIOCLINUX` (ioctl_console(2)).
        rules: &[is!(1, libc::TIOCSTI => EPERM), is!(1, libc::TIOCLINUX => EPERM)],
        otherwise: Action::Allow,
    },
];
