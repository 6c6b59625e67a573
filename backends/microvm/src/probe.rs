//! Finds out by doing whether this host's KVM can run Linux.
//!
//! Some `/dev/kvm` answer every ioctl and yet can't: their guests' ring-0 code is interpreted,
//! CPUID shows the host's processor whatever was set, or SYSCALL stays in ring 3. So a tiny
//! hand-written guest is run, and what it sees is compared with what it must see.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};
use vmm_sys_util::signal::{Killable, SIGRTMIN};

use crate::boot::longmode;
use crate::hv::{self, CpuidLeaf, Entry, Exit, Hypervisor, LongMode, Vcpu, Vm};
use crate::{machine, memory};

/// The device.
pub const KVM: &str = "/dev/kvm";

/// Below this many ring-0 instructions a second, ring 0 is interpreted and not run. Measured:
/// 1.5 million interpreted, 560 to 1100 million in a machine that is itself emulated in software.
pub const MIN_RING0_SPEED: u64 = 50_000_000;

/// How long the speed is measured, and how long the rest may take.
const MEASURE: Duration = Duration::from_millis(20);
/// How often a guest that is merely slow is run again: on a machine that is itself virtual, and whose
/// host has much else to do, the time that the host takes away counts as the guest's.
const AGAIN: usize = 9;
/// Only a guest that hangs takes so long; others have their word within a millisecond, but for a
/// machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(2);

/// Why nothing at all could be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No device node: no KVM in this kernel, or not in this container.
    #[error("{} does not exist", path.display())]
    Absent {
        /// The device's path.
        path: PathBuf,
    },
    /// The device is for others.
    #[error("no permission to open {}", path.display())]
    Denied {
        /// The device's path.
        path: PathBuf,
    },
    /// The device can't be opened: most often the kernel module is not there.
    #[error("can't open {}", path.display())]
    Open {
        /// The device's path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// KVM refuses, or lacks something.
    #[error("KVM can't make a machine")]
    Hypervisor(#[from] hv::Error),
    /// The tiny guest's memory.
    #[error("can't make the guest's memory")]
    Memory(#[from] memory::Error),
    /// The tiny guest's code.
    #[error("can't write the guest's memory")]
    Write(#[from] GuestMemoryError),
    /// A thread, a clock or a signal handler.
    #[error("the host refused what the probe needs")]
    Host(#[from] io::Error),
}

/// What a KVM that answers can't do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Ring 0 is interpreted.
    #[error(
        "guest kernel code runs at {per_second} instructions a second, so it is interpreted \
         ({MIN_RING0_SPEED} is the least that makes sense)"
    )]
    Slow {
        /// Measured instructions per second.
        per_second: u64,
    },
    /// CPUID is not what was set.
    #[error("the guest's CPUID shows the host's processor and not what was set")]
    Cpuid,
    /// SYSCALL does not reach ring 0.
    #[error("SYSCALL from guest user code does not reach ring 0")]
    Syscall,
    /// The tiny guest did not do what it must.
    #[error("a guest of a few instructions failed: {reason}")]
    Guest {
        /// What it did instead.
        reason: String,
    },
}

/// What a tiny guest found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvmReport {
    /// Instructions per second in ring 0; `None` if the guest never came so far.
    pub ring0_speed: Option<u64>,
    /// All that keeps Linux from running; empty if nothing does.
    pub faults: Vec<Fault>,
}

impl KvmReport {
    /// True if Linux guests run.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.faults.is_empty()
    }

    /// True if the time it took is all that is wrong.
    fn merely_slow(&self) -> bool {
        matches!(self.faults.as_slice(), [Fault::Slow { .. }])
    }
}

/// Opens `/dev/kvm` and runs the tiny guest. Ends within about 20 s, whatever the guest does;
/// one that hangs, within 2 s.
/// Uses the process's first real-time signal.
///
/// # Errors
/// When there is no KVM to be asked, or it refuses to make a machine.
pub fn probe() -> Result<KvmReport, Error> {
    probe_kvm(open(Path::new(KVM))?)
}

/// Opens a KVM device.
///
/// # Errors
/// Says whether it is absent, for others, or broken.
pub fn open(path: &Path) -> Result<OwnedFd, Error> {
    let path = path.to_owned();
    match File::options().read(true).write(true).open(&path) {
        Ok(file) => Ok(file.into()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => Error::Absent { path },
            io::ErrorKind::PermissionDenied => Error::Denied { path },
            _ => Error::Open { path, source: error },
        }),
    }
}

/// Runs the tiny guest on an open `/dev/kvm`.
///
/// # Errors
/// When KVM refuses to make a machine.
pub fn probe_kvm(kvm: OwnedFd) -> Result<KvmReport, Error> {
    machine::install_kick_handler()?;
    let mut report = probe_once(kvm.try_clone()?)?;
    for _ in 0..AGAIN {
        if !report.merely_slow() {
            break;
        }
        report = probe_once(kvm.try_clone()?)?;
    }
    Ok(report)
}

