//! Which system calls a workload may not make, as data: a list of what is denied, with the effect
//! of the list of what is allowed that container runtimes share (moby
//! `profiles/seccomp/default.json`, from which the names and conditions are taken; the kernel's own
//! checks stand behind it).

use moat_core::spec::Capability;

/// When a call is denied.
pub(super) enum Denied {
    /// Always.
    Always(&'static [libc::c_long]),
    /// Unless the workload has the capability.
    Without(Capability, &'static [libc::c_long]),
}

/// Denied whatever the arguments.
pub(super) const CALLS: &[Denied] = &[
    Denied::Without(
        Capability::SYS_ADMIN,
        &[
            libc::SYS_fanotify_init,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fsopen,
            libc::SYS_fspick,
            libc::SYS_mount,
            libc::SYS_mount_setattr,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            SYS_OPEN_TREE_ATTR,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_setdomainname,
            libc::SYS_sethostname,
            libc::SYS_setns,
            libc::SYS_umount2,
        ],
    ),
    Denied::Without(Capability::BPF, &[libc::SYS_bpf]),
    Denied::Without(Capability::PERFMON, &[libc::SYS_perf_event_open]),
    Denied::Without(Capability::SYSLOG, &[libc::SYS_syslog]),
    Denied::Without(Capability::DAC_READ_SEARCH, &[libc::SYS_open_by_handle_at]),
    Denied::Without(Capability::SYS_BOOT, &[libc::SYS_reboot]),
    Denied::Without(
        Capability::SYS_MODULE,
        &[libc::SYS_delete_module, libc::SYS_finit_module, libc::SYS_init_module],
    ),
    Denied::Without(
        Capability::SYS_NICE,
        &[
            libc::SYS_get_mempolicy,
            libc::SYS_mbind,
            libc::SYS_set_mempolicy,
            libc::SYS_set_mempolicy_home_node,
        ],
    ),
    Denied::Without(Capability::SYS_PACCT, &[libc::SYS_acct]),
    Denied::Without(Capability::SYS_PTRACE, &[libc::SYS_kcmp]),
    Denied::Without(Capability::SYS_RAWIO, &[libc::SYS_ioperm, libc::SYS_iopl]),
    Denied::Without(Capability::SYS_TIME, &[libc::SYS_clock_settime, libc::SYS_settimeofday]),
    Denied::Without(Capability::SYS_TTY_CONFIG, &[libc::SYS_vhangup]),
    Denied::Always(&[
        // Keys are not kept apart by namespaces.
        libc::SYS_add_key,
        libc::SYS_keyctl,
        libc::SYS_request_key,
        // Around the root and the limits.
        libc::SYS_pivot_root,
        libc::SYS_migrate_pages,
        libc::SYS_move_pages,
        // Too much of the kernel for too few users.
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_io_uring_setup,
        libc::SYS_userfaultfd,
        // The machine's own.
        libc::SYS_kexec_file_load,
        libc::SYS_kexec_load,
        libc::SYS_lookup_dcookie,
        libc::SYS_nfsservctl,
        libc::SYS_swapoff,
        libc::SYS_swapon,
        // Long gone from programs.
        libc::SYS__sysctl,
        libc::SYS_sysfs,
        libc::SYS_uselib,
        libc::SYS_ustat,
    ]),
];

// asm/unistd_64.h of Linux 6.15; not in the libc crate yet.
const SYS_OPEN_TREE_ATTR: libc::c_long = 467;

/// Namespaces that a workload makes only with CAP_SYS_ADMIN: the flags of clone(2) and unshare(2).
pub(super) const NAMESPACE_FLAGS: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// `CLONE_NEWTIME`, of unshare(2) alone: in clone(2) these bits are the exit signal.
pub(super) const NEW_TIME: libc::c_int = 0x80;

/// Socket families that reach around the network namespace: vsock(7) to the hypervisor.
pub(super) const SOCKET_FAMILIES: [libc::c_int; 1] = [libc::AF_VSOCK];

/// Terminal requests that type on the terminal in the user's place, as `TIOCSTI` of ioctl_tty(2)
/// and, on a Linux console, `TIOCLINUX` (ioctl_console(2)).
pub(super) const TERMINAL_REQUESTS: [libc::Ioctl; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// What may be asked of personality(2): Linux itself, `UNAME26`, `ADDR_LIMIT_32BIT`-free mixes as
/// used by setarch(8), and the question.
pub(super) const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
