//! The process in which a micro-VM runs: made, put behind bars, and heard out at its end.
//!
//! ```text
//! moat                                  VMM process
//! clone into namespaces and cgroup  ->  die with moat from here on
//!                                   <-  "ready"
//! map ids
//! mounts with mapped owners, "go"   ->  become user 0 of its namespace
//!                                       mount the shared tree, make it the root
//!                                       close what is not needed, drop rights
//!                                       make the machine; each thread confines itself (`jail`)
//!                                       run it
//! read the ending                   <-  how it ended
//! ```

use std::fs::File;
use std::io::{self, LineWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use moat_core::sandbox::ExitStatus;
use moat_core::spec::{Resource, Signal};
use moat_core::wire::SHARE_TAG;
use moat_host::mapping::Mapping;
use moat_init::cgroup::JoinFiles;
use moat_init::mapped::user_namespace;
use moat_init::sys::clone::{self, Child, Namespaces};
use moat_init::sys::process::set_limits;
use moat_init::sys::{descriptor, process};
use moat_init::watch::Watch;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::signal::Signal::SIGKILL;
use nix::unistd::{Gid, Uid, pipe2};
use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::handover;
use super::share::{JailError, SHARE, Shared, open_place};
use crate::boot::{Discovery, KernelFormat, Piece};
use crate::devices::serial;
use crate::devices::virtio::Device;
use crate::devices::virtio::balloon::Balloon;
use crate::devices::virtio::fs::Fs;
use crate::devices::virtio::vsock::Vsock;
use crate::jail::{self, killed, rights};
use crate::machine::{self, MachineConfig, Outcome};

/// The most that the VMM says about its end, in bytes.
const ENDING_LIMIT: u64 = 16 << 10;

/// How long a VMM that was asked to end may take: it undoes in microseconds what takes the kernel
/// milliseconds when a VMM is killed (docs/performance.md).
const STOP_LIMIT: Duration = Duration::from_millis(250);

/// How long a VMM may take to stand still.
const STILL_LIMIT: Duration = Duration::from_secs(5);

/// One byte each way before the VMM touches anything.
const HANDSHAKE: [u8; 1] = [b'.'];

/// Why the VMM's process could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    /// A socket, pipe or file that both sides need.
    #[error("can't make the VMM's {what}")]
    Channel {
        /// Which.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The process itself.
    #[error("can't make the VMM's process in namespaces of its own")]
    Clone(#[source] Errno),
    /// The ids of its user namespace.
    #[error("can't map the VMM's ids")]
    Ids(#[source] io::Error),
    /// What it is to share.
    #[error("can't give the VMM what it shares")]
    Share(#[from] JailError),
    /// It could not come so far that it could be told to go on.
    #[error("the VMM's process can't be confined: {reason}")]
    Unready {
        /// What failed, outermost first.
        reason: String,
    },
    /// It ended before it was told to go on.
    #[error("the VMM's process ended at once")]
    Gone(#[source] io::Error),
}

/// What a machine is made of, and what it may see.
pub(super) struct Parts {
    pub(super) kvm: OwnedFd,
    pub(super) kernel: File,
    pub(super) kernel_format: KernelFormat,
    pub(super) discovery: Discovery,
    pub(super) initramfs: Vec<Piece>,
    pub(super) cmdline: String,
    pub(super) vcpus: u8,
    /// Guest memory in bytes.
    pub(super) memory: u64,
    pub(super) shared: Shared,
    /// An empty directory over which the VMM mounts its root.
    pub(super) stage: PathBuf,
    /// How the VMM's ids, which are the guest's, stand for the host's.
    pub(super) mapping: Mapping,
}

/// A VMM that runs.
#[derive(Debug)]
pub(super) struct Vmm {
    pub(super) process: VmmProcess,
    /// The agent channel's host end, which does not block.
    pub(super) agent: UnixStream,
    /// What the guest's console says; does not block.
    pub(super) console: File,
    /// What the user must know: ids that could not be had.
    pub(super) warnings: Vec<String>,
}

/// A VMM's process. Dropping it ends it.
#[derive(Debug)]
pub(super) struct VmmProcess {
    child: Child,
    ending: UnixStream,
    /// Written to ask it to end.
    stop: EventFd,
    /// Once it is reaped: by which signal it was killed, if by any.
    reaped: Option<Option<Signal>>,
}

/// How a VMM's process ended, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ending {
    /// The guest switched itself off, or was switched off.
    Off,
    /// The guest asked for a reset, as it does after a panic.
    Reset,
    /// The guest can't go on.
    Crashed {
        /// What happened.
        reason: String,
    },
    /// The machine could not be made.
    Failed {
        /// What failed, outermost first.
        reasons: Vec<String>,
    },
}

/// The VMM's ends, which only its process keeps open.
struct Ends {
    agent: UnixStream,
    console: File,
    ending: UnixStream,
    stop: EventFd,
    null: File,
}

/// Makes the VMM's process and lets it go on to run the machine.
pub(super) fn launch(
    parts: Parts,
    cgroup: Option<BorrowedFd<'_>>,
    join: &JoinFiles,
) -> Result<Vmm, LaunchError> {
    launch_to(parts, cgroup, join, run)
}

/// What the VMM's process does once it is confined.
type Work = fn(Parts, UnixStream, File, EventFd) -> Result<Ending, Failure>;

pub(super) fn launch_to(
    parts: Parts,
    cgroup: Option<BorrowedFd<'_>>,
    join: &JoinFiles,
    work: Work,
) -> Result<Vmm, LaunchError> {
    let channel = |what| move |source| LaunchError::Channel { what, source };
    let (agent, agent_inside) = UnixStream::pair().map_err(channel("agent channel"))?;
    let (ending, ending_inside) = UnixStream::pair().map_err(channel("control channel"))?;
    let (console, console_inside) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .map_err(io::Error::from)
        .map_err(channel("console"))?;
    agent.set_nonblocking(true).map_err(channel("agent channel"))?;
    let null = File::options().read(true).write(true).open("/dev/null");
    let stop = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(channel("stop event"))?;
    let ends = Ends {
        agent: agent_inside,
        console: console_inside.into(),
        ending: ending_inside,
        stop: stop.try_clone().map_err(channel("stop event"))?,
        null: null.map_err(channel("/dev/null"))?,
    };
    let (mapping, shared) = (parts.mapping.clone(), parts.shared.clone());
    let options = clone::Options { namespaces: namespaces(), cgroup };
    let child = clone::spawn(options, || body(parts, ends, join, work));
    let child = child.map_err(LaunchError::Clone)?;
    let process = VmmProcess { child, ending, stop, reaped: None };
    let warnings = process.let_go(&mapping, &shared)?;
    Ok(Vmm { process, agent, console: console.into(), warnings })
}

/// Makes a process in the namespaces of a VMM's, which ends at once.
pub(super) fn try_namespaces() -> Result<(), Errno> {
    let options = clone::Options { namespaces: namespaces(), cgroup: None };
    clone::spawn(options, || 0)?.wait().map(drop)
}

/// Those that it is made in; a cgroup namespace it makes itself, once it is in its cgroup.
fn namespaces() -> Namespaces {
    Namespaces::USER
        | Namespaces::MOUNT
        | Namespaces::PID
        | Namespaces::NETWORK
        | Namespaces::IPC
        | Namespaces::UTS
}

impl VmmProcess {
    /// Gives it its ids and what it shares, and lets it go on; gives what was said when it is less
    /// than planned.
    fn let_go(&self, mapping: &Mapping, shared: &Shared) -> Result<Vec<String>, LaunchError> {
        let gone = |errno: Errno| LaunchError::Gone(errno.into());
        let mut ready = [0; 1];
        (&self.ending).read_exact(&mut ready).map_err(LaunchError::Gone)?;
        if ready != HANDSHAKE {
            return Err(self.unready(ready));
        }
        let pid = self.child.pid();
        if !mapping.is_plain_user() {
            // A convenience: with fewer, a guest can remember fewer files.
            let _ = set_limits(pid, Resource::Nofile, (rights::FILES, rights::FILES));
        }
        let (mapping, warnings) = mapping.give_to(pid).map_err(LaunchError::Ids)?;
        let trees = match mapping {
            Mapping::Mapped { .. } => {
                let users = user_namespace(&self.child).map_err(LaunchError::Ids)?;
                Some(shared.take(Some(users.as_fd()))?)
            }
            Mapping::Identity { .. } => Some(shared.take(None)?),
            Mapping::Subordinate { .. } | Mapping::Single { .. } => None,
        };
        handover::give(&self.ending, trees).map_err(gone)?;
        Ok(warnings)
    }

    /// Why it ends instead of being ready: in the words that begin with what was read for that.
    fn unready(&self, first: [u8; 1]) -> LaunchError {
        match ending_after(&first, &self.ending) {
            Some(Ending::Failed { reasons }) => LaunchError::Unready { reason: reasons.join(": ") },
            _ => LaunchError::Gone(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Its pid.
    pub(super) fn pid(&self) -> u32 {
        u32::try_from(self.child.pid().as_raw()).unwrap_or_default()
    }

    /// Waits until it has ended by itself; false when it has not within `limit`.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let mut watch = Watch::default();
        watch.add(Some(self.child.as_fd()), PollFlags::POLLIN);
        watch.wait(Some(Instant::now() + limit)).unwrap_or(false)
    }

    /// Stops it where it is, with all its threads; false when that does not come to be in time. It is
    /// one process, and a signal needs no cgroup, which a plain user may not have.
    pub(super) fn stand_still(&self) -> Result<bool, Errno> {
        self.child.stop(STILL_LIMIT)
    }

    /// Lets it go on.
    pub(super) fn go_on(&self) -> Result<(), Errno> {
        self.child.signal(Signal::CONT)
    }

    /// Ends and reaps it.
    pub(super) fn end(&mut self) {
        if self.reaped.is_none() {
            // All fail only for a process that is gone already.
            let _ = self.stop.write(1);
            if !self.wait(STOP_LIMIT) {
                let _ = self.child.signal(Signal::KILL);
            }
            self.reaped = Some(match self.child.wait() {
                Ok(ExitStatus::Signal(signal)) => Some(signal),
                _ => None,
            });
        }
    }

    /// How it ended, in its own words; `None` when it was killed or said nothing that makes sense.
    /// To be called once it has ended, and was reaped.
    pub(super) fn ending(&self) -> Option<Ending> {
        if self.reaped.flatten().is_some_and(|signal| signal.number() == libc::SIGSYS) {
            return Some(Ending::Failed { reasons: vec![killed::by_filter(self.pid())] });
        }
        ending_after(&[], &self.ending)
    }
}

/// What a VMM has said of its end, of which this much was read before.
fn ending_after(first: &[u8], ending: &UnixStream) -> Option<Ending> {
    let mut text = String::new();
    first.chain(ending.take(ENDING_LIMIT)).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

impl Drop for VmmProcess {
    fn drop(&mut self) {
        self.end();
    }
}

/// All that the VMM's process does; its exit status is of no interest, its ending is.
fn body(parts: Parts, ends: Ends, join: &JoinFiles, work: Work) -> u8 {
    let Ends { agent, console, mut ending, stop, null } = ends;
    let keep = [ending.as_raw_fd(), stop.as_raw_fd()];
    let result = (|| {
        let stage = prepare(&parts, join)?;
        (&ending).write_all(&HANDSHAKE)?;
        let trees = handover::wait(&ending)?;
        become_root(&parts.mapping, &ending)?;
        parts.shared.enter(stage, trees)?;
        confine(&parts, &[agent.as_raw_fd(), console.as_raw_fd()], &keep, null)?;
        work(parts, agent, console, stop)
    })();
    let text = serde_json::to_string(&result.unwrap_or_else(|error| failed(error.as_ref())));
    // Nobody may be left to hear it.
    let _ = ending.write_all(text.unwrap_or_default().as_bytes());
    0
}

/// The file server does not take what was put together for it.
#[derive(Debug, thiserror::Error)]
#[error("can't share {}", .root.display())]
struct Unshared {
    /// What was to be the root.
    root: PathBuf,
    /// The reason.
    source: io::Error,
}

pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// All that comes before moat is told that this process is there. Gives the place of its root.
fn prepare(parts: &Parts, join: &JoinFiles) -> Result<OwnedFd, Failure> {
    // Asked for before moat is told that this process is ready: whenever moat dies, either this
    // process is killed or it reads the end of the channel.
    set_pdeathsig(SIGKILL)?;
    process::reset_signals();
    nix::unistd::setsid()?;
    join.join()?;
    clone::unshare(Namespaces::CGROUP)?;
    // While this process still has moat's ids, whose directory it is in.
    Ok(open_place(&parts.stage)?)
}

/// Becomes user 0 of the own user namespace, and leaves moat's groups.
fn become_root(mapping: &Mapping, ending: &UnixStream) -> Result<(), Failure> {
    match nix::unistd::setgroups(&[]) {
        // A plain user's namespace can give up none (user_namespaces(7), `setgroups`).
        Err(Errno::EPERM) if mapping.is_plain_user() => {}
        done => done?,
    }
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    // Whoever changes users is forgotten about (prctl(2), `PR_SET_PDEATHSIG`).
    set_pdeathsig(SIGKILL)?;
    if handover::is_alone(ending) {
        return Err(Errno::EPIPE.into());
    }
    Ok(set_dumpable(false)?)
}

/// Goes behind bars: holds nothing but what the machine needs, and no rights but those to files.
fn confine(parts: &Parts, ends: &[RawFd], keep: &[RawFd], null: File) -> Result<(), Failure> {
    let (stdout, stderr) = (null.try_clone()?, null.try_clone()?);
    descriptor::become_stdio(&[null.into(), stdout.into(), stderr.into()])?;
    let mut keep: Vec<RawFd> = keep.iter().chain(ends).copied().collect();
    keep.extend([parts.kvm.as_raw_fd(), parts.kernel.as_raw_fd()]);
    descriptor::keep_only(&mut keep)?;
    let failed = |what| move |source| JailError { action: "give up", path: what, source };
    rights::set_limits().map_err(failed("resource limits".into()))?;
    rights::keep_file_rights().map_err(failed("capabilities".into()))?;
    // And the empty file that the file server looks at once.
    moat_init::landlock::hold_to(&[Path::new(SHARE), Path::new("/proc/self/mountinfo")])?;
    Ok(())
}

pub(super) fn run(
    parts: Parts,
    agent: UnixStream,
    console: File,
    stop: EventFd,
) -> Result<Ending, Failure> {
    // What backtraces would read is not there, and stderr is nobody's.
    std::panic::set_hook(Box::new(|_| {}));
    let root = parts.shared.root;
    let share = Fs::new(SHARE_TAG, Path::new(SHARE)).map_err(|source| Unshared { root, source })?;
    let devices: Vec<Box<dyn Device>> = vec![
        Box::new(share),
        Box::new(Vsock::new(agent.into())?),
        // Memory that the guest has freed goes back to the host.
        Box::new(Balloon::new()?),
    ];
    let config = MachineConfig {
        kernel: parts.kernel,
        kernel_format: parts.kernel_format,
        initramfs: parts.initramfs,
        cmdline: parts.cmdline,
        discovery: parts.discovery,
        vcpus: parts.vcpus,
        memory: parts.memory,
        devices,
        // Line by line, since the guest's console comes byte by byte.
        serial: Some(serial::Ends { output: Box::new(LineWriter::new(console)), input: None }),
        stop,
        confine: jail::confine,
    };
    Ok(match machine::run(parts.kvm, config)? {
        Outcome::Stopped | Outcome::PoweredOff | Outcome::Halted => Ending::Off,
        Outcome::Reset => Ending::Reset,
        Outcome::Crashed { reason } => Ending::Crashed { reason },
    })
}

fn failed(error: &(dyn std::error::Error + Send + Sync)) -> Ending {
    let mut reasons = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        reasons.push(error.to_string());
        cause = error.source();
    }
    Ending::Failed { reasons }
}
