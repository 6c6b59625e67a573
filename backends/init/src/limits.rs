//! The workload's resource limits (setrlimit(2)).

use moat_core::sandbox::StartError;
use moat_core::spec::{Resource, Rlimit};
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::error::Step;
use crate::sys::process::{limits, set_limits};

/// Descriptors unless the spec says otherwise, soft and hard: the soft limit that select(2) needs,
/// and a hard one that lets servers raise it; the values that systemd gives its services.
const DESCRIPTORS: (u64, u64) = (1024, 524_288);

const OWN: Pid = Pid::from_raw(0);

/// Sets the calling process's limits.
///
/// # Errors
/// [`StartError::Setup`] when a hard limit would be raised that the process may not raise.
pub(crate) fn apply(rlimits: &[Rlimit]) -> Result<(), StartError> {
    if !rlimits.iter().any(|limit| limit.resource == Resource::Nofile) {
        let step = || "set resource limit nofile";
        let (_, hard) = limits(OWN, Resource::Nofile).step(step)?;
        let hard = hard.min(DESCRIPTORS.1);
        set_limits(OWN, Resource::Nofile, (DESCRIPTORS.0.min(hard), hard)).step(step)?;
    }
    for limit in rlimits {
        let name = format!("{:?}", limit.resource).to_lowercase();
        match set_limits(OWN, limit.resource, values(limit)) {
            Err(Errno::EPERM) => {
                let reason = "the hard limit of whoever started moat is lower";
                Err(reason.to_owned()).step(|| format!("set resource limit {name}"))?;
            }
            set => set.step(|| format!("set resource limit {name}"))?,
        }
    }
    Ok(())
}

/// Raises the hard limits of process `pid` so far that `apply` may set these limits there. For
/// the machine's root to do before the process, in a user namespace, can't itself.
///
/// # Errors
/// prlimit(2)'s.
pub fn raise_hard(pid: Pid, rlimits: &[Rlimit]) -> nix::Result<()> {
    for limit in rlimits {
        let (soft, hard) = limits(pid, limit.resource)?;
        let (_, wanted) = values(limit);
        if wanted > hard {
            match set_limits(pid, limit.resource, (soft, wanted)) {
                // Root without CAP_SYS_RESOURCE: what it means is told where the limit is set.
                Ok(()) | Err(Errno::EPERM) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

fn values(limit: &Rlimit) -> (u64, u64) {
    (limit.soft.unwrap_or(libc::RLIM_INFINITY), limit.hard.unwrap_or(libc::RLIM_INFINITY))
}
