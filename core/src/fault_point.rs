//! The places where a test ends moat, or a process of it, to see what is left behind.
//!
//! Each step of an instance's life that changes something outside of the process that takes it is
//! followed by one: `FaultPoint::CgroupMade.reached()`. A build with debug assertions does there
//! what its [`Hook`] says, if there is one; in a release build it is nothing at all. The one list
//! is [`FaultPoint::ALL`]: the test (`tests/leftovers`) goes through it, and fails when one is never
//! reached.

use std::os::fd::RawFd;

use crate::lifecycle::Phase;

macro_rules! fault_points {
    ($($(#[$meta:meta])* $name:ident,)*) => {
        /// A place where a test can end moat.
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(debug_assertions, derive(Debug))]
        pub enum FaultPoint {
            $($(#[$meta])* $name,)*
        }

        impl FaultPoint {
            /// Every one, in the order of a life.
            #[cfg(debug_assertions)]
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

fault_points! {
    // What the probes try, before there is an instance.
    /// The probe's cgroup is made.
    ProbeGroupMade,
    /// The process that holds a user namespace to try id maps with is made.
    TrialMade,
    /// The file for a probe's answer is made, and empty.
    ProbeBegun,

    // What is kept of an instance in the background.
    /// Its directory is made.
    KeptMade,
    /// Its lock is taken.
    KeptLocked,
    /// Its identity is written down.
    IdentityWritten,

    // The instance's directory.
    /// It is made.
    DirectoryMade,
    /// The journal in it is made.
    JournalMade,
    /// The journal is locked.
    JournalLocked,
    /// The journal has its header.
    HeaderWritten,
    /// Phase `Creating` is written down.
    MarkedCreating,

    // What the monitor makes.
    /// One directory of the cgroup is made.
    CgroupBegun,
    /// The cgroup is made, with its limits.
    CgroupMade,
    /// The first process is made.
    FirstMade,
    /// The user namespace has its ids.
    IdsGiven,

    // What builds the root: the monitor, or the first process where a plain user started moat.
    /// The staging filesystem is mounted.
    Staged,
    /// The overlays are mounted.
    OverlaysMounted,
    /// /dev is filled.
    DevicesMade,
    /// The volumes are mounted.
    VolumesMounted,

    /// The monitor knows that the root is built.
    RootBuilt,
    /// The first process was told to proceed.
    Proceeded,
    /// It is written down in the record.
    RecordWritten,

    // What the first process does.
    /// It has begun.
    FirstBegun,
    /// It has closed the descriptors that are not its own.
    DescriptorsClosed,
    /// It has its host name.
    Named,
    /// It was told to proceed.
    ToldToProceed,
    /// It is user 0 of its user namespace.
    BecameRoot,
    /// /proc, /sys and their like are mounted.
    KernelFilesystemsMounted,
    /// What of them is hidden is.
    Masked,
    /// Its root is the container's.
    RootChanged,
    /// The workload's program is prepared.
    ProgramPrepared,
    /// It has said that it is ready.
    SaidReady,

    // The start.
    /// The monitor has heard that the first process is ready.
    HeardReady,
    /// Phase `Created` is written down.
    MarkedCreated,
    /// Phase `Starting` is written down.
    MarkedStarting,
    /// The first process was told to start the workload.
    StartSent,
    /// The first process was told to start the workload, and has not begun to.
    ToldToStart,
    /// It is in its cgroup.
    Joined,
    /// The workload's process is made.
    WorkloadMade,
    /// It is the workload's user.
    WorkloadRestricted,
    /// The reaper has said that the workload runs.
    SaidStarted,
    /// The monitor knows that the workload runs.
    HeardStarted,
    /// Phase `Running`, or `Paused`, is written down.
    MarkedRunning,
    /// Phase `Stopping` is written down.
    MarkedStopping,

    // What is asked of a workload that runs.
    /// The process that is to enter it for a further one is made.
    SessionMade,
    /// That is in the workload's cgroup.
    SessionJoined,
    /// It is in the workload's namespaces.
    SessionEntered,
    /// The further process is there, and all but the command.
    SessionPrepared,
    /// The monitor knows of the further process.
    SessionHeard,
    /// The group that stops processes is there, and has them.
    Gathered,
    /// They are stopped.
    Frozen,

    // The end.
    /// The reaper has reaped the workload.
    WorkloadReaped,
    /// The monitor has reaped the first process.
    FirstReaped,
    /// Phase `Ended` is written down.
    MarkedEnded,
    /// Phase `Destroying` is written down.
    MarkedDestroying,
    /// No process is left.
    ProcessesEnded,
    /// One directory of the cgroup is removed.
    CgroupDirectoryRemoved,
    /// The cgroup is removed.
    CgroupRemoved,
    /// Phase `Destroyed` is written down.
    MarkedDestroyed,
    /// The instance's directory holds the journal alone.
    RecordsRemoved,
    /// It is empty.
    JournalRemoved,
    /// It is removed.
    DirectoryRemoved,

    // The end of what is kept.
    /// All that there is to say of the end is written down.
    EndWritten,
    /// Nothing is kept of it but its lock.
    KeptForgotten,

    // The sweep of what another moat has left.
    /// Its journal is locked.
    OrphanLocked,
    /// All processes in its cgroup are killed.
    OrphanGroupKilled,
    /// Its first process has ended.
    OrphanEnded,
    /// Its directory is all that is left of it.
    OrphanCleared,
    /// Nothing is left of it.
    OrphanForgotten,
}

impl FaultPoint {
    /// That after which a phase is written down.
    #[must_use]
    pub const fn marked(phase: Phase) -> Self {
        match phase {
            Phase::Creating => Self::MarkedCreating,
            Phase::Created => Self::MarkedCreated,
            Phase::Starting => Self::MarkedStarting,
            Phase::Running | Phase::Paused => Self::MarkedRunning,
            Phase::Stopping => Self::MarkedStopping,
            Phase::Ended => Self::MarkedEnded,
            Phase::Destroying => Self::MarkedDestroying,
            Phase::Destroyed => Self::MarkedDestroyed,
        }
    }

    /// Says that the caller is there.
    #[inline(always)]
    pub fn reached(self) {
        #[cfg(debug_assertions)]
        if let Some(hook) = hook::HOOK.get() {
            (hook.reached)(self);
        }
    }

    /// What a hook needs to stay open in processes that close all that is not theirs.
    #[inline(always)]
    #[must_use]
    pub fn descriptor() -> Option<RawFd> {
        #[cfg(debug_assertions)]
        return hook::HOOK.get().map(|hook| hook.descriptor);
        #[cfg(not(debug_assertions))]
        None
    }
}

#[cfg(debug_assertions)]
pub use hook::Hook;

#[cfg(debug_assertions)]
mod hook {
    use std::os::fd::RawFd;
    use std::sync::OnceLock;

    use super::FaultPoint;

    pub(super) static HOOK: OnceLock<Hook> = OnceLock::new();

    /// What is done at each point.
    #[derive(Debug)]
    pub struct Hook {
        /// Called with every point that is reached, in whichever process.
        pub reached: fn(FaultPoint),
        /// A descriptor that it needs there.
        pub descriptor: RawFd,
    }

    impl Hook {
        /// Has it called from now on. Only the first one is.
        pub fn set(self) {
            let _ = HOOK.set(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FaultPoint;

    /// Tests are built both ways: `cargo test` and `cargo test --release`.
    #[test]
    fn a_release_build_has_none() {
        assert_eq!(FaultPoint::descriptor(), None);
        FaultPoint::CgroupMade.reached();
    }
}
