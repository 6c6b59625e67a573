//! The threads that run a machine's vCPUs, and how the machine's end is told and brought about.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use vmm_sys_util::epoll::{EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::{Error, Outcome};
use crate::devices::bus::{Bus, Request};
use crate::devices::virtio::Poller;
use crate::hv::{Entry, Exit, Kicker, Vcpu, Vm};

/// Where the first thread to know leaves how the machine ended.
pub(super) struct Ending {
    outcome: Mutex<Option<Outcome>>,
    known: EventFd,
    /// vCPUs that are kicked from now on must not go on.
    over: AtomicBool,
}

const STOP: u64 = 0;
const KNOWN: u64 = 1;

impl Ending {
    pub(super) fn new() -> io::Result<Self> {
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

    pub(super) fn wait(&self, stop: &EventFd) -> io::Result<Outcome> {
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
