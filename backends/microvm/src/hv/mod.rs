//! The hypervisor, in moat's own words. Nothing outside this directory knows KVM.
//!
//! `Hypervisor` (an open /dev/kvm) makes a `Vm` (memory, interrupt lines, doorbells), which makes
//! `Vcpu`s. A vCPU is run by one thread, and stopped from another through its `Kicker`.

mod cpuid;
mod raw;
#[cfg(test)]
mod tests;
mod vcpu;
mod vm;

use std::io;
use std::os::fd::OwnedFd;

use kvm_ioctls::{Cap, Kvm};
use vm_memory::GuestMemoryMmap;

pub use cpuid::CpuidLeaf;
pub use vcpu::{Entry, Kicker, LongMode, Vcpu};
pub use vm::Vm;

/// The only KVM API version there is (Linux Documentation/virt/kvm/api.rst, 4.1).
const API_VERSION: i32 = 12;

/// What KVM must offer for a Linux guest, as moat builds its machine.
const NEEDED: [(Cap, &str); 9] = [
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// What can go wrong between moat and KVM.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptor answers no KVM ioctl.
    #[error("the descriptor is not a KVM device")]
    NotKvm,
    /// KVM speaks another API version than 12.
    #[error("KVM has API version {found}, and moat needs {API_VERSION}")]
    ApiVersion {
        /// The version it reported.
        found: i32,
    },
    /// A capability that moat's machine is built on is missing.
    #[error("KVM lacks {capability}")]
    Capability {
        /// Its name in the kernel's headers.
        capability: &'static str,
    },
    /// A guest memory region has no host mapping.
    #[error("the guest memory of slot {slot} at {address:#x} has no host mapping")]
    Memory {
        /// KVM's slot number.
        slot: u32,
        /// The region's guest physical address.
        address: u64,
    },
    /// CPUID has more leaves than KVM takes.
    #[error("{leaves} CPUID leaves are more than KVM takes")]
    Cpuid {
        /// The number of leaves.
        leaves: usize,
    },
    /// KVM refused a request.
    #[error("{request} failed")]
    Ioctl {
        /// The request's name in the kernel's headers.
        request: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    fn ioctl(request: &'static str, source: kvm_ioctls::Error) -> Self {
        Self::Ioctl { request, source: io::Error::from_raw_os_error(source.errno()) }
    }
}

/// Why a vCPU stopped running guest code.
#[derive(Debug)]
pub enum Exit<'a> {
    /// The guest wrote to an I/O port. More bytes than an access has mean a string instruction.
    PortOut {
        /// The port.
        port: u16,
        /// What it wrote.
        data: &'a [u8],
    },
    /// The guest reads an I/O port; `data` is to be filled before the next run.
    PortIn {
        /// The port.
        port: u16,
        /// What it will read.
        data: &'a mut [u8],
    },
    /// The guest wrote where no memory is.
    MmioWrite {
        /// Guest physical address.
        address: u64,
        /// What it wrote, 1 to 8 bytes.
        data: &'a [u8],
    },
    /// The guest reads where no memory is; `data` is to be filled before the next run.
    MmioRead {
        /// Guest physical address.
        address: u64,
        /// What it will read, 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// The guest halted, and KVM leaves waiting for an interrupt to us.
    Halt,
    /// Triple fault.
    Shutdown,
    /// A signal or a `Kicker` ended the run.
    Kicked,
    /// KVM can't go on with this vCPU.
    Failed {
        /// What KVM said.
        reason: String,
    },
}

/// An open `/dev/kvm` of API version 12 with all that moat needs.
#[derive(Debug)]
pub struct Hypervisor {
    kvm: Kvm,
}

impl Hypervisor {
    /// Takes over an open `/dev/kvm`, and checks what it can do.
    ///
    /// # Errors
    /// When it is not KVM, not API version 12, or lacks a capability.
    pub fn new(kvm: OwnedFd) -> Result<Self, Error> {
        let kvm = raw::adopt(kvm);
        match kvm.get_api_version() {
            API_VERSION => {}
            found if found < 0 => return Err(Error::NotKvm),
            found => return Err(Error::ApiVersion { found }),
        }
        for (capability, name) in NEEDED {
            if !kvm.check_extension(capability) {
                return Err(Error::Capability { capability: name });
            }
        }
        Ok(Self { kvm })
    }

    /// Makes a machine of `memory`, with in-kernel interrupt controllers and timer.
    ///
    /// # Errors
    /// When KVM refuses any of it.
    pub fn create_vm(&self, memory: GuestMemoryMmap) -> Result<Vm, Error> {
        Vm::new(&self.kvm, memory, vm::Chips::Full)
    }

    /// Makes a machine of `memory` and nothing else: halts come back as [`Exit::Halt`].
    ///
    /// # Errors
    /// When KVM refuses any of it.
    pub fn create_bare_vm(&self, memory: GuestMemoryMmap) -> Result<Vm, Error> {
        Vm::new(&self.kvm, memory, vm::Chips::None)
    }
}
