//! `moat microvm`

mod devices;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use moat_core::diagnose::{Code, Fault};
use moat_microvm::backend::kvm_fault;
use moat_microvm::boot::Piece;
use moat_microvm::devices::serial;
use moat_microvm::devices::virtio::console::{Console as VirtioConsole, Resizer};
use moat_microvm::jail::confine_all_but_main;
use moat_microvm::kernel;
use moat_microvm::machine::{self, MachineConfig, Outcome};
use moat_microvm::probe;
use serde_json::json;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::args::{Boot, ConsoleArg, Microvm};
use crate::console::{self, Asked, Resized};
use crate::output::Output;
use crate::{Failure, resident, stdio};

/// A shell's status for a command that a signal ended is this and the signal's number.
const BY_SIGNAL: i32 = 128;

/// Boots a kernel in moat's own VMM.
pub(crate) fn microvm(output: Output, verb: &Microvm) -> Result<u8, Failure> {
    match verb {
        Microvm::Boot(args) => boot(output, args),
    }
}

fn boot(output: Output, args: &Boot) -> Result<u8, Failure> {
    stdio::check()?;
    let kernel = kernel::look(&args.kernel, args.discovery.known()).map_err(|error| {
        let what = format!("can't boot {}", args.kernel.display());
        Fault { what, ..Fault::from(error) }
    })?;
    let initramfs = args.initramfs.iter().map(|path| open_piece(path)).collect::<Result<_, _>>()?;
    let (console, ends) = console::prepare()?;
    // The socket of its streams lasts as long as the machine.
    let (mut devices, _socket) = devices::all(args)?;
    let kvm = probe::open(Path::new(probe::KVM)).map_err(kvm_fault)?;
    let mut cmdline = args.cmdline.clone().unwrap_or_default();
    let (mut serial, mut resized) = (None, None);
    match args.console {
        ConsoleArg::Virtio => {
            let device = VirtioConsole::new(Box::new(ends.output), Some(ends.input.into()));
            let device = device.map_err(no_event)?;
            resized = Some(tells(device.resizer()));
            devices.insert(0, Box::new(device));
            cmdline = format!("console=hvc0 {cmdline}");
        }
        ConsoleArg::Serial => {
            serial = Some(serial::Ends { output: Box::new(ends.output), input: Some(ends.input) });
        }
        ConsoleArg::None => {}
    }
    let stop = Arc::new(EventFd::new(EFD_NONBLOCK).map_err(no_event)?);
    let config = MachineConfig {
        kernel: kernel.file,
        kernel_format: kernel.format,
        initramfs,
        cmdline,
        discovery: kernel.discovery,
        vcpus: args.cpus,
        memory: args.memory.get(),
        devices,
        serial,
        stop: stop.try_clone().map_err(no_event)?,
        confine: confine_all_but_main,
    };
    let console = console.open(move || drop(stop.write(1)), resized)?;
    // The command line, the kernel's bundle and all that was read for them are not needed again.
    resident::give_back();
    let outcome = machine::run(kvm, config);
    let asked = console.close();
    ended(output, outcome.map_err(Fault::from)?, asked)
}

/// The status that tells how the machine ended.
fn ended(output: Output, outcome: Outcome, asked: Option<Asked>) -> Result<u8, Failure> {
    match outcome {
        Outcome::PoweredOff | Outcome::Reset => Ok(0),
        Outcome::Halted => {
            output.note("the guest halted", || json!({ "ended": "halted" }));
            Ok(0)
        }
        Outcome::Stopped => Ok(match asked {
            Some(Asked::Signal(signal)) => {
                u8::try_from(BY_SIGNAL + signal as i32).unwrap_or(u8::MAX)
            }
            Some(Asked::Keys) | None => 0,
        }),
        Outcome::Crashed { reason } => {
            Err(Fault::new(Code::Microvm, format!("the guest crashed: {reason}"))
                .hint("`moat doctor` tells whether this host's KVM can run Linux at all")
                .into())
        }
    }
}

/// Tells the guest of a terminal's size. One that it does not hear of is a console of odd lines.
fn tells(resizer: Arc<Resizer>) -> Resized {
    Box::new(move |size| drop(resizer.resize(size.columns, size.rows)))
}

fn open_piece(path: &Path) -> Result<Piece, Fault> {
    let refused = |source: std::io::Error| {
        Fault::new(Code::Kernel, format!("can't read the initramfs {}", path.display()))
            .hint("give a file of cpio archives")
            .because(source)
    };
    let file = File::open(path).map_err(refused)?;
    match file.metadata().map_err(refused)?.is_file() {
        true => Ok(Piece::File(file)),
        false => Err(refused(std::io::Error::other("it is not a regular file"))),
    }
}

fn no_event(error: std::io::Error) -> Fault {
    Fault::new(Code::Microvm, "the host gives no event descriptor")
        .hint("see that this user may have more open files: `ulimit -n`")
        .because(error)
}
