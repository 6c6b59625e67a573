//! A machine from its parts to its end: memory, kernel, devices, vCPU threads, and who stops whom.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::{EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::boot::{self, Boot, Discovery, KernelFormat, Piece, layout};
use crate::devices::bus::{Bus, Request};
use crate::devices::serial::{Com1, Line, Sink};
use crate::devices::virtio::mmio::{QUEUE_NOTIFY, Transport};
use crate::devices::virtio::{Broken, Device, Poller};
use crate::hv::{self, Entry, Exit, Hypervisor, Kicker, Vcpu, Vm};
use crate::{acpi, memory, mptable};

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
    /// Where the serial port's output goes. It must not block for long: the vCPU that prints
    /// waits for it.
    pub serial: Sink,
    /// Written by the caller to end the machine at once.
    pub stop: EventFd,
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
    /// The guest asked for a reset: `reboot`, or a panic (moat boots with `panic=-1`).
    Reset,
    /// The guest can't go on.
    Crashed {
        /// What happened, on which vCPU, where.
        reason: String,
    },
}

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
    install_kick_handler()?;
    let hypervisor = Hypervisor::new(kvm)?;
    let memory = memory::create(config.memory)?;
    let vm = hypervisor.create_vm(memory.clone())?;
    let count = u32::try_from(config.devices.len()).unwrap_or_default();
    let rsdp = describe(&memory, config.discovery, config.vcpus, count)?;
    let mut kernel = config.kernel;
    let entry = boot::load(
        &memory,
        Boot {
            kernel: &mut kernel,
            format: config.kernel_format,
            initramfs: &config.initramfs,
            cmdline: &config.cmdline,
            discovery: config.discovery,
            devices: count,
            rsdp,
        },
    )?;
    drop((kernel, config.initramfs));
    let bus = Arc::new(connect(&vm, memory, config.devices, config.serial)?);
    let ending = Arc::new(Ending::new()?);
    let vcpus = start(&vm, config.vcpus, entry, &bus, &ending);
    let vcpus = match vcpus {
        Ok(vcpus) => vcpus,
        Err((started, error)) => {
            stop(started, &ending);
            return Err(error);
        }
    };
    let outcome = ending.wait(&config.stop);
    stop(vcpus, &ending);
    bus.stop();
    Ok(outcome?)
}

