//! One file for each attack.

mod admin_unmapped;
mod bpf;
mod cgroup_files;
mod chroot_escape;
mod descriptors_by_exec;
mod device_on_volume;
mod devices_made;
mod everyone_killed;
mod executable_as_command;
mod executable_entering;
mod executable_of_pid1;
mod file_capabilities;
mod file_handles;
mod file_hog;
mod fork_bomb;
mod host_devices;
mod host_ipc;
mod host_network;
mod host_processes;
mod host_sockets;
mod i386_calls;
mod identity_map;
mod image_poisoned;
mod inherited_descriptors;
mod io_uring;
mod kernel_log;
mod kernel_modules;
mod kexec;
mod keyrings;
mod machine_controls;
mod masks_as_admin;
mod masks_bypassed;
mod masks_remounted;
mod masks_unmounted;
mod memory_hog;
mod memory_of_pid1;
mod mount_descriptors;
mod mounts;
mod name_and_clock;
mod namespaces_entered;
mod new_namespaces;
mod perf_events;
mod personality;
mod pid1_is_not_the_hosts;
mod proc_mounted_anew;
mod proc_replaced;
mod ptrace_of_pid1;
mod raised_priority;
mod raised_rlimits;
mod reboot;
mod release_agent;
mod setuid_left_on_volume;
mod setuid_program;
mod shared_memory_hog;
mod sysctls;
mod sysfs_writes;
mod terminal_input;
mod userfaultfd;
mod volume_made_writable;
mod volume_target_swapped;
mod vsock;
mod working_dir_of_descriptor;
mod x32_calls;

use anyhow::Result;

use crate::evidence::Evidence;
use crate::field::Field;
use crate::inside::Tries;

/// An attack.
pub(crate) struct Case {
    /// The file's name.
    pub(crate) name: &'static str,
    /// What it does, in a line.
    pub(crate) does: &'static str,
    /// Weaknesses of other runtimes and kernels of the same kind.
    pub(crate) cve: Option<&'static str>,
    /// Why it succeeds behind moat, where that is known and not yet mended.
    pub(crate) hole: Option<&'static str>,
    /// The attacker's side, with the arguments that the host's side gives it.
    pub(crate) attack: fn(&Tries, &[&str]),
    /// The host's side with moat's defaults, where nothing may be got.
    pub(crate) behind: fn(&Field<'_>) -> Result<Vec<Evidence>>,
    /// The host's side with the wall open, where all must be got.
    pub(crate) open: fn(&Field<'_>) -> Result<Vec<Evidence>>,
}

impl Case {
    /// An attack that needs nothing of the host: it must fail in a workload of moat's defaults, and
    /// succeed in one with every wall open.
    const fn new(name: &'static str, does: &'static str, attack: fn(&Tries, &[&str])) -> Self {
        Self {
            name,
            does,
            cve: None,
            hole: None,
            attack,
            behind: |field| field.moat(""),
            open: |field| field.naive(|_| {}),
        }
    }
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Every attack, by what it goes for: moat itself and its start, what is masked, rights,
        /// limits, processes, files, the kernel, its settings, and what namespaces keep apart.
        pub(crate) const ALL: &[Case] = &[$($name::CASE),*];
    };
}

cases![
    executable_as_command,
    executable_of_pid1,
    executable_entering,
    inherited_descriptors,
    descriptors_by_exec,
    working_dir_of_descriptor,
    volume_target_swapped,
    volume_made_writable,
    proc_replaced,
    masks_unmounted,
    masks_remounted,
    proc_mounted_anew,
    masks_bypassed,
    masks_as_admin,
    identity_map,
    admin_unmapped,
    setuid_program,
    file_capabilities,
    setuid_left_on_volume,
    device_on_volume,
    devices_made,
    host_devices,
    fork_bomb,
    memory_hog,
    file_hog,
    shared_memory_hog,
    pid1_is_not_the_hosts,
    ptrace_of_pid1,
    memory_of_pid1,
    host_processes,
    everyone_killed,
    mounts,
    mount_descriptors,
    new_namespaces,
    namespaces_entered,
    chroot_escape,
    file_handles,
    image_poisoned,
    keyrings,
    bpf,
    kernel_modules,
    kexec,
    reboot,
    perf_events,
    userfaultfd,
    io_uring,
    kernel_log,
    machine_controls,
    personality,
    i386_calls,
    x32_calls,
    vsock,
    release_agent,
    cgroup_files,
    sysctls,
    sysfs_writes,
    host_network,
    host_sockets,
    host_ipc,
    name_and_clock,
    terminal_input,
    raised_priority,
    raised_rlimits,
];
