//! A virtual machine: its memory, interrupt lines and doorbells.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VmFd};
use vm_memory::{GuestMemory, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::{CpuidLeaf, Error, raw};
use crate::boot::layout;

/// Which chips KVM emulates in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chips {
    /// PIC, I/O APIC, local APICs and PIT.
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
}

impl Vm {
    pub(super) fn new(kvm: &Kvm, memory: GuestMemoryMmap, chips: Chips) -> Result<Self, Error> {
        let fd = kvm.create_vm().map_err(|e| Error::ioctl("KVM_CREATE_VM", e))?;
        // Intel needs three pages of guest address space that the guest must not use.
        fd.set_tss_address(layout::KVM_TSS).map_err(|e| Error::ioctl("KVM_SET_TSS_ADDR", e))?;
        if chips == Chips::Full {
            fd.create_irq_chip().map_err(|e| Error::ioctl("KVM_CREATE_IRQCHIP", e))?;
            // With the dummy speaker port, kernels that calibrate by it don't exit to us.
            let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
            fd.create_pit2(pit).map_err(|e| Error::ioctl("KVM_CREATE_PIT2", e))?;
        }
        for (slot, region) in (0..).zip(memory.iter()) {
            raw::map_region(&fd, slot, region)?;
        }
        let supported_cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|e| Error::ioctl("KVM_GET_SUPPORTED_CPUID", e))?;
        let tsc_deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        Ok(Self { fd, memory, supported_cpuid, tsc_deadline })
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
        self.fd.register_irqfd(line, gsi).map_err(|e| Error::ioctl("KVM_IRQFD", e))
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
