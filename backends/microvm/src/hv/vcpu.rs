//! A virtual CPU: the state it starts in, running it, and stopping it from another thread.

use std::io;

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_UNINITIALIZED, Msrs,
    kvm_msr_entry, kvm_regs, kvm_segment,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_memory::GuestMemoryMmap;

use super::cpuid::{self, CpuidLeaf};
use super::raw::RunPage;
use super::{Error, Exit, Vm};

/// Control register and EFER bits (Intel SDM volume 3A, 2.5 and 2.2.1).
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_SCE: u64 = 1;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS is always set.
const RFLAGS: u64 = 1 << 1;
/// Interrupts are taken.
const RFLAGS_IF: u64 = 1 << 9;

/// MSRs set before a kernel's first instruction (Intel SDM volume 4).
const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, all memory write-back.
const MTRR_WRITE_BACK: u64 = (1 << 11) | 6;
const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_SYSCALL_MASK: u32 = 0xc000_0084;

/// How and where a vCPU begins.
#[derive(Debug, Clone, Copy)]
pub enum Entry {
    /// 16-bit real mode with all segments at 0. Only for hand-written guests.
    Real {
        /// Instruction pointer.
        ip: u16,
    },
    /// 32-bit, paging off: PVH (Xen's docs/misc/pvh.pandoc).
    Protected {
        /// Instruction pointer.
        eip: u32,
        /// Address of the start info.
        ebx: u32,
    },
    /// 64-bit, paging on (Linux Documentation/arch/x86/boot.rst, 64-bit boot protocol).
    Long(LongMode),
}

/// A 64-bit start.
#[derive(Debug, Clone, Copy, Default)]
pub struct LongMode {
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Address of the boot parameters.
    pub rsi: u64,
    /// Top of the page tables.
    pub cr3: u64,
    /// Base and limit of the segment descriptor table.
    pub gdt: (u64, u16),
    /// Starts in ring 3, and lets SYSCALL enter ring 0 at this address.
    pub user_with_syscall_at: Option<u64>,
}

/// A virtual CPU. Run it in one thread only.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    /// Guest code runs as long as this lives, so the memory must too.
    _memory: GuestMemoryMmap,
}

/// Stops a vCPU from another thread. The other half is a signal to the thread that runs it.
#[derive(Debug)]
pub struct Kicker(RunPage);

impl Kicker {
    /// Makes the vCPU's next run return [`Exit::Kicked`] at once, now and for ever. A run that is
    /// under way ends when its thread gets a signal that has a handler.
    pub fn kick(&self) {
        self.0.request_exit();
    }
}

impl Vcpu {
    /// Makes vCPU `id` of `count`, with `replace` standing in for CPUID leaves of KVM's.
    ///
    /// # Errors
    /// When KVM refuses any of it.
    pub fn new(vm: &Vm, id: u8, count: u8, replace: &[CpuidLeaf]) -> Result<Self, Error> {
        let fd =
            vm.fd.create_vcpu(u64::from(id)).map_err(|e| Error::ioctl("KVM_CREATE_VCPU", e))?;
        let cpuid = cpuid::for_vcpu(&vm.supported_cpuid, id, count, vm.tsc_deadline, replace)?;
        fd.set_cpuid2(&cpuid).map_err(|e| Error::ioctl("KVM_SET_CPUID2", e))?;
        let vcpu = Self { fd, _memory: vm.memory.clone() };
        vcpu.set_msr(MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING)?;
        vcpu.set_msr(MSR_MTRR_DEF_TYPE, MTRR_WRITE_BACK)?;
        Ok(vcpu)
    }

    /// A handle to stop this vCPU from another thread.
    ///
    /// # Errors
    /// When its run page can't be mapped a second time.
    pub fn kicker(&self) -> Result<Kicker, Error> {
        let page = RunPage::map(&self.fd);
        page.map(Kicker).map_err(|source| Error::Ioctl { request: "mmap of kvm_run", source })
    }

    fn set_msr(&self, index: u32, data: u64) -> Result<(), Error> {
        let entry = kvm_msr_entry { index, data, ..Default::default() };
        let refused = || Error::Ioctl {
            request: "KVM_SET_MSRS",
            source: io::Error::from_raw_os_error(libc::EINVAL),
        };
        let msrs = Msrs::from_entries(&[entry]).map_err(|_| refused())?;
        match self.fd.set_msrs(&msrs).map_err(|e| Error::ioctl("KVM_SET_MSRS", e))? {
            1 => Ok(()),
            _ => Err(refused()),
        }
    }

