//! The container wall: Linux namespaces.
//!
//! ```text
//! plan      what will be done, from the workload and a look at this host
//! limits    where they are held, or why not
//! create    cgroup, namespaces, id map; the root is built in the container's mount namespace,
//!           by its monitor with the host's own rights, or by a plain user's container itself;
//!           then moat-init's first process sets up the rest and waits
//! mapping   whose ids the container's are; skeleton: what a plain user's root is made of
//! mount_namespace
//!           work inside the container's, with the host's own rights
//! running   start, signals, terminal, wait, destroy; relay: its streams; group: pause, figures
//! exec      one more process in it
//! record    what a later moat needs to remove what this one left; remains: the removal
//! probe     what this host can do of all that
//! ```

#![deny(unsafe_code)]

mod apart;
mod create;
mod exec;
mod fault;
mod group;
mod limits;
mod mapping;
mod mount_namespace;
mod plan;
mod probe;
mod record;
pub mod relay;
mod remains;
mod running;
mod skeleton;

use std::path::Path;

use moat_core::diagnose::{Check, Fault};
use moat_core::policy::Approved;
use moat_core::sandbox::TerminalSize;
use moat_core::workload::{Backend, Plan, Workload};

/// Runs workloads in containers.
///
/// The process that uses it must have no other thread when a plan is carried out or a probe made:
/// containers are forked from it without an exec.
#[derive(Debug, Clone, Copy, Default)]
pub struct Container;

impl Container {
    /// The backend.
    pub const fn new() -> Self {
        Self
    }
}

impl Backend for Container {
    fn name(&self) -> &'static str {
        "container"
    }

    fn probe(&self) -> Vec<Check> {
        probe::checks()
    }

    fn plan(
        &self,
        approved: &Approved,
        terminal: Option<TerminalSize>,
    ) -> Result<Box<dyn Plan>, Fault> {
        Ok(Box::new(plan::ContainerPlan::new(approved.workload(), terminal)?))
    }

    fn attach(&self, dir: &Path) -> Result<Box<dyn Workload>, Fault> {
        Ok(Box::new(remains::Remains::find(dir)?))
    }
}
