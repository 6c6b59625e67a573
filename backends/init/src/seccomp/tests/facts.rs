//! moat's own filter against what Docker and Podman ship, call by call.
//!
//! The facts are of moby/profiles 02e898b (2026-05), `seccomp/default.json`, which says `EPERM` to
//! what it does not list (and runc `ENOSYS` to what is newer than all of it), and of
//! containers/container-libs 7a5bc89, `common/pkg/seccomp/seccomp.json`, which says `ENOSYS`; for
//! x86_64, and a kernel from 4.8 on. ioctl, stricter here than there, has a test of its own.

use std::collections::HashMap;

use moat_core::seccomp::{LAST, numbered};
use moat_core::spec::{Capability, DEFAULT_CAPABILITIES};
use seccompiler::sock_filter;

use super::super::own;
use super::super::tree::assemble;
use super::machine::{Call, Said, run};

/// Both allow these to all, whatever the arguments.
const BOTH: &str = "
    read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction
    rt_sigprocmask rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select
    sched_yield mremap msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep
    getitimer alarm setitimer getpid sendfile connect accept sendto recvfrom sendmsg recvmsg
    shutdown bind listen getsockname getpeername socketpair setsockopt getsockopt fork vfork
    execve exit wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl
    flock fsync fdatasync truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir
    creat link unlink symlink readlink chmod fchmod chown fchown lchown umask gettimeofday
    getrlimit getrusage sysinfo times ptrace getuid getgid setuid setgid geteuid getegid setpgid
    getppid getpgrp setsid setreuid setregid getgroups setgroups setresuid getresuid setresgid
    getresgid getpgid setfsuid setfsgid getsid capget capset rt_sigpending rt_sigtimedwait
    rt_sigqueueinfo rt_sigsuspend sigaltstack utime mknod statfs fstatfs getpriority setpriority
    sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max
    sched_get_priority_min sched_rr_get_interval mlock munlock mlockall munlockall modify_ldt
    prctl arch_prctl adjtimex setrlimit sync gettid readahead setxattr lsetxattr fsetxattr
    getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr
    fremovexattr tkill time futex sched_setaffinity sched_getaffinity set_thread_area io_setup
    io_destroy io_getevents io_submit io_cancel get_thread_area epoll_create epoll_ctl_old
    epoll_wait_old remap_file_pages getdents64 set_tid_address restart_syscall semtimedop
    fadvise64 timer_create timer_settime timer_gettime timer_getoverrun timer_delete
    clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes
    mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr waitid ioprio_set
    ioprio_get inotify_init inotify_add_watch inotify_rm_watch openat mkdirat mknodat fchownat
    futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat
    pselect6 ppoll set_robust_list get_robust_list splice tee sync_file_range utimensat
    epoll_pwait signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime
    accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev
    rt_tgsigqueueinfo recvmmsg fanotify_mark prlimit64 name_to_handle_at clock_adjtime syncfs
    sendmmsg getcpu process_vm_readv process_vm_writev sched_setattr sched_getattr renameat2
    seccomp getrandom memfd_create execveat membarrier mlock2 copy_file_range preadv2 pwritev2
    pkey_mprotect pkey_alloc pkey_free statx rseq pidfd_send_signal pidfd_open close_range
    openat2 faccessat2 epoll_pwait2 landlock_create_ruleset landlock_add_rule
    landlock_restrict_self memfd_secret process_mrelease futex_waitv fchmodat2 futex_wake
    futex_wait futex_requeue
";

/// Docker alone allows these to all.
const DOCKER: &str = "vmsplice io_pgetevents uretprobe cachestat map_shadow_stack statmount \
    listmount mseal setxattrat getxattrat listxattrat removexattrat";

/// The last that Docker lists, removexattrat: what is newer gets `ENOSYS` from runc.
const DOCKER_LAST: u32 = 466;

/// Docker allows these to who has the capability.
const DOCKER_WITH: &[(Capability, &str)] = &[
    (Capability::DAC_READ_SEARCH, "open_by_handle_at"),
    (
        Capability::SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
         umount2 unshare",
    ),
    (Capability::SYS_BOOT, "reboot"),
    (Capability::SYS_CHROOT, "chroot"),
    (Capability::SYS_MODULE, "delete_module init_module finit_module"),
    (Capability::SYS_PACCT, "acct"),
    (Capability::SYS_PTRACE, "kcmp pidfd_getfd process_madvise"),
    (Capability::SYS_RAWIO, "iopl ioperm"),
    (Capability::SYS_TIME, "settimeofday clock_settime"),
    (Capability::SYS_TTY_CONFIG, "vhangup"),
    (Capability::SYS_NICE, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::SYSLOG, "syslog"),
    (Capability::BPF, "bpf"),
    (Capability::PERFMON, "perf_event_open"),
];

