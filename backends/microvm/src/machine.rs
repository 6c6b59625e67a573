//! A machine from its parts to its end: memory, kernel, devices, vCPU threads, and who stops whom.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::boot::{self, Boot, Discovery, KernelFormat, Piece, layout};
use crate::devices::bus::Bus;
use crate::devices::serial::{self, Com1, Line, Typist};
use crate::devices::virtio::Device;
use crate::devices::virtio::mmio::{QUEUE_NOTIFY, Transport};
use crate::hv::{Hypervisor, Vm};
use crate::jail::{Confine, Thread, allocator};
use crate::{acpi, memory, mptable};

mod error;
mod vcpus;

pub use error::Error;
use vcpus::Ending;
pub(crate) use vcpus::install_kick_handler;

/// The most vCPUs that a machine may have.
pub const MAX_VCPUS: u8 = 32;

/// The most virtio devices that a machine may have: one interrupt each, of the I/O APIC's 24, from
/// [`layout::VIRTIO_MMIO_IRQ`] on.
pub const MAX_DEVICES: usize = 19;

/// Everything that a machine is made of.
pub struct MachineConfig {
    /// The kernel, open for reading.
    pub kernel: File,
    /// How the kernel file is laid out.
    pub kernel_format: KernelFormat,
    /// cpio archives, unpacked in this order.
    pub initramfs: Vec<Piece>,
    /// Added to moat's own kernel parameters; what comes last counts.
    pub cmdline: String,
    /// How the kernel finds its devices and processors.
    pub discovery: Discovery,
    /// 1 to [`MAX_VCPUS`].
    pub vcpus: u8,
    /// Guest memory in bytes, whole pages, at least 32 MiB.
    pub memory: u64,
    /// Its virtio devices, at most [`MAX_DEVICES`], in the order in which the guest finds them.
    pub devices: Vec<Box<dyn Device>>,
    /// COM1's ends; without them there is no COM1, which costs an exit for each byte.
    pub serial: Option<serial::Ends>,
    /// Written by the caller to end the machine at once.
    pub stop: EventFd,
    /// What each of the machine's threads does to itself before it goes near the guest; the
    /// calling one last.
    pub confine: Confine,
}

impl std::fmt::Debug for MachineConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MachineConfig")
            .field("kernel_format", &self.kernel_format)
            .field("discovery", &self.discovery)
            .field("vcpus", &self.vcpus)
            .field("memory", &self.memory)
            .field("devices", &self.devices.len())
            .finish_non_exhaustive()
    }
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The caller wrote to `stop`.
    Stopped,
    /// The guest switched itself off.
    PoweredOff,
    /// The guest's kernel halted for good: every vCPU stands still and takes no interrupts. It is
    /// all that a kernel can do to switch off where it knows of no register for that, as without
    /// ACPI.
    Halted,
    /// The guest asked for a reset: `reboot`, or a panic (moat boots with `panic=-1`).
    Reset,
    /// The guest can't go on.
    Crashed {
        /// What happened, on which vCPU, where.
        reason: String,
    },
}

