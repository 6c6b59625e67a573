//! Boots a kernel with an initramfs, its console on standard output: the VMM without the rest of
//! moat.
//!
//! ```text
//! boot KERNEL [--initramfs FILE].. [--cmdline TEXT] [--acpi] [--vcpus N] [--memory MIB]
//!      [--hvc] [--rng] [--balloon] [--share TAG=DIR] [--disk FILE[:ro]].. [--net TAP]..
//!      [--echo | --pump MIB | --vsock PATH] [--seconds N]
//! ```
//! `--hvc` makes the console virtio's, without a serial port: the kernel must be told
//! `--cmdline console=hvc0`.
//! `--echo` sends back what the guest's agent sends. `--pump` sends that much, counts what comes
//! back, and says how fast.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use moat_microvm::boot::{Discovery, KernelFormat, Piece};
use moat_microvm::devices::serial;
use moat_microvm::devices::virtio::balloon::Balloon;
use moat_microvm::devices::virtio::blk::{Disk, DiskOptions};
use moat_microvm::devices::virtio::console::Console;
use moat_microvm::devices::virtio::fs::Fs;
use moat_microvm::devices::virtio::net::{Net, NetOptions, Tap};
use moat_microvm::devices::virtio::rng::Rng;
use moat_microvm::devices::virtio::vsock::broker::broker;
use moat_microvm::devices::virtio::vsock::{Ends, Vsock};
use moat_microvm::machine::{MachineConfig, Outcome, run};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match boot() {
        Ok(Outcome::PoweredOff | Outcome::Halted | Outcome::Reset) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("boot: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  caused by: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn boot() -> Result<Outcome, Failure> {
    let (config, seconds) = configure()?;
    let stop = config.stop.try_clone()?;
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(seconds));
        stop.write(1)
    });
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
    let started = Instant::now();
    let outcome = run(kvm.into(), config)?;
    eprintln!("boot: {outcome:?} after {} ms", started.elapsed().as_millis());
    Ok(outcome)
}

fn configure() -> Result<(MachineConfig, u64), Failure> {
    let mut args = std::env::args().skip(1);
    let kernel = args.next().ok_or("no kernel given")?;
    let mut kernel = File::open(&kernel).map_err(|error| format!("{kernel}: {error}"))?;
    let mut magic = [0; 4];
    kernel.read_exact(&mut magic)?;
    let mut config = MachineConfig {
        kernel,
        kernel_format: if &magic == b"\x7fELF" { KernelFormat::Elf } else { KernelFormat::BzImage },
        initramfs: Vec::new(),
        cmdline: String::new(),
        discovery: Discovery::Cmdline,
        vcpus: 1,
        memory: 256 << 20,
        devices: Vec::new(),
        serial: Some(serial::Ends { output: Box::new(io::stdout()), input: None }),
        stop: EventFd::new(EFD_NONBLOCK)?,
        confine: moat_microvm::jail::leave_free,
    };
    let mut seconds = 120;
    while let Some(option) = args.next() {
        let mut value = || args.next().ok_or(format!("{option} needs a value"));
        match option.as_str() {
            "--initramfs" => config.initramfs.push(Piece::File(File::open(value()?)?)),
            "--cmdline" => config.cmdline = value()?,
            "--acpi" => config.discovery = Discovery::Acpi,
            "--vcpus" => config.vcpus = value()?.parse()?,
            "--memory" => config.memory = value()?.parse::<u64>()? << 20,
            "--share" => {
                let value = value()?;
                let (tag, root) = value.split_once('=').ok_or("--share needs TAG=DIR")?;
                config.devices.push(Box::new(Fs::new(tag, root.as_ref())?));
            }
            "--hvc" => {
                config.serial = None;
                config.devices.push(Box::new(Console::new(Box::new(io::stdout()), None)?));
            }
            "--rng" => config.devices.push(Box::new(Rng)),
            "--balloon" => config.devices.push(Box::new(Balloon::new()?)),
            "--disk" => config.devices.push(Box::new(disk(&value()?)?)),
            "--net" => {
                let net = Net::new(Tap::open(&value()?)?, &NetOptions::default())?;
                config.devices.push(Box::new(net));
            }
            "--echo" => config.devices.push(Box::new(Vsock::new(agent(echo)?.into())?)),
            "--pump" => {
                let bytes = value()?.parse::<u64>()? << 20;
                let pump = agent(move |socket| pump(socket, bytes))?;
                config.devices.push(Box::new(Vsock::new(pump.into())?));
            }
            "--vsock" => config.devices.push(Box::new(vsock(value()?.as_ref())?)),
            "--seconds" => seconds = value()?.parse()?,
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    Ok((config, seconds))
}

/// Streams to and from the guest by the unix sockets `path` and `path_PORT`.
fn vsock(path: &Path) -> Result<Vsock, Failure> {
    let listener = UnixListener::bind(path).map_err(|error| format!("{path:?}: {error}"))?;
    let (outside, asker) = broker(path)?;
    thread::spawn(move || outside.serve());
    Ok(Vsock::new(Ends { agent: None, listener: Some(listener), asker: Some(asker) })?)
}

/// The disk that `FILE[:ro]` stands for.
fn disk(value: &str) -> Result<Disk, Failure> {
    let (path, read_only) = match value.strip_suffix(":ro") {
        Some(path) => (path, true),
        None => (value, false),
    };
    let file = File::options().read(true).write(!read_only).open(path);
    let file = file.map_err(|error| format!("{path}: {error}"))?;
    Ok(Disk::new(file, &DiskOptions { read_only, ..Default::default() })?)
}

/// A socket whose other end `serve` has in a thread of its own.
fn agent(
    serve: impl FnOnce(UnixStream) -> io::Result<()> + Send + 'static,
) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    thread::spawn(move || {
        if let Err(error) = serve(ours) {
            eprintln!("boot: agent channel: {error}");
        }
    });
    Ok(theirs)
}

fn echo(mut socket: UnixStream) -> io::Result<()> {
    let mut back = socket.try_clone()?;
    let bytes = io::copy(&mut socket, &mut back)?;
    eprintln!("boot: echoed {bytes} bytes");
    back.shutdown(std::net::Shutdown::Write)
}

/// Sends `bytes` in a pattern, and checks what an echoing guest sends back.
fn pump(mut socket: UnixStream, bytes: u64) -> io::Result<()> {
    let mut send = socket.try_clone()?;
    let started = Instant::now();
    let sender = thread::spawn(move || {
        let block: Vec<u8> = (0..=250).cycle().take(251 * 256).collect();
        let mut left = bytes;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            send.write_all(block.get(..length).unwrap_or_default())?;
            left -= length as u64;
        }
        send.shutdown(std::net::Shutdown::Write)
    });
    let (mut received, mut wrong) = (0u64, 0u64);
    let mut block = vec![0; 64 << 10];
    loop {
        let length = socket.read(&mut block)?;
        if length == 0 {
            break;
        }
        for byte in block.get(..length).unwrap_or_default() {
            wrong += u64::from(u64::from(*byte) != received % 251);
            received += 1;
        }
    }
    let sent = sender.join().map_err(|_| io::Error::other("the sender panicked"))?;
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("boot: {received} of {bytes} bytes came back, {wrong} wrong, {seconds:.2} s");
    sent
}
