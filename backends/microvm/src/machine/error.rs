//! Why a machine could not be made, and what the user can do about it.

use std::io;

use moat_core::diagnose::{Code, Fault};

use super::{MAX_DEVICES, MAX_VCPUS};
use crate::devices::virtio::Broken;
use crate::jail::Refused;
use crate::{boot, hv, memory};

/// Why a machine could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not 1 to 32 vCPUs.
    #[error("a machine has 1 to {MAX_VCPUS} vCPUs, and {vcpus} were asked for")]
    Vcpus {
        /// What was asked for.
        vcpus: u8,
    },
    /// More devices than interrupts.
    #[error("a machine has at most {MAX_DEVICES} virtio devices, and {devices} were asked for")]
    Devices {
        /// What was asked for.
        devices: usize,
    },
    /// The guest's memory.
    #[error("can't make the guest's memory")]
    Memory(#[from] memory::Error),
    /// KVM.
    #[error("can't make the virtual machine")]
    Hypervisor(#[from] hv::Error),
    /// Kernel, initramfs or command line.
    #[error("can't load the guest")]
    Boot(#[from] boot::Error),
    /// ACPI or MP tables.
    #[error("can't write the machine's description into guest memory")]
    Tables(#[from] vm_memory::GuestMemoryError),
    /// A device.
    #[error("can't make the device {device}")]
    Device {
        /// Its name.
        device: &'static str,
        /// The reason.
        source: Broken,
    },
    /// An event descriptor, a thread, or a signal handler.
    #[error("the host refused what the machine needs to run")]
    Host(#[from] io::Error),
    /// The confinement of a thread.
    #[error("can't confine the machine's threads")]
    Confine(#[from] Refused),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let (code, what, hint) = match &error {
            Error::Vcpus { .. }
            | Error::Devices { .. }
            | Error::Memory(memory::Error::Size { .. }) => {
                (Code::Usage, "there is no such machine", "ask for one within these bounds")
            }
            Error::Memory(memory::Error::Map { .. }) => (
                Code::Microvm,
                "the micro-VM can't be made",
                "ask for less memory, or raise the limit: `ulimit -v` says what it is",
            ),
            Error::Boot(source) => (Code::Kernel, "the guest can't be booted", boot_hint(source)),
            Error::Confine(_) => (
                Code::Unavailable,
                "the micro-VM can't be confined",
                "use a kernel with CONFIG_SECCOMP_FILTER",
            ),
            Error::Hypervisor(_) => (
                Code::Unavailable,
                "micro-VMs can't run here",
                "`moat doctor` says what this KVM lacks",
            ),
            Error::Tables(_) | Error::Device { .. } | Error::Host(_) => (
                Code::Microvm,
                "the micro-VM can't be made",
                "see that this user may have more open files and processes: `ulimit -n -u`",
            ),
        };
        Self::new(code, what).hint(hint).because(error)
    }
}

fn boot_hint(error: &boot::Error) -> &'static str {
    match error {
        boot::Error::KernelTooLarge { .. } | boot::Error::InitramfsTooLarge { .. } => {
            "give the machine more memory"
        }
        boot::Error::CmdlineTooLong { .. } | boot::Error::CmdlineByte { .. } => {
            "say less on the kernel's command line, in printable characters"
        }
        _ => "give an uncompressed x86-64 vmlinux or a bzImage of Linux",
    }
}
