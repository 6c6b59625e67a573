//! This machine as the verbs see it: moat's directories, its backends, what they lack.

use std::fs::File;

use moat_container::Container;
use moat_core::diagnose::{Check, Code, Fault, Missing, missing};
use moat_core::fault_point::FaultPoint;
use moat_core::policy::{Facts, Policy};
use moat_core::spec::{Bytes, Isolation};
use moat_core::workload::Backend;
use moat_host::dirs::Dirs;
use moat_host::kept::Shelf;
use moat_host::machine;
use moat_host::probe::ProbeCache;
use moat_host::state::{self, Found, Store};
use moat_microvm::backend::Microvm;
use moat_microvm::kernel;
use moat_microvm::probe::KVM;

use crate::output::Output;

/// moat's PID 1 for micro-VMs, built by this crate's build script.
static GUEST: &[u8] = include_bytes!(env!("MOAT_GUEST"));

/// This machine.
pub(crate) struct Host {
    pub(crate) dirs: Dirs,
    pub(crate) store: Store,
    pub(crate) shelf: Shelf,
    container: Container,
    microvm: Microvm,
}

impl Host {
    /// Opens moat's directories; makes the runtime directory if need be.
    pub(crate) fn open() -> Result<Self, Fault> {
        let dirs = Dirs::locate()?;
        dirs.make_runtime()?;
        let store = Store::open(&dirs.runtime)?;
        let microvm = Microvm::new(GUEST, &dirs.data);
        let shelf = Shelf::below(&dirs.data);
        Ok(Self { dirs, store, shelf, container: Container::new(), microvm })
    }

    /// The code that runs an isolation.
    pub(crate) fn backend(&self, isolation: Isolation) -> &dyn Backend {
        match isolation {
            Isolation::Container => &self.container,
            Isolation::Vm => &self.microvm,
        }
    }

    /// What decisions by this policy look at. Both probes are kept, since they try things.
    pub(crate) fn facts(&self, policy: &Policy) -> Result<Facts, Fault> {
        let cache = ProbeCache::new(&self.dirs.runtime);
        let (memory, committed_memory) = if policy.looks_at_memory() {
            (machine::memory(), self.store.committed_memory()?)
        } else {
            (Bytes::new(0), Bytes::new(0))
        };
        Ok(Facts {
            container: cache.get("container", "", || missing(&self.container.probe())),
            vm: self.vm_lacks(&cache),
            memory,
            committed_memory,
        })
    }

    /// A device that can't be opened may be mended any moment, so that is looked at anew each time;
    /// what a KVM can do stays for this boot.
    fn vm_lacks(&self, cache: &ProbeCache) -> Vec<Missing> {
        match File::options().read(true).write(true).open(KVM) {
            Ok(_) => cache.get("microvm", "", || missing(&self.microvm.probe())),
            Err(_) => missing(&self.microvm.probe()),
        }
    }

    /// Everything that was tried of both walls, weakest first.
    pub(crate) fn checks(&self) -> Vec<(Isolation, Check)> {
        let container =
            self.container.probe().into_iter().map(|check| (Isolation::Container, check));
        let vm = self.microvm.probe().into_iter().map(|check| (Isolation::Vm, check));
        container.chain(vm).collect()
    }

    /// The guest kernels of this user.
    pub(crate) fn kernels(&self) -> kernel::Store {
        kernel::Store::in_data_dir(&self.dirs.data)
    }

    /// Clears what a moat that was killed has left behind, and says so. Whatever one of them is
    /// about, the others are cleared.
    pub(crate) fn sweep(&self, output: Output) -> Result<(), Fault> {
        for orphan in self.store.orphans()? {
            let found = &orphan.found;
            match self.clear(found) {
                // There was nothing but a directory.
                Ok(()) if !orphan.begun => {}
                Ok(()) => {
                    let name =
                        found.header.as_ref().map_or("an instance", |header| header.name.as_str());
                    output.warn(&format!(
                        "cleaned up after {name} ({}), whose moat was killed",
                        found.dir.file_name().unwrap_or_default().to_string_lossy()
                    ));
                }
                Err(fault) => output.error(&fault),
            }
        }
        Ok(())
    }

    /// Without a header nothing was made yet, or the record is broken: then both backends look.
    fn clear(&self, orphan: &Found) -> Result<(), Fault> {
        let name = orphan.header.as_ref().map(|header| header.backend.as_str());
        for backend in [&self.container as &dyn Backend, &self.microvm] {
            if name.is_none_or(|name| name == backend.name()) {
                let left =
                    backend.attach(&orphan.dir).map_err(|fault| self.unclear(orphan, fault))?;
                left.destroy().map_err(|fault| self.unclear(orphan, fault))?;
            }
        }
        FaultPoint::OrphanCleared.reached();
        state::forget(&orphan.dir)?;
        FaultPoint::OrphanForgotten.reached();
        Ok(())
    }

    fn unclear(&self, orphan: &Found, fault: Fault) -> Fault {
        let hint = fault.hint.clone();
        let hint = hint.unwrap_or_else(|| "see what still runs of it; moat tries again".to_owned());
        Fault::new(
            Code::State,
            format!("what was left in {} can't be cleared", orphan.dir.display()),
        )
        .hint(hint)
        .because(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_agent_is_small() {
        let most = 3 << 19;
        eprintln!("moat-guest: {} bytes", GUEST.len());
        assert!(GUEST.len() < most, "{} bytes, more than {most}", GUEST.len());
    }
}
