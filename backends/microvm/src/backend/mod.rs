//! The micro-VM backend: plans, creates and owns micro-VMs by the traits that the lifecycle calls.
//!
//! ```text
//! check      what this host offers
//! plan       what will be done; makes it
//! record     what is on the host because of it
//! initramfs  the guest's first files
//! vmm        the VMM's process         share, handover   what it sees, and how it gets that
//! instance   a micro-VM's life         relay, channel, output, console   its streams
//! exec       further processes in it   further, client                   theirs
//! stand_still, figures                 stopped for a while, and what it uses
//! ```

#[cfg(test)]
mod captive;
mod channel;
mod check;
mod client;
mod console;
mod exec;
mod figures;
mod further;
mod handover;
mod initramfs;
mod instance;
mod output;
mod plan;
mod record;
mod relay;
mod share;
mod stand_still;
mod vmm;

pub use check::kvm_fault;

use std::path::{Path, PathBuf};

use moat_core::diagnose::{Check, Fault};
use moat_core::policy::Approved;
use moat_core::sandbox::TerminalSize;
use moat_core::workload::{Backend, Plan, Workload};

use crate::kernel::Store;

/// The micro-VM backend.
#[derive(Debug)]
pub struct Microvm {
    guest: &'static [u8],
    data: PathBuf,
}

impl Microvm {
    /// With moat-guest's binary, and the directory under which kernel bundles are.
    pub fn new(guest: &'static [u8], data: &Path) -> Self {
        Self { guest, data: data.to_owned() }
    }
}

impl Backend for Microvm {
    fn name(&self) -> &'static str {
        "microvm"
    }

    fn probe(&self) -> Vec<Check> {
        check::all()
    }

    fn plan(
        &self,
        approved: &Approved,
        terminal: Option<TerminalSize>,
    ) -> Result<Box<dyn Plan>, Fault> {
        let name = approved.workload().vm.kernel.as_deref().unwrap_or("default");
        let bundle = Store::in_data_dir(&self.data).find(name)?;
        Ok(Box::new(plan::MicrovmPlan::new(self.guest, bundle, approved, terminal)?))
    }

    fn attach(&self, dir: &Path) -> Result<Box<dyn Workload>, Fault> {
        Ok(Box::new(instance::Orphan(record::Remains::read(dir)?)))
    }
}