/// Podman alone allows these to all.
const PODMAN: &str = "syslog pivot_root mount umount2 reboot mbind set_mempolicy get_mempolicy \
    keyctl unshare fanotify_init open_tree move_mount fsopen fsconfig fsmount fspick clone clone3 \
    pidfd_getfd mount_setattr";

/// Podman allows these to who has the capability.
const PODMAN_WITH: &[(Capability, &str)] = &[
    (Capability::DAC_READ_SEARCH, "open_by_handle_at"),
    (
        Capability::SYS_ADMIN,
        "bpf lookup_dcookie perf_event_open quotactl quotactl_fd setdomainname sethostname setns",
    ),
    (Capability::SYS_CHROOT, "chroot"),
    (Capability::SYS_MODULE, "delete_module init_module finit_module"),
    (Capability::SYS_PACCT, "acct"),
    (Capability::SYS_PTRACE, "kcmp process_madvise"),
    (Capability::SYS_RAWIO, "iopl ioperm"),
    (Capability::SYS_TIME, "settimeofday clock_settime"),
    (Capability::SYS_TTY_CONFIG, "vhangup"),
    (Capability::BPF, "bpf"),
    (Capability::PERFMON, "perf_event_open"),
];

/// Where Docker's word counts alone: programs break on Podman's, or Podman has not heard of them.
const DOCKER_DECIDES: &str = "io_pgetevents map_shadow_stack uretprobe statmount listmount mseal \
    setxattrat getxattrat listxattrat removexattrat set_mempolicy_home_node lsm_get_self_attr \
    lsm_list_modules lsm_set_self_attr";

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
const EINVAL: u32 = libc::SECCOMP_RET_ERRNO | libc::EINVAL.cast_unsigned();
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();

fn program(capabilities: &[Capability]) -> Vec<sock_filter> {
    assemble(&own(capabilities)).expect("assemble")
}

fn ask(program: &[sock_filter], name: &str, arguments: &[u64]) -> Said {
    let (number, _) = numbered().find(|(_, known)| *known == name).expect(name);
    run(program, Call::new(number, arguments))
}

/// No capability, the default ones, these and each other, all.
fn sets() -> Vec<Vec<Capability>> {
    let with = |one: &Capability| [DEFAULT_CAPABILITIES, &[*one]].concat();
    let mut sets: Vec<Vec<Capability>> = Capability::ALL.iter().map(with).collect();
    sets.extend([Vec::new(), DEFAULT_CAPABILITIES.to_vec(), Capability::ALL.to_vec()]);
    sets
}

fn words(words: &str) -> impl Iterator<Item = &str> {
    words.split_ascii_whitespace()
}

/// Whether a list allows it.
fn allows(name: &str, capabilities: &[Capability], all: &str, with: &[(Capability, &str)]) -> bool {
    let mut held = with.iter().filter(|(capability, _)| capabilities.contains(capability));
    words(BOTH).chain(words(all)).any(|known| known == name)
        || held.any(|(_, names)| words(names).any(|known| known == name))
}

fn expected(number: u32, name: Option<&str>, capabilities: &[Capability]) -> u32 {
    let Some(name) = name else { return ENOSYS };
    let docker = allows(name, capabilities, DOCKER, DOCKER_WITH);
    let podman = allows(name, capabilities, PODMAN, PODMAN_WITH)
        || words(DOCKER_DECIDES).any(|known| known == name);
    match (docker, podman) {
        (true, true) => ALLOW,
        _ if name == "clone3" => ENOSYS,
        // Of what neither knows the kernel's own exception for uprobe is not the filter's.
        _ if number > DOCKER_LAST || name == "uprobe" => ENOSYS,
        _ => EPERM,
    }
}

#[test]
fn each_call_is_as_docker_and_podman_have_it() {
    let names: HashMap<u32, &str> = numbered().collect();
    for list in [BOTH, DOCKER, PODMAN, DOCKER_DECIDES] {
        for name in words(list) {
            assert!(names.values().any(|known| *known == name), "{name}");
        }
    }
    for capabilities in sets() {
        let program = program(&capabilities);
        for number in 0..LAST + 200 {
            let name = names.get(&number).copied();
            let by_arguments = ["personality", "socket", "ioctl"].contains(&name.unwrap_or(""))
                || (name == Some("clone") && !capabilities.contains(&Capability::SYS_ADMIN));
            let said = run(&program, Call::new(number, &[]));
            assert_eq!(said.arguments, by_arguments, "{number} {name:?}");
            if !by_arguments {
                let expected = expected(number, name, &capabilities);
                assert_eq!(said.value, expected, "{number} {name:?} with {capabilities:?}");
            }
        }
    }
}

