//! What holds where a spec says nothing, and how far it may go.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Bytes, Cpus, Resources, Signal};

/// What a workload may use.
pub const DEFAULT_RESOURCES: Resources =
    Resources { cpus: Cpus::from_milli(1000), memory: Bytes::mib(512), pids: 512 };

/// How large /dev/shm is: as large as the common container runtimes make it.
pub const DEFAULT_SHM_SIZE: Bytes = Bytes::mib(64);

/// What asks a workload to end.
pub const DEFAULT_STOP_SIGNAL: Signal = Signal::TERM;

/// How long a workload has between its stop signal and SIGKILL.
pub const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Where commands are looked for.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The largest spec or environment file, in bytes.
pub const FILE_LIMIT: usize = 1 << 20;

/// `resources.cpus`.
pub const CPUS: RangeInclusive<Cpus> = Cpus::from_milli(10)..=Cpus::from_milli(256_000);

/// `resources.memory`: from what a kernel with its workload needs at least to what x86-64 can
/// address with four levels of page tables.
pub const MEMORY: RangeInclusive<Bytes> = Bytes::mib(16)..=Bytes::gib(64 << 10);

/// `resources.pids`, up to the kernel's own `PID_MAX_LIMIT` (proc_sys_kernel(5)).
pub const PIDS: RangeInclusive<u32> = 1..=4_194_304;

/// `shm_size`: from a page, the least that a tmpfs can hold.
pub const SHM_SIZE: RangeInclusive<Bytes> = Bytes::kib(4)..=*MEMORY.end();

/// `container.swap`.
pub const SWAP: RangeInclusive<Bytes> = Bytes::new(0)..=*MEMORY.end();

/// `container.io_weight`, as `io.weight` of cgroup v2.
pub const IO_WEIGHT: RangeInclusive<u16> = 1..=10_000;

/// `read_bps` and `write_bps`.
pub const IO_BPS: RangeInclusive<Bytes> = Bytes::new(1)..=*MEMORY.end();

/// `read_iops` and `write_iops`, of which the kernel keeps 32 bits.
pub const IOPS: RangeInclusive<u64> = 1..=0xffff_ffff;

/// `vm.vcpus`.
pub const VCPUS: RangeInclusive<u8> = 1..=32;

/// The most bytes of one argument or environment entry with its NUL: `MAX_ARG_STRLEN` (execve(2)).
pub const ARGUMENT_LIMIT: usize = 128 << 10;

/// The most bytes of all arguments and environment entries together: less than the 6 MiB to which
/// the kernel limits them however large the stack may grow (execve(2)).
pub const ARGUMENTS_LIMIT: usize = 4 << 20;