fn probe_once(kvm: OwnedFd) -> Result<KvmReport, Error> {
    let guest = Guest::new(kvm)?;
    let kicker = guest.vcpu.kicker()?;
    let (sender, findings) = mpsc::channel();
    let thread = thread::Builder::new().name("probe".into()).spawn(move || guest.run(&sender))?;
    let mut report = KvmReport { ring0_speed: None, faults: Vec::new() };
    let mut left = LIMIT;
    let hung = loop {
        match findings.recv_timeout(left) {
            Ok(Finding::Fault(fault)) => report.faults.push(fault),
            // From here on the guest runs until it is kicked.
            Ok(Finding::Counting) => left = MEASURE,
            Ok(Finding::Speed(_)) | Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break left == LIMIT,
        }
    };
    kicker.kick();
    // Fails only for a thread that has ended.
    let _ = thread.kill(SIGRTMIN());
    for finding in findings {
        match finding {
            Finding::Fault(fault) => report.faults.push(fault),
            Finding::Speed(per_second) => report.ring0_speed = Some(per_second),
            Finding::Counting => {}
        }
    }
    if hung {
        report.faults.push(Fault::Guest { reason: "it hangs".into() });
    }
    if thread.join().is_err() {
        report.faults.push(Fault::Guest { reason: "its thread panicked".into() });
    }
    match report.ring0_speed {
        Some(per_second) if per_second < MIN_RING0_SPEED => {
            report.faults.push(Fault::Slow { per_second });
        }
        _ => {}
    }
    Ok(report)
}

/// What the guest's thread has to say.
enum Finding {
    Fault(Fault),
    Counting,
    Speed(u64),
}

/// Where the guest's code and findings lie.
const CODE: u64 = 0x1_0000;
const USER: u64 = 0x1_1000;
const SYSCALL: u64 = 0x1_2000;
const COUNT: u64 = 0x1_3000;
const FOUND: u64 = 0x2_0000;
const FOUND_IN_USER: u64 = 0x2_0080;
const FOUND_CS: u64 = 0x2_0100;
const MEMORY: u64 = 2 << 20;

/// Code that reads CPUID leaf 0x4000_0000 (EBX, ECX, EDX) and leaf 1 (ECX) into `found`.
fn read_cpuid(found: u64) -> Vec<u8> {
    let [a, b, c, d, ..] = found.to_le_bytes();
    vec![
        0xb8, 0x00, 0x00, 0x00, 0x40, // mov eax, 0x40000000
        0x0f, 0xa2, // cpuid
        0xbf, a, b, c, d, // mov edi, found
        0x89, 0x1f, // mov [rdi], ebx
        0x89, 0x4f, 0x04, // mov [rdi+4], ecx
        0x89, 0x57, 0x08, // mov [rdi+8], edx
        0xb8, 0x01, 0x00, 0x00, 0x00, // mov eax, 1
        0x0f, 0xa2, // cpuid
        0x89, 0x4f, 0x0c, // mov [rdi+12], ecx
    ]
}

/// Halts, in ring 0.
const HALT: [u8; 1] = [0xf4]; // hlt
/// Leaves ring 3.
const CALL: [u8; 2] = [0x0f, 0x05]; // syscall
/// Where it must arrive in ring 0, since only there `hlt` halts.
const ARRIVE: [u8; 10] = [
    0x8c, 0xc8, // mov eax, cs
    0xbf, 0x00, 0x01, 0x02, 0x00, // mov edi, FOUND_CS
    0x89, 0x07, // mov [rdi], eax
    0xf4, // hlt
];
/// Counts in RCX, two instructions a round, without end.
const COUNT_CODE: [u8; 7] = [
    0x31, 0xc9, // xor ecx, ecx
    0x48, 0xff, 0xc1, // inc rcx
    0xeb, 0xfb, // jmp to inc
];
const INSTRUCTIONS_A_ROUND: u64 = 2;

/// No hypervisor's signature.
const SIGNATURE: [u32; 3] = [0x7461_6f6d, 0x626f_7270, 0x2121_2165];
/// A bit of leaf 1's ECX that is shown inverted: SSE4.2, which the guest does not use.
const INVERTED: u32 = 1 << 20;

struct Guest {
    vcpu: Vcpu,
    memory: GuestMemoryMmap,
    cr3: u64,
    leaf1_ecx: u32,
    /// The vCPU's machine.
    _vm: Vm,
}

impl Guest {
    fn new(kvm: OwnedFd) -> Result<Self, Error> {
        let hypervisor = Hypervisor::new(kvm)?;
        let memory = memory::create_small(MEMORY)?;
        let cr3 = longmode::write_tables(&memory, longmode::Access::User)?;
        for (at, code) in [
            (CODE, [read_cpuid(FOUND).as_slice(), &HALT].concat().as_slice()),
            (USER, [read_cpuid(FOUND_IN_USER).as_slice(), &CALL].concat().as_slice()),
            (SYSCALL, &ARRIVE),
            (COUNT, &COUNT_CODE),
        ] {
            memory.write_slice(code, GuestAddress(at))?;
        }
        let vm = hypervisor.create_bare_vm(memory.clone())?;
        let mut leaf1 = vm.supported_leaf(1);
        leaf1.registers[2] ^= INVERTED;
        let [ebx, ecx, edx] = SIGNATURE;
        let signature =
            CpuidLeaf { function: 0x4000_0000, registers: [0x4000_0000, ebx, ecx, edx] };
        let vcpu = Vcpu::new(&vm, 0, 1, &[leaf1, signature])?;
        Ok(Self { vcpu, memory, cr3, leaf1_ecx: leaf1.registers[2], _vm: vm })
    }