#[test]
fn namespaces_are_made_by_who_may() {
    let flags: Vec<u64> = [17, 25, 26, 27, 28, 29, 30].map(|bit| 1 << bit).to_vec();
    for capabilities in sets() {
        let program = program(&capabilities);
        let may = capabilities.contains(&Capability::SYS_ADMIN);
        for flag in &flags {
            let value = if may { ALLOW } else { EPERM };
            // With SIGCHLD, and as if a thread too.
            for beside in [0, 0x11, 0x5_0000] {
                assert_eq!(ask(&program, "clone", &[flag | beside]).value, value, "{flag:#x}");
            }
        }
        // A fork, a thread, vfork, and CLONE_NEWTIME's bit, which is a signal's.
        for usual in [0x11, 0x3d_0f00, 0x4111, 0x80] {
            assert_eq!(ask(&program, "clone", &[usual]).value, ALLOW, "{usual:#x}");
        }
    }
}

#[test]
fn sockets_are_of_known_families() {
    // moby/profiles; Podman denies but 38 and 40 of them.
    let docker: Vec<u64> = (0..12)
        .chain(13..=18)
        .chain([21, 22, 24])
        .chain(26..=33)
        .chain([35, 36, 39])
        .chain(41..=45)
        .collect();
    for capabilities in sets() {
        let program = program(&capabilities);
        for family in (0..200).chain([u64::from(u32::MAX)]) {
            let value = if docker.contains(&family) { ALLOW } else { EPERM };
            assert_eq!(ask(&program, "socket", &[family, 1, 0]).value, value, "{family}");
            // The kernel looks at the lower half alone.
            let high = family | 1 << 40;
            assert_eq!(ask(&program, "socket", &[high, 1, 0]).value, value, "{family}");
        }
        let audit = capabilities.contains(&Capability::AUDIT_WRITE);
        let value = if audit { ALLOW } else { EINVAL };
        assert_eq!(ask(&program, "socket", &[16, 3, 9]).value, value);
        assert_eq!(ask(&program, "socket", &[1 << 32 | 16, 3, 1 << 32 | 9]).value, value);
        assert_eq!(ask(&program, "socket", &[16, 3, 0]).value, ALLOW);
        assert_eq!(ask(&program, "socket", &[2, 3, 9]).value, ALLOW);
    }
}

#[test]
fn personalities_and_terminals() {
    for capabilities in sets() {
        let program = program(&capabilities);
        for (value, said) in [
            (0, ALLOW),
            (8, ALLOW),
            (0x2_0000, ALLOW),
            (0x2_0008, ALLOW),
            (0xffff_ffff, ALLOW),
            (1, EPERM),
            // ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC
            (0x004_0000, EPERM),
            (0x040_0000, EPERM),
            (0x7fff_ffff, EPERM),
        ] {
            assert_eq!(ask(&program, "personality", &[value]).value, said, "{value:#x}");
        }
        // Types on the terminal: TIOCSTI, TIOCLINUX; TCGETS does not.
        for (request, said) in [(0x5412, EPERM), (0x541c, EPERM), (0x5401, ALLOW)] {
            assert_eq!(ask(&program, "ioctl", &[0, request]).value, said, "{request:#x}");
            assert_eq!(ask(&program, "ioctl", &[0, request | 1 << 32]).value, said);
        }
    }
}

#[test]
fn other_tables_of_calls_are_closed() {
    for capabilities in sets() {
        let program = program(&capabilities);
        for number in [0x4000_0000, 0x4000_0000 + 39, 0x4000_0000 + 547, u32::MAX, 0x7fff_ffff] {
            assert_eq!(run(&program, Call::new(number, &[])).value, ENOSYS, "{number:#x}");
        }
        // i386, aarch64, none
        for architecture in [0x4000_0003, 0xc000_00b7, 0] {
            let call = Call { architecture, ..Call::new(20, &[]) };
            assert_eq!(run(&program, call).value, libc::SECCOMP_RET_KILL_PROCESS);
        }
    }
}

/// What installing it takes is counted in steps: the kernel tries each number.
#[test]
fn it_is_decided_in_few_steps() {
    let program = program(DEFAULT_CAPABILITIES);
    let said: Vec<Said> = (0..=LAST).map(|number| run(&program, Call::new(number, &[]))).collect();
    let all: u32 = said.iter().map(|said| said.steps).sum();
    let most = said.iter().filter(|said| !said.arguments).map(|said| said.steps).max();
    eprintln!("{} instructions, {all} steps for all calls, {most:?} at most", program.len());
    assert!(program.len() <= 160, "{} instructions", program.len());
    assert!(all <= 470 * 11, "{all} steps");
    assert!(most <= Some(13), "{most:?} steps");
}
