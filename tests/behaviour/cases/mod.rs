//! One file for each behaviour.

mod arguments;
mod background;
mod bad_kernel;
mod capabilities;
mod cgroups_shown;
mod command_missing;
mod damaged_kernel;
mod descriptors;
mod devices;
mod env_file;
mod environment;
mod exec;
mod exec_many;
mod exec_signals;
mod exec_streams;
mod exec_terminal;
mod exit_status;
mod figures;
mod file_owners;
mod first_kernel;
mod host_root;
mod host_secrets;
mod hostname;
mod interrupted_group;
mod kept;
mod kept_lost;
mod kept_stopped;
mod kernels;
mod killed_by_signal;
mod killed_moat;
mod labels;
mod landlock;
mod large_environment;
mod large_stdin;
mod large_stdout;
mod lost_vmm;
mod memory_limit;
mod name_files;
mod named_volumes;
mod network;
mod no_answer;
mod no_overlay;
mod not_executable;
mod paused;
mod paused_ended;
mod pids_limit;
mod proc_and_sys;
mod processes;
mod processors;
mod read_only;
mod reader_leaves;
mod rlimits;
mod seccomp;
mod seccomp_profile;
mod shell_background;
mod shm_size;
mod signals_held;
mod signals_passed_on;
mod stdin_ends;
mod stop_timeout;
mod stopped_moat;
mod stops_in_time;
mod streams_apart;
mod streams_in_order;
mod temporary_files;
mod terminal;
mod terminal_signals;
mod tmpfs;
mod two_at_once;
mod user;
mod vmm_confined;
mod volumes;
mod volumes_followed;
mod volumes_read_only;
mod without_reaper;
mod working_dir;
mod writes_stay_inside;

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// A behaviour.
pub(crate) struct Case {
    /// The file's name.
    pub(crate) name: &'static str,
    /// Runs things behind a wall, checks them, and gives what it saw for comparison.
    pub(crate) run: fn(Wall) -> Result<Vec<Seen>>,
    /// The walls that have it.
    pub(crate) walls: &'static [Wall],
}

macro_rules! cases {
    ($($name:ident $(on $walls:expr)?),* $(,)?) => {
        /// Every case.
        pub(crate) const ALL: &[Case] = &[$(Case {
            name: stringify!($name),
            run: $name::case,
            walls: walls!($($walls)?),
        }),*];
    };
}

macro_rules! walls {
    () => {
        &Wall::ALL
    };
    ($walls:expr) => {
        &$walls
    };
}

cases![
    arguments,
    background,
    bad_kernel on [Wall::Vm],
    capabilities,
    cgroups_shown,
    command_missing,
    damaged_kernel on [Wall::Vm],
    descriptors,
    devices,
    env_file,
    environment,
    exec,
    exec_many,
    exec_signals,
    exec_streams,
    exec_terminal,
    exit_status,
    file_owners,
    figures,
    first_kernel on [Wall::Vm],
    host_root,
    host_secrets,
    hostname,
    interrupted_group,
    kept,
    kept_lost,
    kept_stopped,
    kernels on [Wall::Vm],
    killed_by_signal,
    killed_moat,
    labels on [Wall::Container],
    landlock,
    large_environment,
    large_stdin,
    large_stdout,
    lost_vmm on [Wall::Vm],
    memory_limit,
    name_files,
    named_volumes,
    network,
    no_answer on [Wall::Vm],
    no_overlay on [Wall::Container],
    not_executable,
    paused,
    paused_ended,
    pids_limit,
    proc_and_sys,
    processes,
    processors,
    read_only,
    reader_leaves,
    rlimits,
    seccomp,
    seccomp_profile,
    shell_background,
    shm_size,
    signals_held,
    signals_passed_on,
    stdin_ends,
    stop_timeout,
    stopped_moat,
    stops_in_time,
    streams_apart,
    streams_in_order,
    temporary_files,
    terminal,
    terminal_signals,
    tmpfs,
    two_at_once,
    user,
    vmm_confined on [Wall::Vm],
    volumes,
    volumes_followed,
    volumes_read_only,
    without_reaper,
    working_dir,
    writes_stay_inside,
];
