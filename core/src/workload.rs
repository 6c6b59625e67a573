//! The traits that a backend implements, and the plan's steps.

use std::fmt::Debug;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnose::{Check, Code, Fault};
use crate::policy::Approved;
use crate::sandbox::{Exit, ExitStatus, Process, TerminalSize};
use crate::spec::{Bytes, Signal};

/// The code that runs one isolation.
pub trait Backend: Send + Sync {
    /// `container` or `microvm`.
    fn name(&self) -> &'static str;

    /// Tries what it needs of this host and what it could use, and leaves nothing changed.
    fn probe(&self) -> Vec<Check>;

    /// What would be done for this workload. Touches nothing.
    ///
    /// # Errors
    /// When something that the workload names is not there or can't be used: its root, a volume's
    /// source, a kernel bundle.
    fn plan(
        &self,
        approved: &Approved,
        terminal: Option<TerminalSize>,
    ) -> Result<Box<dyn Plan>, Fault>;

    /// Takes hold of what an earlier moat left in `dir`, an instance's directory, so that it can be
    /// destroyed. Works whatever was or was not yet made there.
    ///
    /// # Errors
    /// When the directory's own record can't be read.
    fn attach(&self, dir: &Path) -> Result<Box<dyn Workload>, Fault>;
}

/// What a backend will do, made before anything is touched.
pub trait Plan: Debug + Send {
    /// The steps, in order.
    fn steps(&self) -> Vec<Step>;

    /// What the user must know without asking: what was declared and can't be kept on this host.
    fn warnings(&self) -> Vec<String>;

    /// Does all that comes before the user's code runs. `dir` is the instance's own directory,
    /// empty; stdin, stdout and stderr of the calling process become the workload's.
    ///
    /// # Errors
    /// When a step fails; every step taken has been undone then.
    fn create(self: Box<Self>, dir: &Path) -> Result<Box<dyn Workload>, Fault>;
}

/// A workload that was created. Called only by [`Instance`](crate::lifecycle::Instance), which
/// checks the phase first. The optional powers are `None` unless the backend has them.
pub trait Workload: Send {
    /// Lets the user's code run; once, after `create`. Gives the pid that stands for it on the
    /// host: the container's first process, or the micro-VM's VMM.
    ///
    /// # Errors
    /// When the command can't be run (not found, not executable) or a last step fails. Nothing of
    /// the user's is running then; `destroy` must still be called.
    fn start(&mut self) -> Result<u32, Fault>;

    /// Sends a signal to the workload's process; after `start`. To one that has ended already it
    /// does nothing.
    ///
    /// # Errors
    /// When the kernel or the guest refuses.
    fn signal(&mut self, signal: Signal) -> Result<(), Fault>;

    /// Waits until the workload has ended and all its output has been passed on, `limit` has
    /// passed, `wake` can be read, or [`Exec::next`] or [`Stats::next`] has something; all but the
    /// first give `None`.
    /// After `start`; may be called again and again, and gives the same exit once there is one.
    ///
    /// # Errors
    /// When the workload was lost: its VMM crashed, its guest kernel panicked.
    fn wait(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        limit: Option<Duration>,
    ) -> Result<Option<Exit>, Fault>;

    /// Ends what still runs, at once, and removes everything that `create` made. After it nothing
    /// of the workload is left on the host but `dir`, which is the caller's.
    ///
    /// # Errors
    /// When something could not be removed; the rest was.
    fn destroy(self: Box<Self>) -> Result<(), Fault>;

    /// What the user must know and [`Plan::warnings`] could not tell: what was planned and did not
    /// come to be. Most have nothing to say.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// The power to change the terminal's size, if the workload has a terminal.
    fn terminal(&mut self) -> Option<&mut dyn Terminal> {
        None
    }

    /// The power to start further processes in it, if the backend has it.
    fn exec(&mut self) -> Option<&mut dyn Exec> {
        None
    }

    /// The power to stop all processes for a while, if the backend has it.
    fn pause(&mut self) -> Option<&mut dyn Pause> {
        None
    }

    /// The power to tell what the workload uses, if the backend has it.
    fn stats(&mut self) -> Option<&mut dyn Stats> {
        None
    }
}

/// The optional power of a workload with a terminal.
pub trait Terminal {
    /// Tells the terminal its new size; after `start`.
    ///
    /// # Errors
    /// When the terminal is gone.
    fn resize(&mut self, size: TerminalSize) -> Result<(), Fault>;

    /// Takes the calling process's own terminal over again, after the process was stopped and
    /// goes on; after `start`.
    fn resume(&mut self);
}

/// The optional power to stop all processes for a while. What stands still can be ended all the
/// same: [`Workload::destroy`] needs no resuming before it.
pub trait Pause {
    /// Stops every process of the workload where it is; after `start`. Signals sent to it are
    /// taken when it goes on. To one that stands still already it does nothing.
    ///
    /// # Errors
    /// When this host can't stop processes, or some do not stop in time; all go on then.
    fn pause(&mut self) -> Result<(), Fault>;

