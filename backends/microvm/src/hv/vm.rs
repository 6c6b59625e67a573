//! A virtual machine: its memory, interrupt lines and doorbells.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kvm_bindings::{
    CpuId, KVM_CAP_PMU_CAPABILITY, KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY,
    KVM_PMU_CAP_DISABLE, kvm_enable_cap, kvm_pit_config,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VmFd};
use vm_memory::{GuestMemory, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::{CpuidLeaf, Error, raw};
use crate::boot::layout;

/// Which chips KVM emulates in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chips {
    /// PIC, I/O APIC and local APICs; a PIT where the local APICs have no deadline timer.
    Full,
    /// None.
    None,
}

/// A virtual machine.
#[derive(Debug)]
pub struct Vm {
    pub(super) fd: VmFd,
    /// Keeps the guest's memory mapped as long as KVM can write to it.
    pub(super) memory: GuestMemoryMmap,
    pub(super) supported_cpuid: CpuId,
    pub(super) tsc_deadline: bool,
    /// Interrupt lines that KVM listens to.
    lines: Mutex<Vec<(EventFd, u32)>>,
}

/// The kernel answers a wait for readers of a table at once, unless another was answered less than
/// 25 us ago (`srcutree.exp_holdoff` in Linux Documentation/admin-guide/kernel-parameters.txt): then
/// it takes 12 ms or more.
const HOLD_OFF: Duration = Duration::from_micros(30);

impl Vm {
    pub(super) fn new(kvm: &Kvm, memory: GuestMemoryMmap, chips: Chips) -> Result<Self, Error> {
        let fd = kvm.create_vm().map_err(|e| Error::ioctl("KVM_CREATE_VM", e))?;
        let tsc_deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        // Intel needs three pages of guest address space that the guest must not use.
        fd.set_tss_address(layout::KVM_TSS).map_err(|e| Error::ioctl("KVM_SET_TSS_ADDR", e))?;
        without_counters(&fd)?;
        if chips == Chips::Full {
            fd.create_irq_chip().map_err(|e| Error::ioctl("KVM_CREATE_IRQCHIP", e))?;
            // A kernel that has the deadline timer and KVM's clock never asks the PIT (Linux
            // arch/x86/kernel/apic/apic.c, apic_needs_pit), and taking one apart takes 16 ms.
            if !tsc_deadline {
                // With the dummy speaker port, kernels that calibrate by it don't exit to us.
                let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
                fd.create_pit2(pit).map_err(|e| Error::ioctl("KVM_CREATE_PIT2", e))?;
            }
        }
        for (slot, region) in (0..).zip(memory.iter()) {
            raw::map_region(&fd, slot, region)?;
        }
        let supported_cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|e| Error::ioctl("KVM_GET_SUPPORTED_CPUID", e))?;
        Ok(Self { fd, memory, supported_cpuid, tsc_deadline, lines: Mutex::default() })
    }

    /// What KVM supports of a CPUID leaf; all zero if nothing.
    #[must_use]
    pub fn supported_leaf(&self, function: u32) -> CpuidLeaf {
        let leaf = self.supported_cpuid.as_slice().iter().find(|leaf| leaf.function == function);
        let registers = leaf.map_or([0; 4], |leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
        CpuidLeaf { function, registers }
    }

    /// Writing `line` raises (edge) the interrupt `gsi`.
    ///
    /// # Errors
    /// When KVM refuses it.
    pub fn connect_interrupt(&self, line: &EventFd, gsi: u32) -> Result<(), Error> {
        let refused = |source| Error::Ioctl { request: "KVM_IRQFD", source };
        let copy = line.try_clone().map_err(refused)?;
        self.fd.register_irqfd(line, gsi).map_err(|e| Error::ioctl("KVM_IRQFD", e))?;
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push((copy, gsi));
        Ok(())
    }

    /// Takes all interrupt lines off, one by one. The kernel would do so too when the process ends,
    /// but all at once, and that takes it a hundred times as long.
    pub fn disconnect_interrupts(&self) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for (line, gsi) in lines.drain(..) {
            // Fails only for a line that is off already.
            let _ = self.fd.unregister_irqfd(&line, gsi);
            std::thread::sleep(HOLD_OFF);
        }
    }

    /// A 4-byte guest write of `value` to `address` signals `bell`, without an exit.
    ///
    /// # Errors
    /// When KVM refuses it.
    pub fn connect_doorbell(&self, bell: &EventFd, address: u64, value: u32) -> Result<(), Error> {
        self.fd
            .register_ioevent(bell, &IoEventAddress::Mmio(address), value)
            .map_err(|e| Error::ioctl("KVM_IOEVENTFD", e))
    }
}

/// No performance counters: CPUID says so, but AMD's first four KVM has whatever CPUID says (Linux
/// Documentation/virt/kvm/api.rst, KVM_CAP_PMU_CAPABILITY). A KVM too old for this keeps them.
fn without_counters(fd: &VmFd) -> Result<(), Error> {
    let offered = fd.check_extension_raw(KVM_CAP_PMU_CAPABILITY.into());
    let disable = KVM_PMU_CAP_DISABLE;
    if !u32::try_from(offered).is_ok_and(|offered| offered & disable != 0) {
        return Ok(());
    }
    let mut cap = kvm_enable_cap { cap: KVM_CAP_PMU_CAPABILITY, ..Default::default() };
    cap.args[0] = disable.into();
    fd.enable_cap(&cap).map_err(|e| Error::ioctl("KVM_ENABLE_CAP of KVM_CAP_PMU_CAPABILITY", e))
}
