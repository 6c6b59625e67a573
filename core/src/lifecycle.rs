//! The phases of an instance, the one table of transitions, and [`Instance`], which alone moves
//! through them.
//!
//! ```text
//!                                                       Paused ─Exited─▶ Ended
//!                                                  Pause ▲ │  │ Stop       │
//!            Create        Created        Start          │ ▼ Resume        │
//! (new) ──▶ Creating ────▶ Created ────▶ Starting ────▶ Running ─Exited─▶ Ended
//!               │             │              │ Started     │ Stop          │
//!               │ Failed      │              │ Failed      ▼               │
//!               ▼             │              ▼          Stopping ─Exited─▶ │
//!             Ended           │            Ended           │ Failed        │
//!               │             └──────┐       │             ▼               │
//!               │    Destroy         ▼       │           Ended             │
//!               └───────────────▶ Destroying ◀─────────────────────────────┘
//!                                     │ Destroyed
//!                                     ▼
//!                                 (removed)
//! ```
//! The phase is recorded before an effect (`Creating`, `Starting`, `Stopping`, `Destroying`) and
//! after it, so that whoever finds a record knows which effects may have happened.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnose::{Code, Fault};
use crate::sandbox::{Exit, TerminalSize};
use crate::spec::Signal;
use crate::workload::{Exec, Plan, Stats, Workload};

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The backend is making it; nothing of the user's runs.
    Creating,
    /// All is made; nothing of the user's runs.
    Created,
    /// The user's command is being started.
    Starting,
    /// The user's command runs.
    Running,
    /// All its processes are stopped, until they are let go on.
    Paused,
    /// It was asked to end and still runs.
    Stopping,
    /// It has ended, or never came to run.
    Ended,
    /// What was made for it is being removed.
    Destroying,
    /// Nothing of it is left but the record.
    Destroyed,
}

/// What happens to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The backend has made it.
    Created,
    /// The user's command is to be started.
    Start,
    /// It runs.
    Started,
    /// All its processes are stopped.
    Pause,
    /// They are let go on.
    Resume,
    /// It was asked to end.
    Stop,
    /// It has ended.
    Exited,
    /// It could not be made or started, or was lost.
    Failed,
    /// What was made for it is to be removed.
    Destroy,
    /// That is done.
    Destroyed,
}

impl Phase {
    /// Every phase, in the order of a life without accidents.
    pub const ALL: [Self; 9] = [
        Self::Creating,
        Self::Created,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Ended,
        Self::Destroying,
        Self::Destroyed,
    ];

    /// The phase as users see it, and as it is on record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
        }
    }

    /// The one table: where an event leads from here, or `None` where it can't happen.
    pub const fn next(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Creating, Event::Created) => Some(Self::Created),
            (Self::Created, Event::Start) => Some(Self::Starting),
            (Self::Starting, Event::Started) => Some(Self::Running),
            (Self::Running, Event::Pause) => Some(Self::Paused),
            (Self::Paused, Event::Resume) => Some(Self::Running),
            (Self::Running | Self::Paused | Self::Stopping, Event::Stop) => Some(Self::Stopping),
            (Self::Running | Self::Paused | Self::Stopping, Event::Exited | Event::Failed)
            | (Self::Creating | Self::Starting, Event::Failed) => Some(Self::Ended),
            (Self::Created | Self::Ended, Event::Destroy) => Some(Self::Destroying),
            (Self::Destroying, Event::Destroyed) => Some(Self::Destroyed),
            _ => None,
        }
    }
}

/// Where phases are written down. An implementation writes so that a reader sees either the old
/// or the new record, whole.
pub trait Journal {
    /// The instance's own directory.
    fn dir(&self) -> &Path;

    /// Writes the phase down, before the caller goes on.
    ///
    /// # Errors
    /// When it can't be written; the caller must not go on with the effect.
    fn record(&mut self, mark: Mark) -> Result<(), Fault>;

    /// Removes the instance's directory, and with it all that was written down.
    ///
    /// # Errors
    /// When it can't be removed.
    fn forget(self) -> Result<(), Fault>
    where
        Self: Sized;
}