    /// Lets every process go on; after `start`. To one that goes already it does nothing.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn resume(&mut self) -> Result<(), Fault>;
}

/// The optional power to tell what the workload uses. A guest may never answer, so that nobody waits
/// for it here: [`Workload::wait`] hears the answer.
pub trait Stats {
    /// Asks what it uses now and has used until now; after `start`, until it has ended. One that
    /// stands still can be asked too. Who asks before the answer to another gets the same.
    ///
    /// # Errors
    /// When it can't even be asked.
    fn ask(&mut self) -> Result<(), Fault>;

    /// The answer, if there is one that was not told yet.
    ///
    /// # Errors
    /// When nothing counts it, or the guest does not tell.
    fn next(&mut self) -> Option<Result<Figures, Fault>>;
}

/// What a workload uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Time on processors since its start, moat's own set-up of it included; `None` where nothing
    /// counts it.
    pub cpu: Option<Duration>,
    /// Memory, with the files that the kernel keeps in memory for it.
    pub memory: Bytes,
    /// The most that may be.
    pub memory_limit: Bytes,
    /// Processes and threads together, moat's reaper included.
    pub pids: u64,
    /// The most that there may be.
    pub pids_limit: u64,
    /// Use of block devices; `None` where nothing counts it.
    pub io: Option<Io>,
    /// How many of its processes the kernel has killed because memory ran out.
    pub oom_kills: u64,
}

/// What was read from and written to block devices since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// Read.
    pub read: Bytes,
    /// Written.
    pub written: Bytes,
}

/// The optional power to start further processes in a workload. Each is a session, which
/// [`Workload::wait`] moves on: nothing here waits for anything that the workload could hold up.
pub trait Exec {
    /// The workload's own process, which a further one is like where nothing else is said.
    fn own(&self) -> &Process;

    /// Begins to start one more process, behind the same wall as the workload's own; after
    /// `start`. `stdio` is its stdin, stdout and stderr, unless it has a terminal. It ends with the
    /// workload at the latest.
    ///
    /// # Errors
    /// When it can't even be begun: the workload stands still, or this host has no room for more.
    /// All other failures are told by [`next`](Self::next).
    fn exec(&mut self, process: &Process, stdio: Option<[OwnedFd; 3]>) -> Result<SessionId, Fault>;

    /// Sends a signal to a session's process. To one that does not run yet or any more it does
    /// nothing.
    ///
    /// # Errors
    /// When the kernel or the guest refuses.
    fn signal(&mut self, session: SessionId, signal: Signal) -> Result<(), Fault>;

    /// Tells a session's terminal its new size, where that is not done by way of what
    /// [`SessionEvent::Started`] gave: of the master of a terminal this is not asked.
    ///
    /// # Errors
    /// When the guest can't be told.
    fn resize(&mut self, session: SessionId, size: TerminalSize) -> Result<(), Fault>;

    /// Nobody waits for a session any more. One whose command does not run yet is ended; one that
    /// runs goes on, without its terminal.
    ///
    /// # Errors
    /// When the kernel or the guest refuses.
    fn abandon(&mut self, session: SessionId) -> Result<(), Fault>;

    /// What has become of a session, if there is something that was not told yet.
    fn next(&mut self) -> Option<(SessionId, SessionEvent)>;
}

/// The most sessions that a workload has at one time. Each holds a handful of descriptors of moat's,
/// which has 1024 as most hosts set it, and goes on when its client is gone.
pub const MAX_SESSIONS: usize = 128;

/// What to say of one more, the same on both walls.
pub fn too_many_sessions() -> Fault {
    let what = format!("{MAX_SESSIONS} further processes run in the workload already");
    Fault::new(Code::State, what).hint(
        "wait for some to end, or end them: they go on when the `moat exec` that began them is gone",
    )
}

/// What to say of one in a workload that stands still, the same on both walls.
pub fn paused() -> Fault {
    Fault::new(Code::NotRunning, "the workload is paused").hint("let it go on first: `moat resume`")
}

/// A session's name within one workload; none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What becomes of a session: `Started` and then `Ended`, or `Failed` alone.
#[derive(Debug)]
pub enum SessionEvent {
    /// Its command runs.
    Started {
        /// The master of its terminal, if it has one, or a stream socket that leads to it. When the
        /// last copy is closed, its processes get SIGHUP.
        terminal: Option<OwnedFd>,
    },
    /// Its command did not come to run.
    Failed(Fault),
    /// Its process has ended.
    Ended(ExitStatus),
}

/// One step of a plan, for people and scripts to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done, in the imperative: `mount overlay`.
    pub action: String,
    /// On what and how: `/ from host root, 24 paths hidden`.
    pub detail: String,
}

impl Step {
    /// A step.
    pub fn new(action: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { action: action.into(), detail: detail.into() }
    }
}
