//! The system calls that each kind of thread may make once the guest can reach it: all that there
//! is to read to know what a VMM that was taken over can still ask of the host's kernel. Any other
//! kills the process. A device that needs another says so in its module's head.
//!
//! Threads are all made before: none may make another, or a process.

use moat_core::seccomp::{Condition, Operator};

/// A call that is allowed for some arguments alone: where any of the lists holds whole.
pub(super) type Where = (libc::c_long, &'static [&'static [Condition]]);

/// What a kind of thread may call.
#[derive(Debug)]
pub(super) struct Calls {
    /// The threads, by name.
    pub(super) thread: &'static str,
    /// Whatever the arguments.
    pub(super) always: &'static [libc::c_long],
    pub(super) sometimes: &'static [Where],
}

const fn test(argument: u8, operator: Operator, value: u64) -> Condition {
    Condition { argument, operator, value }
}

const fn is(argument: u8, value: u64) -> Condition {
    test(argument, Operator::Equal, value)
}

/// None of the bits `mask`.
const fn without(argument: u8, mask: u64) -> Condition {
    test(argument, Operator::MaskedEqual(mask), 0)
}

const fn bits(flags: libc::c_int) -> u64 {
    // Flags and commands are `int`s, of which the filter compares 32 bits.
    flags.cast_unsigned() as u64
}

/// Memory, locks, time, what wakes and is woken, and a thread's end.
pub(super) const ALL: Calls = Calls {
    thread: "all",
    always: &[
        libc::SYS_brk,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_close,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_futex,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_gettid,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_nanosleep,
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_read,
        // A process that was stopped goes on with it (restart_syscall(2)).
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        // The allocator counts processors.
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_yield,
        libc::SYS_sigaltstack,
        libc::SYS_write,
    ],
    sometimes: &[
        // Whether a descriptor is open, which Rust asks before it closes one, in debug builds.
        (libc::SYS_fcntl, &[&[is(1, bits(libc::F_GETFD))]]),
        (
            libc::SYS_madvise,
            &[&[is(2, bits(libc::MADV_DONTNEED))], &[is(2, bits(libc::MADV_FREE))]],
        ),
        // Nothing becomes a program.
        (libc::SYS_mmap, &[&[without(2, bits(libc::PROT_EXEC))]]),
        (libc::SYS_mprotect, &[&[without(2, bits(libc::PROT_EXEC))]]),
    ],
};

/// Waits for the machine's end, stops the vCPUs, says how it ended.
pub(super) const MAIN: Calls = Calls {
    thread: "main",
    always: &[libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_wait, libc::SYS_sendto],
    sometimes: &[
        // KVM_IRQFD, which takes interrupt lines off at the end.
        (libc::SYS_ioctl, &[&[is(1, kvm(WRITE, 0x76, size_of::<kvm_bindings::kvm_irqfd>()))]]),
        // The signal that stops a vCPU: the C library's own first is 32 (nptl(7)), and Rust's 34.
        (libc::SYS_tgkill, &[&[is(2, 34)]]),
    ],
};

/// Directions of asm-generic/ioctl.h, as the program sees it.
const NONE: u64 = 0;
const WRITE: u64 = 1;
const READ: u64 = 2;

/// `_IO`, `_IOW` and `_IOR(0xae, nr, size)` of linux/kvm.h and asm-generic/ioctl.h.
const fn kvm(direction: u64, number: u64, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | 0xae << 8 | number
}

/// Runs the guest, and answers its port and register accesses.
pub(super) const VCPU: Calls = Calls {
    thread: "vcpu",
    always: &[],
    sometimes: &[
        // For a device's start, a second descriptor of what wakes it.
        (libc::SYS_fcntl, &[&[is(1, bits(libc::F_DUPFD_CLOEXEC))]]),
        (
            libc::SYS_ioctl,
            &[
                // KVM_RUN, KVM_GET_REGS, KVM_GET_SREGS, KVM_GET_MP_STATE, KVM_KVMCLOCK_CTRL.
                &[is(1, kvm(NONE, 0x80, 0))],
                &[is(1, kvm(READ, 0x81, size_of::<kvm_bindings::kvm_regs>()))],
                &[is(1, kvm(READ, 0x83, size_of::<kvm_bindings::kvm_sregs>()))],
                &[is(1, kvm(READ, 0x98, size_of::<kvm_bindings::kvm_mp_state>()))],
                &[is(1, kvm(NONE, 0xad, 0))],
            ],
        ),
    ],
};