/// One thing to write down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The phase from now on.
    pub phase: Phase,
    /// The pid that stands for the workload, once it runs.
    pub pid: Option<u32>,
    /// How it ended, once it has.
    pub exit: Option<Exit>,
}

/// One run of a workload. It owns the phase: nothing else changes it, and no backend is called in
/// a phase in which it may not be.
pub struct Instance<J: Journal> {
    journal: J,
    mark: Mark,
    workload: Option<Box<dyn Workload>>,
}

impl<J: Journal> Instance<J> {
    /// Makes all that comes before the user's code runs.
    ///
    /// # Errors
    /// When a step fails. Everything has been undone, and the record is forgotten.
    pub fn create(journal: J, plan: Box<dyn Plan>) -> Result<Self, Fault> {
        let mark = Mark { phase: Phase::Creating, pid: None, exit: None };
        let mut instance = Self { journal, mark, workload: None };
        match instance.make(plan) {
            Ok(()) => Ok(instance),
            Err(fault) => {
                // The first fault is what the user must see. A record that can't be written or
                // removed now is found and swept by the next moat.
                let _ = instance.advance(Event::Failed);
                let _ = instance.destroy().and_then(Journal::forget);
                Err(fault)
            }
        }
    }

    fn make(&mut self, plan: Box<dyn Plan>) -> Result<(), Fault> {
        self.journal.record(self.mark)?;
        let dir: PathBuf = self.journal.dir().to_owned();
        self.workload = Some(plan.create(&dir)?);
        self.advance(Event::Created)
    }

    /// What the user must know of how it was created.
    pub fn warnings(&self) -> Vec<String> {
        self.workload.as_ref().map_or_else(Vec::new, |workload| workload.warnings())
    }

    /// Its own directory.
    pub fn dir(&self) -> &Path {
        self.journal.dir()
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        self.mark.phase
    }

    /// Lets the user's code run.
    ///
    /// # Errors
    /// When the command can't be run. Only [`destroy`](Self::destroy) may follow.
    pub fn start(&mut self) -> Result<(), Fault> {
        self.advance(Event::Start)?;
        match self.workload()?.start() {
            Ok(pid) => {
                self.mark.pid = Some(pid);
                self.advance(Event::Started)
            }
            Err(fault) => {
                let _ = self.advance(Event::Failed);
                Err(fault)
            }
        }
    }

    /// Asks it to end with the given signal. If it is paused it goes on, so that it can.
    ///
    /// # Errors
    /// When it is not running, or the signal can't be sent.
    pub fn stop(&mut self, signal: Signal) -> Result<(), Fault> {
        let paused = self.mark.phase == Phase::Paused;
        self.advance(Event::Stop)?;
        let workload = self.workload()?;
        let sent = workload.signal(signal);
        match workload.pause().filter(|_| paused) {
            Some(power) => power.resume().and(sent),
            None => sent,
        }
    }

    /// Stops all its processes until [`resume`](Self::resume); nothing happens when they are
    /// stopped already. False when its backend has no such power.
    ///
    /// # Errors
    /// When it is not running or about to end, or can't be stopped; it runs on then.
    pub fn pause(&mut self) -> Result<bool, Fault> {
        if self.mark.phase == Phase::Paused {
            return Ok(true);
        }
        // Looked at before the effect, which must not come to one that is about to end.
        self.mark.phase.next(Event::Pause).ok_or_else(|| self.misplaced(Event::Pause))?;
        let Some(power) = self.workload()?.pause() else { return Ok(false) };
        power.pause()?;
        let running = self.mark;
        self.advance(Event::Pause).map(|()| true).inspect_err(|_| {
            // What is not on record must not be: nobody would know why it stands still.
            self.mark = running;
            if let Ok(Some(power)) = self.workload().map(|workload| workload.pause()) {
                let _ = power.resume();
            }
        })
    }

    /// Lets all its processes go on; nothing happens when they do. False when its backend has no
    /// such power.
    ///
    /// # Errors
    /// When it is not running, or the kernel refuses.
    pub fn resume(&mut self) -> Result<bool, Fault> {
        let paused = self.mark.phase == Phase::Paused;
        let Some(power) = self.running()?.pause() else { return Ok(false) };
        power.resume()?;
        if paused {
            self.advance(Event::Resume)?;
        }
        Ok(true)
    }