/// Runs a machine until it ends. To be called in a process of its own, which KVM ties the machine
/// to; the process's first real-time signal is used to stop vCPUs.
///
/// # Errors
/// When the machine can't be made. Once the guest runs, there is only an [`Outcome`].
pub fn run(kvm: OwnedFd, config: MachineConfig) -> Result<Outcome, Error> {
    if !(1..=MAX_VCPUS).contains(&config.vcpus) {
        return Err(Error::Vcpus { vcpus: config.vcpus });
    }
    if config.devices.len() > MAX_DEVICES {
        return Err(Error::Devices { devices: config.devices.len() });
    }
    allocator::one_heap();
    install_kick_handler()?;
    let hypervisor = Hypervisor::new(kvm)?;
    let memory = memory::create(config.memory)?;
    let count = u32::try_from(config.devices.len()).unwrap_or_default();
    let serial = config.serial.is_some();
    let mut kernel = config.kernel;
    let (vm, entry) = std::thread::scope(|scope| {
        // Making a VM is mostly a wait: before Linux 6.13 for a thread that is to join the VMM's
        // control group.
        let maker = std::thread::Builder::new();
        let vm = maker.spawn_scoped(scope, || hypervisor.create_vm(memory.clone()));
        let entry = describe(&memory, config.discovery, config.vcpus, count, serial);
        let entry = entry.and_then(|rsdp| {
            let boot = Boot {
                kernel: &mut kernel,
                format: config.kernel_format,
                initramfs: &config.initramfs,
                cmdline: &config.cmdline,
                discovery: config.discovery,
                devices: count,
                serial,
                rsdp,
            };
            Ok(boot::load(&memory, boot)?)
        });
        let panicked = |_| io::Error::other("the thread that makes the VM panicked");
        let vm = vm.and_then(|vm| vm.join().map_err(panicked));
        (vm, entry)
    });
    let (vm, entry) = (vm??, entry?);
    drop((kernel, config.initramfs));
    let confine = config.confine;
    let (com1, typist) = config.serial.map(|ends| com1(&vm, ends, confine)).transpose()?.unzip();
    let bus = Arc::new(Bus::new(com1, connect(&vm, memory, config.devices, confine)?));
    let ending = Arc::new(Ending::new(config.vcpus)?);
    let vcpus = vcpus::start(&vm, config.vcpus, entry, &bus, &ending, confine);
    let vcpus = match vcpus {
        Ok(vcpus) => vcpus,
        Err((started, error)) => {
            vcpus::stop(started, &ending);
            return Err(error);
        }
    };
    // All threads are made.
    let outcome = confine(Thread::Main).map(|()| ending.wait(&config.stop, &vcpus));
    vcpus::stop(vcpus, &ending);
    bus.stop();
    if let Some(typist) = typist.flatten() {
        typist.stop();
    }
    vm.disconnect_interrupts();
    Ok(outcome??)
}

/// Tells the guest what it has, and returns the address of ACPI's root pointer, if any.
fn describe(
    memory: &GuestMemoryMmap,
    discovery: Discovery,
    vcpus: u8,
    devices: u32,
    serial: bool,
) -> Result<u64, Error> {
    match discovery {
        Discovery::Acpi => Ok(acpi::write(memory, vcpus, devices, serial)?),
        Discovery::Cmdline => {
            mptable::write(memory, vcpus)?;
            Ok(0)
        }
    }
}

/// Wires devices to the machine's interrupts and doorbells.
fn connect(
    vm: &Vm,
    memory: GuestMemoryMmap,
    devices: Vec<Box<dyn Device>>,
    confine: Confine,
) -> Result<Vec<Transport>, Error> {
    let memory = Arc::new(memory);
    let mut transports = Vec::with_capacity(devices.len());
    for ((index, gsi), device) in (0u64..).zip(layout::VIRTIO_MMIO_IRQ..).zip(devices) {
        let name = device.name();
        let line = EventFd::new(EFD_NONBLOCK)?;
        vm.connect_interrupt(&line, gsi)?;
        let transport = Transport::new(device, Arc::clone(&memory), line, confine)
            .map_err(|source| Error::Device { device: name, source })?;
        let bell = layout::VIRTIO_MMIO + index * layout::VIRTIO_MMIO_SIZE + QUEUE_NOTIFY;
        for (value, kick) in (0u32..).zip(transport.kicks()) {
            vm.connect_doorbell(kick, bell, value)?;
        }
        transports.push(transport);
    }
    Ok(transports)
}

/// Wires COM1, and sets somebody to type if there is something to be typed.
fn com1(
    vm: &Vm,
    ends: serial::Ends,
    confine: Confine,
) -> Result<(Arc<Mutex<Com1>>, Option<Typist>), Error> {
    let line = EventFd::new(EFD_NONBLOCK)?;
    vm.connect_interrupt(&line, layout::COM1_IRQ)?;
    let com1 = Arc::new(Mutex::new(Com1::new(Line(line), ends.output)?));
    let typist =
        ends.input.map(|input| Typist::start(Arc::clone(&com1), input, confine)).transpose()?;
    Ok((com1, typist))
}
