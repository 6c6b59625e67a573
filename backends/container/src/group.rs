//! What a running container's cgroup can do beside holding limits: stop all processes, and tell
//! what they use.

use moat_core::diagnose::{Code, Fault};
use moat_core::workload::{Figures, Pause, Stats};
use moat_init::cgroup::{Cgroup, Error};

use crate::running::Running;

impl Running {
    fn group(&mut self, purpose: &str) -> Result<&mut Cgroup, Fault> {
        let what = format!("{purpose} takes a cgroup, and the container has none");
        self.cgroup.as_mut().ok_or_else(|| {
            Fault::new(Code::Unavailable, what)
                .hint("`moat doctor` tells where cgroups can be made")
        })
    }
}

impl Pause for Running {
    fn pause(&mut self) -> Result<(), Fault> {
        let group = self.group("to pause")?;
        if !group.can_freeze()
            && let Some(parent) = moat_host::cgroup::freezer()
        {
            group.set_freezer(&parent);
        }
        group.freeze().map_err(|error| {
            let (code, hint) = match &error {
                Error::NoFreezer => (
                    Code::Unavailable,
                    "mount it: `mkdir /sys/fs/cgroup/freezer; mount -t cgroup -o freezer none \
                     /sys/fs/cgroup/freezer`",
                ),
                Error::NotFrozen { .. } => (Code::Container, "try again: it goes on meanwhile"),
                _ => (Code::Container, "`moat doctor` tells what cgroups can do here"),
            };
            Fault::new(code, "the container's processes can't be stopped").because(error).hint(hint)
        })?;
        self.paused = true;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Fault> {
        if !self.paused {
            return Ok(());
        }
        self.group("to resume")?.thaw().map_err(|error| {
            Fault::new(Code::Container, "the container's processes can't go on").because(error)
        })?;
        self.paused = false;
        Ok(())
    }
}

impl Stats for Running {
    fn ask(&mut self) -> Result<(), Fault> {
        self.answer = Some(self.group("to count what is used")?.figures().map_err(|error| {
            Fault::new(Code::Container, "can't tell what the container uses").because(error)
        }));
        Ok(())
    }

    fn next(&mut self) -> Option<Result<Figures, Fault>> {
        self.answer.take()
    }
}