    /// Its power to tell what it uses, if its backend has it.
    ///
    /// # Errors
    /// When it is not running.
    pub fn stats(&mut self) -> Result<Option<&mut dyn Stats>, Fault> {
        Ok(self.running()?.stats())
    }

    /// Passes a signal on.
    ///
    /// # Errors
    /// When it is not running, or the signal can't be sent.
    pub fn signal(&mut self, signal: Signal) -> Result<(), Fault> {
        self.running()?.signal(signal)
    }

    /// Tells its terminal the new size; nothing happens when it has none.
    ///
    /// # Errors
    /// When it is not running, or the terminal is gone.
    pub fn resize(&mut self, size: TerminalSize) -> Result<(), Fault> {
        match self.running()?.terminal() {
            Some(terminal) => terminal.resize(size),
            None => Ok(()),
        }
    }

    /// Takes moat's own terminal over again for its terminal, after moat was stopped and goes on;
    /// nothing happens when it has none.
    ///
    /// # Errors
    /// When it is not running.
    pub fn retake_terminal(&mut self) -> Result<(), Fault> {
        if let Some(terminal) = self.running()?.terminal() {
            terminal.resume();
        }
        Ok(())
    }

    /// Its power to start further processes, if its backend has it.
    ///
    /// # Errors
    /// When it is not running.
    pub fn exec(&mut self) -> Result<Option<&mut dyn Exec>, Fault> {
        Ok(self.running()?.exec())
    }

    /// Waits for its end, `limit`, `wake` being readable, news of what was started in it by
    /// [`exec`](Self::exec), or an answer of [`stats`](Self::stats).
    ///
    /// # Errors
    /// When it was lost; the record says that it ended.
    pub fn wait(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        limit: Option<Duration>,
    ) -> Result<Option<Exit>, Fault> {
        match self.running()?.wait(wake, limit) {
            Ok(None) => Ok(None),
            Ok(Some(exit)) => {
                self.mark.exit = Some(exit);
                self.advance(Event::Exited)?;
                Ok(Some(exit))
            }
            Err(fault) => {
                let _ = self.advance(Event::Failed);
                Err(fault)
            }
        }
    }

    /// Removes everything that was made for it, and ends it first if it still runs.
    ///
    /// # Errors
    /// When something could not be removed; the record keeps the phase `Destroying`, so that a
    /// later moat tries again.
    pub fn destroy(mut self) -> Result<J, Fault> {
        use Phase::{Paused, Running, Starting, Stopping};
        if matches!(self.mark.phase, Running | Paused | Stopping | Starting) {
            let _ = self.advance(Event::Failed);
        }
        // A record that can't be written must not keep what was made from being removed, nor
        // itself.
        let _ = self.advance(Event::Destroy);
        if let Some(workload) = self.workload.take() {
            workload.destroy()?;
        }
        let _ = self.advance(Event::Destroyed);
        Ok(self.journal)
    }

    fn advance(&mut self, event: Event) -> Result<(), Fault> {
        self.mark.phase = self.mark.phase.next(event).ok_or_else(|| self.misplaced(event))?;
        self.journal.record(self.mark)
    }

    fn misplaced(&self, event: Event) -> Fault {
        Fault::new(
            Code::State,
            format!("{event:?} can't happen to an instance that is {:?}", self.mark.phase),
        )
    }

    fn workload(&mut self) -> Result<&mut dyn Workload, Fault> {
        match self.workload.as_deref_mut() {
            Some(workload) => Ok(workload),
            None => Err(Fault::new(Code::State, "the instance has nothing that was created")),
        }
    }

    fn running(&mut self) -> Result<&mut dyn Workload, Fault> {
        if !matches!(self.mark.phase, Phase::Running | Phase::Paused | Phase::Stopping) {
            let phase = self.mark.phase;
            return Err(Fault::new(Code::State, format!("the instance is {phase:?}, not running")));
        }
        self.workload()
    }
}
