//! The traits that a backend implements, and the plan's steps.

use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnose::{Check, Fault};
use crate::policy::Approved;
use crate::sandbox::{Exit, TerminalSize};
use crate::spec::Signal;

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
/// checks the phase first.
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
    /// passed, or `wake` can be read; the last two give `None`. After `start`; may be called again
    /// and again, and gives the same exit once there is one.
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

    /// The power to change the terminal's size, if the workload has a terminal.
    fn terminal(&mut self) -> Option<&mut dyn Terminal>;
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