/// What every device waits with.
pub(super) const DEVICE: Calls = Calls {
    thread: "all devices",
    always: &[libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_wait],
    sometimes: &[(libc::SYS_fcntl, &[&[is(1, bits(libc::F_DUPFD_CLOEXEC))]])],
};

/// What each kind of device needs beside that.
pub(super) const DEVICES: &[Calls] = &[FS, VSOCK, BLK, BLK_IO, NET];

/// Serves files, as their users: those calls alone take a path, and the process's root is empty
/// but for the share.
const FS: Calls = Calls {
    thread: FILE_SERVER,
    always: &[
        libc::SYS_capget,
        libc::SYS_capset,
        libc::SYS_dup,
        libc::SYS_fallocate,
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_fchownat,
        libc::SYS_fdatasync,
        libc::SYS_fstatfs,
        libc::SYS_fsync,
        libc::SYS_ftruncate,
        libc::SYS_getdents64,
        libc::SYS_getxattr,
        libc::SYS_linkat,
        libc::SYS_listxattr,
        libc::SYS_lseek,
        libc::SYS_mkdirat,
        libc::SYS_newfstatat,
        libc::SYS_openat,
        libc::SYS_pread64,
        libc::SYS_preadv,
        libc::SYS_pwrite64,
        libc::SYS_pwritev,
        libc::SYS_readlinkat,
        libc::SYS_readv,
        libc::SYS_removexattr,
        libc::SYS_renameat2,
        libc::SYS_setxattr,
        libc::SYS_statx,
        libc::SYS_symlinkat,
        libc::SYS_umask,
        libc::SYS_unlinkat,
        libc::SYS_utimensat,
        libc::SYS_writev,
    ],
    sometimes: &[
        // Flags of an open file; a second descriptor.
        (
            libc::SYS_fcntl,
            &[
                &[is(1, bits(libc::F_SETFL)), without(2, bits(libc::O_ASYNC | libc::O_DIRECT))],
                &[is(1, bits(libc::F_DUPFD_CLOEXEC))],
            ],
        ),
        // Files, FIFOs and sockets; no device.
        (
            libc::SYS_mknodat,
            &[&[kind(0)], &[kind(libc::S_IFREG)], &[kind(libc::S_IFIFO)], &[kind(libc::S_IFSOCK)]],
        ),
        // The effective id alone.
        (libc::SYS_setresgid, &[&[is(0, UNCHANGED), is(2, UNCHANGED)]]),
        (libc::SYS_setresuid, &[&[is(0, UNCHANGED), is(2, UNCHANGED)]]),
    ],
};

/// The name of the thread that serves files, which alone keeps rights.
pub(super) const FILE_SERVER: &str = "virtio-fs";

/// An id that stays as it is (setresuid(2)).
const UNCHANGED: u64 = u32::MAX as u64;

const fn kind(kind: libc::mode_t) -> Condition {
    test(2, Operator::MaskedEqual(libc::S_IFMT as u64), kind as u64)
}

/// Passes bytes between the guest and sockets that others have connected.
const VSOCK: Calls = Calls {
    thread: "virtio-vsock",
    always: &[
        libc::SYS_accept4,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_sendto,
        libc::SYS_shutdown,
    ],
    sometimes: &[],
};

/// Hands a disk's requests to its workers, or does at once what the page cache has.
const BLK: Calls = Calls {
    thread: "virtio-blk",
    always: &[libc::SYS_preadv2, libc::SYS_timerfd_create, libc::SYS_timerfd_settime],
    sometimes: &[],
};

/// Waits for a disk's file.
const BLK_IO: Calls = Calls {
    thread: "virtio-blk-io",
    always: &[
        libc::SYS_fallocate,
        libc::SYS_fdatasync,
        libc::SYS_preadv2,
        libc::SYS_pwrite64,
        libc::SYS_pwritev2,
    ],
    sometimes: &[],
};

/// Passes packets between the guest and a tap.
const NET: Calls = Calls {
    thread: "virtio-net",
    always: &[
        libc::SYS_readv,
        libc::SYS_timerfd_create,
        libc::SYS_timerfd_settime,
        libc::SYS_writev,
    ],
    // TUNSETOFFLOAD (linux/if_tun.h): `_IOW('T', 208, unsigned int)`.
    sometimes: &[(libc::SYS_ioctl, &[&[is(1, 0x4004_54d0)]])],
};