    /// Puts the vCPU at `entry`. The others of a machine wait for their start-up interrupt.
    ///
    /// # Errors
    /// When KVM refuses the state.
    pub fn enter(&self, entry: Entry) -> Result<(), Error> {
        let mut sregs = self.fd.get_sregs().map_err(|e| Error::ioctl("KVM_GET_SREGS", e))?;
        let mut regs = kvm_regs { rflags: RFLAGS, ..Default::default() };
        match entry {
            Entry::Real { ip } => {
                (sregs.cs.base, sregs.cs.selector) = (0, 0);
                regs.rip = u64::from(ip);
            }
            Entry::Protected { eip, ebx } => {
                set_flat(&mut sregs, 0, false);
                sregs.cr0 = CR0_PE | CR0_ET;
                sregs.cr4 = 0;
                sregs.efer = 0;
                regs.rip = u64::from(eip);
                regs.rbx = u64::from(ebx);
            }
            Entry::Long(long) => {
                let ring = if long.user_with_syscall_at.is_some() { 3 } else { 0 };
                set_flat(&mut sregs, ring, true);
                (sregs.gdt.base, sregs.gdt.limit) = long.gdt;
                sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
                sregs.cr3 = long.cr3;
                sregs.cr4 = CR4_PAE;
                sregs.efer = EFER_LME | EFER_LMA;
                if let Some(target) = long.user_with_syscall_at {
                    sregs.efer |= EFER_SCE;
                    // SYSCALL loads CS from bits 32..48 and SS from the next descriptor.
                    self.set_msr(MSR_STAR, 0x10 << 32)?;
                    self.set_msr(MSR_LSTAR, target)?;
                    self.set_msr(MSR_SYSCALL_MASK, 0)?;
                }
                regs.rip = long.rip;
                regs.rsp = long.rsp;
                regs.rbp = long.rsp;
                regs.rsi = long.rsi;
            }
        }
        self.fd.set_sregs(&sregs).map_err(|e| Error::ioctl("KVM_SET_SREGS", e))?;
        self.fd.set_regs(&regs).map_err(|e| Error::ioctl("KVM_SET_REGS", e))
    }

    /// Where the vCPU is, for a report of why it stopped: instruction pointer and privilege level.
    #[must_use]
    pub fn position(&self) -> Option<(u64, u8)> {
        let regs = self.fd.get_regs().ok()?;
        let sregs = self.fd.get_sregs().ok()?;
        Some((regs.rip, sregs.ss.dpl))
    }

    /// Whether nothing that the guest itself does can make this vCPU go on: it has halted with
    /// interrupts off, or was never started. (Another vCPU could still start it.)
    #[must_use]
    pub fn stands_still(&self) -> bool {
        let Ok(state) = self.fd.get_mp_state() else { return false };
        match state.mp_state {
            KVM_MP_STATE_HALTED => {
                self.fd.get_regs().is_ok_and(|regs| regs.rflags & RFLAGS_IF == 0)
            }
            KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED => true,
            _ => false,
        }
    }

    /// Register RCX, in which a counting guest counts.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn rcx(&self) -> Result<u64, Error> {
        Ok(self.fd.get_regs().map_err(|e| Error::ioctl("KVM_GET_REGS", e))?.rcx)
    }

    /// Tells the guest that it may just have stood still through no fault of its own, so that its
    /// watchdogs do not complain (`KVM_KVMCLOCK_CTRL`, Linux Documentation/virt/kvm/api.rst).
    pub fn excuse(&self) {
        // `EINVAL` of a guest that does not use kvmclock: it can't be told, and need not be.
        let _ = self.fd.kvmclock_ctrl();
    }

    /// Has KVM do what it puts off until a vCPU runs for the first time, without running any guest
    /// code: from Linux 6.14 on it makes a thread of this process then, which takes huge pages
    /// apart. To be called before this process may make no more threads, and before another thread
    /// can kick this vCPU.
    ///
    /// # Errors
    /// When KVM refuses: `EAGAIN` when this process may make no thread.
    pub fn prepare(&mut self) -> Result<(), Error> {
        self.fd.set_kvm_immediate_exit(1);
        let done = match self.fd.run() {
            Err(error) if error.errno() != libc::EINTR => Err(Error::ioctl("KVM_RUN", error)),
            // As asked: it went no further than where it would have entered the guest.
            _ => Ok(()),
        };
        self.fd.set_kvm_immediate_exit(0);
        done
    }

    /// Runs guest code until it needs something.
    pub fn run(&mut self) -> Exit<'_> {
        match self.fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => Exit::PortOut { port, data },
            Ok(VcpuExit::IoIn(port, data)) => Exit::PortIn { port, data },
            Ok(VcpuExit::MmioWrite(address, data)) => Exit::MmioWrite { address, data },
            Ok(VcpuExit::MmioRead(address, data)) => Exit::MmioRead { address, data },
            Ok(VcpuExit::Hlt) => Exit::Halt,
            Ok(VcpuExit::Shutdown) => Exit::Shutdown,
            Ok(VcpuExit::Intr) => Exit::Kicked,
            Ok(VcpuExit::FailEntry(reason, cpu)) => Exit::Failed {
                reason: format!("the processor refused entry, reason {reason:#x} on CPU {cpu}"),
            },
            Ok(VcpuExit::InternalError) => Exit::Failed {
                reason: "KVM_EXIT_INTERNAL_ERROR: it can't emulate the guest".into(),
            },
            Ok(other) => Exit::Failed { reason: format!("unexpected exit {other:?}") },
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Exit::Kicked,
            Err(error) => Exit::Failed {
                reason: format!("KVM_RUN: {}", io::Error::from_raw_os_error(error.errno())),
            },
        }
    }
}

/// Flat segments: Linux's __BOOT_CS 0x10 and __BOOT_DS 0x18, and a task register, which x86 wants.
fn set_flat(sregs: &mut kvm_bindings::kvm_sregs, ring: u8, long: bool) {
    let flat = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        present: 1,
        dpl: ring,
        s: 1,
        g: 1,
        ..Default::default()
    };
    // Types of the descriptor: 11 = code, execute and read, accessed; 3 = data, writable, accessed.
    sregs.cs = kvm_segment {
        selector: 0x10 | u16::from(ring),
        type_: 11,
        l: u8::from(long),
        db: u8::from(!long),
        ..flat
    };
    let data = kvm_segment { selector: 0x18 | u16::from(ring), type_: 3, db: 1, ..flat };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment { base: 0, limit: 0x67, type_: 11, present: 1, ..Default::default() };
}
