//! The bundle that crun and runc run: an OCI configuration (runtime-spec 1.0.2, config.md and
//! config-linux.md) with what moat gives a workload, as near as they can.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The capabilities that moat's workloads keep (`DEFAULT_CAPABILITIES` of moat-core).
const CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What the kernel tells of the machine; covered in every contender that can.
pub(super) const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
];

/// What could change the machine.
pub(super) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// System calls that the filter refuses: what changes the machine, and old or rarely needed ways
/// into its kernel. All others are allowed by name, so that the filter is as long as a real one.
const DENIED: [&str; 50] = [
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "create_module",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "sysfs",
    "syslog",
    "umount2",
    "unshare",
    "userfaultfd",
    "vhangup",
];

/// Where the kernel's headers number the system calls.
const NUMBERS: &str = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";

/// Writes a bundle that runs `/bin/true` on `rootfs`.
pub(super) fn bundle(room: &Path, rootfs: &Path) -> Result<PathBuf> {
    let bundle = room.join("bundle");
    fs::create_dir_all(&bundle)?;
    let config = configuration(rootfs, &allowed()?);
    fs::write(bundle.join("config.json"), serde_json::to_vec(&config)?)?;
    Ok(bundle)
}

fn allowed() -> Result<Vec<String>> {
    let header = fs::read_to_string(NUMBERS)
        .with_context(|| format!("{NUMBERS} (package linux-libc-dev)"))?;
    let names = header.lines().filter_map(|line| line.strip_prefix("#define __NR_"));
    let names = names.filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|name| !DENIED.contains(name)).map(str::to_owned).collect())
}

fn configuration(rootfs: &Path, allowed: &[String]) -> Value {
    let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let namespaces = ["user", "pid", "ipc", "uts", "mount", "network", "cgroup"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
            },
        },
        "root": {"path": rootfs},
        "hostname": "bench",
        "mounts": mounts(),
        "linux": {
            "uidMappings": ids,
            "gidMappings": ids,
            "namespaces": namespaces.map(|kind| json!({"type": kind})),
            "resources": {
                "memory": {"limit": 512 << 20},
                "pids": {"limit": 512},
                "cpu": {"quota": 100_000, "period": 100_000},
            },
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": allowed, "action": "SCMP_ACT_ALLOW"}],
            },
        },
    })
}

fn mounts() -> Value {
    let mount = |at: &str, kind: &str, options: &[&str]| {
        let options = ["nosuid", "noexec"].iter().chain(options).collect::<Vec<_>>();
        json!({"destination": at, "type": kind, "source": kind, "options": options})
    };
    json!([
        mount("/proc", "proc", &["nodev"]),
        mount("/dev", "tmpfs", &["mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", &["nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nodev"]),
        mount("/sys", "sysfs", &["nodev", "ro"]),
    ])
}
