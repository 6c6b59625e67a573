//! The emulated machine: QEMU, its console, its three ports (output, error, words from init), its
//! limits.

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
/// How long QEMU may take to end after the machine has reported the status.
const POWER_OFF: Duration = Duration::from_secs(10);

/// A machine to start.
pub(super) struct Machine {
    pub(super) kernel: PathBuf,
    /// Kept open over exec: QEMU opens it by its number.
    pub(super) initrd: File,
    pub(super) memory_mib: u32,
    pub(super) deterministic: bool,
    pub(super) boot_limit: Duration,
    pub(super) run_limit: Duration,
    /// How long the command may write nothing.
    pub(super) silence_limit: Option<Duration>,
}

/// How one start of a machine ended.
pub(super) enum Ending {
    /// The command's own status.
    Exit(u8),
    /// xtask was told to stop by this signal.
    Signal(u8),
    /// The command was not done within the limit.
    TimedOut,
    /// The command wrote nothing for as long as it may.
    Silent,
    /// QEMU ended, or the machine crashed, while the command ran.
    Died,
    /// The command was never started.
    NoBoot(String),
}

enum Event {
    Word(String),
    Output,
    Closed,
    Signal(Signal),
}

impl Machine {
    /// Starts the machine and streams the command's output. How it ended, and its kernel log.
    pub(super) fn run(&self) -> Result<(Ending, Vec<u8>)> {
        let signals = stop_signals();
        signals.thread_block().context("block signals")?;
        let (events, received) = channel();
        let mut qemu = Qemu::start(self, &events)?;
        let watcher = events;
        std::thread::spawn(move || {
            if let Ok(signal) = signals.wait() {
                let _ = watcher.send(Event::Signal(signal));
            }
        });
        let ending = self.follow(&received);
        if matches!(ending, Ending::Exit(_)) {
            qemu.wait(POWER_OFF);
        }
        Ok((ending, qemu.stop()))
    }

    fn follow(&self, events: &Receiver<Event>) -> Ending {
        let mut deadline = Instant::now() + self.boot_limit;
        let mut running = false;
        let mut silent_since = Instant::now();
        loop {
            let silence = self.silence_limit.filter(|_| running).map(|limit| silent_since + limit);
            let next = silence.map_or(deadline, |silence| silence.min(deadline));
            match events.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Event::Output) => silent_since = Instant::now(),
                Ok(Event::Word(word)) => match word.split_once(' ') {
                    Some(("exit", status)) => return exit_status(status),
                    Some(("fail", why)) => return Ending::NoBoot(why.to_owned()),
                    None if word == "run" => {
                        running = true;
                        silent_since = Instant::now();
                        deadline = Instant::now() + self.run_limit;
                    }
                    _ => {}
                },
                Ok(Event::Signal(signal)) => {
                    return Ending::Signal(u8::try_from(signal as i32).unwrap_or_default());
                }
                Ok(Event::Closed) | Err(RecvTimeoutError::Disconnected) if running => {
                    return Ending::Died;
                }
                Ok(Event::Closed) | Err(RecvTimeoutError::Disconnected) => {
                    return Ending::NoBoot("qemu ended".to_owned());
                }
                Err(RecvTimeoutError::Timeout) if running && next < deadline => {
                    return Ending::Silent;
                }
                Err(RecvTimeoutError::Timeout) if running => return Ending::TimedOut,
                Err(RecvTimeoutError::Timeout) => {
                    return Ending::NoBoot(format!("hangs for {} s", self.boot_limit.as_secs()));
                }
            }
        }
    }

    /// The command line, less the ports. setpriv makes QEMU end when xtask does, however it ends.
    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", QEMU]);
        command.args([
            "-machine",
            "q35",
            "-cpu",
            "max",
            "-smp",
            "1",
            "-accel",
            "tcg,thread=single",
        ]);
        let mut boot = "console=ttyS0 panic=-1 quiet".to_owned();
        if self.deterministic {
            command.args(["-icount", "shift=0,sleep=off"]);
            boot.push_str(" transparent_hugepage=never");
        }
        command.args(["-m", &self.memory_mib.to_string()]);
        command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
        command.arg("-kernel").arg(&self.kernel);
        command.arg("-initrd").arg(format!("/proc/self/fd/{}", self.initrd.as_raw_fd()));
        command.args(["-append", &boot, "-virtfs"]);
        command.arg("local,path=/,mount_tag=root,security_model=none,multidevs=remap");
        command.args(["-device", "virtio-serial-pci"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        command
    }
}

fn exit_status(text: &str) -> Ending {
    text.trim().parse().map_or(Ending::Died, Ending::Exit)
}

fn stop_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// A QEMU that is running, and the threads that carry its output.
struct Qemu {
    child: Child,
    console: JoinHandle<Vec<u8>>,
    streams: Vec<JoinHandle<()>>,
}

impl Qemu {
    fn start(machine: &Machine, events: &Sender<Event>) -> Result<Self> {
        let mut command = machine.command();
        let mut theirs = Vec::new();
        let mut connect = |name: &str| -> Result<UnixStream> {
            let (near, far) = UnixStream::pair().context("socket pair")?;
            fcntl(&far, FcntlArg::F_SETFD(FdFlag::empty())).context("keep socket over exec")?;
            command.arg("-chardev").arg(format!("socket,id={name},fd={}", far.as_raw_fd()));
            theirs.push(far);
            Ok(near)
        };
        let (console, out) = (connect("console")?, connect("out")?);
        let (err, words) = (connect("err")?, connect("words")?);
        command.args(["-serial", "chardev:console"]);
        for (name, number) in [("out", 1), ("err", 2), ("words", 3)] {
            command.arg("-device").arg(format!("virtserialport,chardev={name},nr={number}"));
        }
        let child = command.spawn().context("setpriv (package util-linux)")?;
        drop(theirs);
        let (events, output) = (events.clone(), events.clone());
        std::thread::spawn(move || report(words, &events));
        let told = |events: Sender<Event>| move || drop(events.send(Event::Output));
        let (out_told, err_told) = (told(output.clone()), told(output));
        let streams = vec![
            std::thread::spawn(move || copy(out, std::io::stdout(), out_told)),
            std::thread::spawn(move || copy(err, std::io::stderr(), err_told)),
        ];
        let console = std::thread::spawn(move || {
            let mut log = Vec::new();
            copy(console, &mut log, || {});
            log
        });
        Ok(Self { child, console, streams })
    }

    /// Waits for QEMU to end by itself, so that every byte of output has been sent.
    fn wait(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends QEMU if it still runs, and takes the rest of its output. The kernel's log.
    fn stop(mut self) -> Vec<u8> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for stream in self.streams {
            let _ = stream.join();
        }
        self.console.join().unwrap_or_default()
    }
}

fn report(words: UnixStream, events: &Sender<Event>) {
    for line in BufReader::new(words).lines().map_while(Result::ok) {
        if events.send(Event::Word(line)).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Closed);
}

fn copy(mut from: impl Read, mut to: impl Write, told: impl Fn()) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer)
        && count > 0
    {
        // Nobody reads any more: keep draining, or the machine would stand still.
        let _ = to.write_all(&buffer[..count]).and_then(|()| to.flush());
        told();
    }
}
