//! A process of moat's that becomes the workload's, in one fork.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use moat_core::fault_point::FaultPoint;
use moat_core::sandbox::StartError;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::error::Step;
use crate::process::Program;
use crate::sys::clone::{self, Child};
use crate::sys::trampoline::Trampoline;

/// Makes the workload's process; comes back when it has become the command or failed to. Where
/// moat's own executable is `exposed` to the workload's ids, that goes by way of a program that has
/// nothing to protect.
///
/// # Errors
/// Why the workload does not run.
pub(crate) fn launch(program: &Program, exposed: bool) -> Result<Child, StartError> {
    let step = || "start the workload";
    if !exposed {
        return clone::spawn_to_exec(|| {
            FaultPoint::WorkloadMade.reached();
            program.execute(None)
        })
        .step(step)?;
    }
    let (heard, report) = pipe2(OFlag::O_CLOEXEC).step(step)?;
    let way = Trampoline::make(report.as_fd()).step(step)?;
    let mut file = None;
    let child = clone::spawn_to_exec(|| {
        FaultPoint::WorkloadMade.reached();
        program.execute_by(&way, None, &mut file)
    })
    .step(step)??;
    drop(way);
    drop(report);
    // It ends when the process has become the command.
    let mut said = Vec::new();
    File::from(heard).take(2).read_to_end(&mut said).step(step)?;
    match (said.last(), file) {
        (Some(number), Some(file)) => {
            child.wait().step(step)?;
            Err(program.refused(&file, Errno::from_raw(i32::from(*number))))
        }
        _ => Ok(child),
    }
}
