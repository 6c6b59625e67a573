//! The threads that run a machine's vCPUs, and how the machine's end is told and brought about.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::{Error, Outcome};
use crate::devices::bus::{Bus, Request};
use crate::hv::{Entry, Exit, Kicker, Vcpu, Vm};
use crate::jail::{Confine, Thread};

/// Where the first thread to know leaves how the machine ended.
pub(super) struct Ending {
    outcome: Mutex<Option<Outcome>>,
    known: EventFd,
    /// vCPUs that are kicked from now on must not go on.
    over: AtomicBool,
    /// A bit for each vCPU that stood still for good when it was last looked at.
    still: AtomicU32,
    /// The bits of all.
    all: u32,
}

const STOP: u64 = 0;
const KNOWN: u64 = 1;

/// So often it is looked whether the guest has halted for good. KVM keeps a halted vCPU to itself,
/// so it must be asked, which costs an idle machine one wake-up.
const LOOK: Duration = Duration::from_secs(1);

/// The bit of the vCPU that boots.
const FIRST: u32 = 1;

/// Kernels run in the upper half of the address space (Linux
/// Documentation/arch/x86/x86_64/mm.rst). One that halts below it is a boot loader or a
/// decompressor that gave up.
const KERNEL_HALF: u64 = 1 << 63;

impl Ending {
    pub(super) fn new(vcpus: u8) -> io::Result<Self> {
        Ok(Self {
            outcome: Mutex::new(None),
            known: EventFd::new(EFD_NONBLOCK)?,
            over: AtomicBool::new(false),
            still: AtomicU32::new(0),
            all: u32::MAX.checked_shr(u32::BITS - u32::from(vcpus)).unwrap_or_default(),
        })
    }

    fn set(&self, outcome: Outcome) {
        let mut slot = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(outcome);
        // Fails only when the counter is full, and then it is readable anyway.
        let _ = self.known.write(1);
    }

    pub(super) fn wait(&self, stop: &EventFd, vcpus: &[Running]) -> io::Result<Outcome> {
        let epoll = Epoll::new()?;
        for (fd, token) in [(stop.as_raw_fd(), STOP), (self.known.as_raw_fd(), KNOWN)] {
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, token))?;
        }
        let mut events = [EpollEvent::default(); 2];
        let look = i32::try_from(LOOK.as_millis()).unwrap_or(i32::MAX);
        loop {
            match epoll.wait(look, &mut events) {
                Ok(0) => self.look(vcpus),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut slot = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(slot.take().unwrap_or(Outcome::Stopped))
    }

    /// Makes the first vCPU see whether it stands still for good; when it did, the others; and
    /// then the first again, which so is the one to find that all do.
    fn look(&self, vcpus: &[Running]) {
        let others = self.still.load(Ordering::SeqCst) & FIRST != 0;
        let looked_at = if others {
            self.still.store(0, Ordering::SeqCst);
            vcpus.get(1..)
        } else {
            vcpus.get(..1)
        };
        for vcpu in looked_at.unwrap_or_default() {
            // Fails only for a thread that has ended.
            let _ = vcpu.thread.kill(SIGRTMIN());
        }
    }

    /// Notes whether `vcpu` stands still for good. Gives how the machine ended when all do, for
    /// then nobody is left to wake them.
    fn looked_at(&self, vcpu: &Vcpu, id: usize) -> Option<Outcome> {
        let bit = u32::try_from(id).ok().and_then(|id| FIRST.checked_shl(id)).unwrap_or_default();
        if !vcpu.stands_still() {
            self.still.store(0, Ordering::SeqCst);
            return None;
        }
        let still = self.still.fetch_or(bit, Ordering::SeqCst) | bit;
        match vcpu.position() {
            _ if bit != FIRST || still != self.all => None,
            Some((rip, _)) if rip < KERNEL_HALF => Some(Outcome::Crashed {
                reason: format!("halted for ever at {rip:#x}, before its kernel was set up"),
            }),
            _ => Some(Outcome::Halted),
        }
    }
}

/// A vCPU's thread, and the means to stop it.
pub(super) struct Running {
    thread: JoinHandle<()>,
    kicker: Kicker,
}

pub(super) fn start(
    vm: &Vm,
    count: u8,
    entry: Entry,
    bus: &Arc<Bus>,
    ending: &Arc<Ending>,
    confine: Confine,
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
    for (id, (mut vcpu, kicker)) in made.into_iter().enumerate() {
        let (bus, ending) = (Arc::clone(bus), Arc::clone(ending));
        let (ready, readiness) = channel::<()>();
        let thread = std::thread::Builder::new().name(format!("vcpu{id}")).spawn(move || {
            let outcome = match begin(&mut vcpu, confine) {
                Ok(()) => {
                    drop(ready);
                    drive(vcpu, id, &bus, &ending)
                }
                Err(reason) => Outcome::Crashed { reason },
            };
            ending.set(outcome);
        });
        match thread {
            Ok(thread) => running.push(Running { thread, kicker }),
            Err(error) => return Err((running, error.into())),
        }
        // Until all has been made that this process may not make later.
        let _ = readiness.recv();
    }
    Ok(running)
}

/// All that comes before a vCPU's first instruction.
fn begin(vcpu: &mut Vcpu, confine: Confine) -> Result<(), String> {
    confine(Thread::Vcpu).map_err(|refused| refused.to_string())?;
    vcpu.prepare().map_err(|error| error.to_string())
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
            // `Ending::look`, or some other signal, such as the one that continues a stopped
            // process.
            Exit::Kicked => match ending.looked_at(&vcpu, id) {
                Some(outcome) => return outcome,
                None => {
                    vcpu.excuse();
                    continue;
                }
            },
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
pub(super) fn stop(vcpus: Vec<Running>, ending: &Ending) {
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
