//! What a workload may not do.

use moat_core::spec::Capability;

use super::Named;
use crate::run::Case;

pub(super) const CASES: &[Named] = &[
    ("capabilities are the default ones", capabilities),
    ("capabilities can be added and dropped", capability_changes),
    ("a plain user has none", plain_user_capabilities),
    ("no_new_privs and seccomp are in force", in_force),
    ("denied system calls are denied", seccomp),
    ("namespaces are its own", namespaces),
    ("user 0 is not the host's", user_namespace),
];

fn capabilities() {
    Case::shell("grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status").run().says(
        "CapInh:\t0000000000000000\nCapPrm:\t00000000800405fb\nCapEff:\t00000000800405fb\n\
         CapBnd:\t00000000800405fb\nCapAmb:\t0000000000000000",
    );
}

fn capability_changes() {
    let case = Case::shell("grep CapEff /proc/self/status");
    case.with(|workload| {
        workload.security.cap_add = vec![Capability::NET_ADMIN];
        workload.security.cap_drop = vec![Capability::CHOWN];
    })
    .run()
    .says("CapEff:\t00000000800415fa");
}

fn plain_user_capabilities() {
    let case = Case::shell("grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status");
    case.with(|workload| workload.user = "1000:1000".parse().unwrap())
        .run()
        .says("CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t00000000800405fb");
}

fn in_force() {
    let script = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status";
    Case::shell(script).run().says("NoNewPrivs:\t1\nSeccomp:\t2");
    Case::shell(script)
        .with(|workload| workload.security.no_new_privileges = false)
        .run()
        .says("NoNewPrivs:\t0\nSeccomp:\t2");
}

/// Calls by number, with what they must answer: `EPERM` 1, `ENOSYS` 38; 0 stands for success.
const CALLS: &str = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *arguments):
    ctypes.set_errno(0)
    libc.syscall(number, *arguments)
    print(name, ctypes.get_errno())
call('mount', 165, b'none', b'/tmp', b'tmpfs', 0, 0)
call('umount2', 166, b'/proc', 2)
call('pivot_root', 155, b'.', b'.')
call('unshare user', 272, 0x10000000)
call('unshare files', 272, 0x400)
call('clone newns', 56, 0x20000 | 17, 0, 0, 0, 0)
call('clone3', 435, 0, 0)
call('setns', 308, 0, 0)
call('bpf', 321, 0, 0, 0)
call('perf_event_open', 298, 0, 0, 0, 0, 0)
call('keyctl', 250, 0, 0)
call('io_uring_setup', 425, 1, 0)
call('userfaultfd', 323, 0)
call('fsopen', 430, b'tmpfs', 0)
call('open_tree', 428, -100, b'/', 1)
call('x32 getpid', 0x40000000 | 39)
call('TIOCSTI', 16, 0, 0x5412, b'x')
call('vsock', 41, 40, 1, 0)
call('inet', 41, 2, 1, 0)
call('personality', 135, 0x40000)
call('reboot', 169, 0, 0, 0)
call('init_module', 175, 0, 0, 0)
call('kexec_load', 246, 0, 0, 0)
call('swapon', 167, b'/x', 0)
call('settimeofday', 164, 0, 0)
call('ptrace traceme', 101, 0, 0, 0, 0)
"#;

fn seccomp() {
    let expected = "mount 1\numount2 1\npivot_root 1\nunshare user 1\nunshare files 1\nclone newns 1\n\
        clone3 38\nsetns 1\nbpf 1\nperf_event_open 1\nkeyctl 1\nio_uring_setup 1\nuserfaultfd 1\n\
        fsopen 1\nopen_tree 1\nx32 getpid 38\nTIOCSTI 1\nvsock 1\ninet 0\npersonality 1\nreboot 1\n\
        init_module 1\nkexec_load 1\nswapon 1\nsettimeofday 1\nptrace traceme 0";
    Case::host(&["python3", "-c", CALLS]).run().says(expected);
}

fn namespaces() {
    let kinds = ["user", "mnt", "pid", "ipc", "uts", "net", "cgroup"];
    let script = format!("for n in {}; do readlink /proc/self/ns/$n; done", kinds.join(" "));
    let outcome = Case::shell(&script).run();
    assert_eq!(outcome.out.lines().count(), kinds.len(), "{outcome:?}");
    for (kind, inside) in kinds.into_iter().zip(outcome.out.lines()) {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(own.to_str().unwrap(), inside);
    }
}

fn user_namespace() {
    let outcome = Case::shell("id -u; cat /proc/self/uid_map").run();
    let map: Vec<&str> = outcome.out.split_whitespace().collect();
    assert_eq!(map[0], "0");
    let steps = Case::shell("true").var("MOAT_TEST_STEPS", "1").run().out;
    if steps.contains("each to itself") {
        println!("identity map: this root can't be id-mapped");
        assert_eq!(map[1..], ["0", "0", "4294967295"], "{outcome:?}");
    } else {
        assert_ne!(map[2], "0", "{outcome:?}");
        assert_eq!(map[3], "65536", "{outcome:?}");
    }
}