/// Tells the guest what it has, and returns the address of ACPI's root pointer, if any.
fn describe(
    memory: &GuestMemoryMmap,
    discovery: Discovery,
    vcpus: u8,
    devices: u32,
) -> Result<u64, Error> {
    match discovery {
        Discovery::Acpi => Ok(acpi::write(memory, vcpus, devices)?),
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
    serial: Sink,
) -> Result<Bus, Error> {
    let memory = Arc::new(memory);
    let mut transports = Vec::with_capacity(devices.len());
    for ((index, gsi), device) in (0u64..).zip(layout::VIRTIO_MMIO_IRQ..).zip(devices) {
        let name = device.name();
        let line = EventFd::new(EFD_NONBLOCK)?;
        vm.connect_interrupt(&line, gsi)?;
        let transport = Transport::new(device, Arc::clone(&memory), line)
            .map_err(|source| Error::Device { device: name, source })?;
        let bell = layout::VIRTIO_MMIO + index * layout::VIRTIO_MMIO_SIZE + QUEUE_NOTIFY;
        for (value, kick) in (0u32..).zip(transport.kicks()) {
            vm.connect_doorbell(kick, bell, value)?;
        }
        transports.push(transport);
    }
    let line = EventFd::new(EFD_NONBLOCK)?;
    vm.connect_interrupt(&line, layout::COM1_IRQ)?;
    Ok(Bus::new(Com1::new(Line(line), serial), transports))
}

/// Where the first thread to know leaves how the machine ended.
struct Ending {
    outcome: Mutex<Option<Outcome>>,
    known: EventFd,
    /// vCPUs that are kicked from now on must not go on.
    over: AtomicBool,
}

const STOP: u64 = 0;
const KNOWN: u64 = 1;

impl Ending {
    fn new() -> io::Result<Self> {
        Ok(Self {
            outcome: Mutex::new(None),
            known: EventFd::new(EFD_NONBLOCK)?,
            over: AtomicBool::new(false),
        })
    }

    fn set(&self, outcome: Outcome) {
        let mut slot = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(outcome);
        // Fails only when the counter is full, and then it is readable anyway.
        let _ = self.known.write(1);
    }

    fn wait(&self, stop: &EventFd) -> io::Result<Outcome> {
        let poller = Poller::new()?;
        poller.add(stop.as_raw_fd(), EventSet::IN, STOP)?;
        poller.add(self.known.as_raw_fd(), EventSet::IN, KNOWN)?;
        let mut events = [EpollEvent::default(); 2];
        poller.wait(&mut events)?;
        let mut slot = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(slot.take().unwrap_or(Outcome::Stopped))
    }
}

/// A vCPU's thread, and the means to stop it.
struct Running {
    thread: JoinHandle<()>,
    kicker: Kicker,
}

fn start(
    vm: &Vm,
    count: u8,
    entry: Entry,
    bus: &Arc<Bus>,
    ending: &Arc<Ending>,
) -> Result<Vec<Running>, (Vec<Running>, Error)> {
    // All vCPUs exist before the first runs, so that it finds them when it sends start-up
    // interrupts.
    let mut made = Vec::with_capacity(usize::from(count));
    for id in 0..count {
        let vcpu = Vcpu::new(vm, id, count, &[]).and_then(|vcpu| {
            if id == 0 {
                vcpu.enter(entry)?;
            }
            let kicker = vcpu.kicker()?;
            Ok((vcpu, kicker))
        });
        made.push(vcpu.map_err(|error| (Vec::new(), error.into()))?);
    }
    let mut running = Vec::with_capacity(made.len());
    for (id, (vcpu, kicker)) in made.into_iter().enumerate() {
        let (bus, ending) = (Arc::clone(bus), Arc::clone(ending));
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{id}"))
            .spawn(move || ending.set(drive(vcpu, id, &bus, &ending)));
        match thread {
            Ok(thread) => running.push(Running { thread, kicker }),
            Err(error) => return Err((running, error.into())),
        }
    }
    Ok(running)
}

/// Runs a vCPU until the machine ends.
fn drive(mut vcpu: Vcpu, id: usize, bus: &Bus, ending: &Ending) -> Outcome {
    loop {
        let reason = match vcpu.run() {
            Exit::PortOut { port, data } => match bus.port_write(port, data) {
                Request::None => continue,
                Request::Reset => return Outcome::Reset,
                Request::PowerOff => return Outcome::PoweredOff,
            },
            Exit::PortIn { port, data } => {
                bus.port_read(port, data);
                continue;
            }
            Exit::MmioWrite { address, data } => {
                bus.mmio_write(address, data);
                continue;
            }
            Exit::MmioRead { address, data } => {
                bus.mmio_read(address, data);
                continue;
            }
            Exit::Kicked if ending.over.load(Ordering::SeqCst) => return Outcome::Stopped,
            // Some other signal came by, such as the one that continues a stopped process.
            Exit::Kicked => continue,
            Exit::Halt => "halted for ever".to_owned(),
            Exit::Shutdown => "triple fault".to_owned(),
            Exit::Failed { reason } => reason,
        };
        let place = match vcpu.position() {
            Some((rip, ring)) => format!(" at {rip:#x} in ring {ring}"),
            None => String::new(),
        };
        return Outcome::Crashed { reason: format!("{reason}, vCPU {id}{place}") };
    }
}

/// Ends the vCPUs' threads.
fn stop(vcpus: Vec<Running>, ending: &Ending) {
    ending.over.store(true, Ordering::SeqCst);
    for vcpu in &vcpus {
        vcpu.kicker.kick();
        // Fails only for a thread that has ended.
        let _ = vcpu.thread.kill(SIGRTMIN());
    }
    for vcpu in vcpus {
        if vcpu.thread.join().is_err() {
            tracing::error!("a vCPU's thread panicked");
        }
    }
}

/// Gives the kick signal a handler, so that it interrupts KVM_RUN and nothing else happens.
pub(crate) fn install_kick_handler() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(SIGRTMIN(), nothing)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))
}