    fn run(mut self, findings: &Sender<Finding>) {
        // The receiver lives until this thread has ended.
        let tell = |finding| {
            let _ = findings.send(finding);
        };
        let mut faults = Vec::new();
        let result = self.check(&mut faults);
        faults.into_iter().for_each(|fault| tell(Finding::Fault(fault)));
        tell(Finding::Counting);
        match result.and_then(|()| self.count()) {
            Ok(per_second) => tell(Finding::Speed(per_second)),
            Err(reason) => tell(Finding::Fault(Fault::Guest { reason })),
        }
    }

    fn enter(&self, rip: u64, user_with_syscall_at: Option<u64>) -> Result<(), String> {
        let long = LongMode { rip, cr3: self.cr3, user_with_syscall_at, ..Default::default() };
        self.vcpu.enter(Entry::Long(long)).map_err(|error| error.to_string())
    }

    /// In ring 0, then in ring 3, which some hypervisors run in different ways.
    fn check(&mut self, faults: &mut Vec<Fault>) -> Result<(), String> {
        self.enter(CODE, None)?;
        match self.vcpu.run() {
            Exit::Halt => {}
            other => return Err(format!("{other:?} instead of a halt")),
        }
        self.enter(USER, Some(SYSCALL))?;
        let halted = matches!(self.vcpu.run(), Exit::Halt);
        if !self.cpuid_is_ours(FOUND)? || !self.cpuid_is_ours(FOUND_IN_USER)? {
            faults.push(Fault::Cpuid);
        }
        let cs: u32 = self.found(FOUND_CS)?;
        if !halted || cs & 3 != 0 {
            faults.push(Fault::Syscall);
        }
        Ok(())
    }

    fn found<T: ByteValued>(&self, at: u64) -> Result<T, String> {
        self.memory.read_obj(GuestAddress(at)).map_err(|error| error.to_string())
    }

    fn cpuid_is_ours(&self, at: u64) -> Result<bool, String> {
        let [ebx, ecx, edx, leaf1_ecx]: [u32; 4] = self.found(at)?;
        Ok([ebx, ecx, edx] == SIGNATURE && (leaf1_ecx ^ self.leaf1_ecx) & INVERTED == 0)
    }

    fn count(&mut self) -> Result<u64, String> {
        self.enter(COUNT, None)?;
        // The thread's own time, so that a busy host does not make a slow guest.
        let clock = ClockId::CLOCK_THREAD_CPUTIME_ID;
        let started = clock_gettime(clock).map_err(|error| error.to_string())?;
        match self.vcpu.run() {
            Exit::Kicked => {}
            other => return Err(format!("{other:?} instead of counting")),
        }
        let ended = clock_gettime(clock).map_err(|error| error.to_string())?;
        let spent = Duration::from(ended).saturating_sub(started.into()).as_nanos().max(1);
        let rounds = self.vcpu.rcx().map_err(|error| error.to_string())?;
        let instructions = u128::from(rounds) * u128::from(INSTRUCTIONS_A_ROUND);
        Ok(u64::try_from(instructions * 1_000_000_000 / spent).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn each_way_of_having_no_kvm_has_its_own_error() {
        let dir = tempfile::tempdir().unwrap();
        let absent = open(&dir.path().join("kvm"));
        assert!(matches!(absent, Err(Error::Absent { .. })));
        let null = probe_kvm(open(Path::new("/dev/null")).unwrap());
        assert!(matches!(null, Err(Error::Hypervisor(hv::Error::NotKvm))));
    }

    #[test]
    fn only_what_is_wrong_with_time_alone_may_pass() {
        let slow = Fault::Slow { per_second: 11_000_000 };
        let report = |faults| KvmReport { ring0_speed: Some(11_000_000), faults };
        assert!(report(vec![slow.clone()]).merely_slow());
        assert!(!report(vec![]).merely_slow());
        assert!(!report(vec![slow, Fault::Cpuid]).merely_slow());
        assert!(!report(vec![Fault::Syscall]).merely_slow());
    }

    #[test]
    fn the_probe_ends_in_time_and_finds_a_speed_or_a_fault() {
        if !Path::new(KVM).exists() {
            println!("skipped: no {KVM} on this machine");
            return;
        }
        let started = Instant::now();
        let report = probe().unwrap();
        println!("{report:?} in {} ms", started.elapsed().as_millis());
        assert!(started.elapsed() < 10 * LIMIT, "{:?}", started.elapsed());
        assert!(report.ring0_speed.is_some() || !report.usable());
    }
}
