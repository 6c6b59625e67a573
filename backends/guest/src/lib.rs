//! PID 1 in the micro-VM: brings the guest up, connects to the host, and runs one workload with the
//! same moat-init code as a container.
//!
//! ```text
//! boot      leave the initramfs' root, mount, load modules, mount the share
//! channel   frames over the socket to the host
//! session   Ready, Start, the workload, Exited: one poll loop
//! workload  cgroup, namespaces, moat-init
//! further   more processes in it: their streams, their ends
//! stdio     a process's ends of its streams and ours
//! seed      wall clock and entropy
//! ```
//! The workload lives in a pid, mount, ipc, uts, net and cgroup namespace of its own, so that it
//! can't see, signal or trace this agent. What the agent does when something fails is to end: PID
//! 1's end is a kernel panic, the machine resets, and the host says so with the console's tail.

mod boot;
mod channel;
mod further;
mod modules;
mod seed;
mod session;
mod stdio;
mod workload;

use std::convert::Infallible;
use std::os::fd::OwnedFd;

use moat_core::wire::AGENT_PORT;
use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};

pub use session::{SessionError, Surroundings, serve};

/// The host's context id (vsock(7)).
const HOST_CID: u32 = libc::VMADDR_CID_HOST;

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The guest could not be brought up.
    #[error("the guest can't be brought up")]
    Boot(#[from] boot::BootError),
    /// The host's agent port does not answer.
    #[error("can't connect to the host's vsock port {port}")]
    Connect {
        /// The port.
        port: u32,
        /// The kernel's reason.
        source: Errno,
    },
    /// The session with the host broke.
    #[error("the session with the host broke")]
    Session(#[from] SessionError),
    /// The machine can't be reset.
    #[error("the machine can't be reset")]
    Reset(#[source] Errno),
}

/// Brings the guest up, serves the host until it hangs up, and resets the machine.
///
/// # Errors
/// When any of it fails; the caller, PID 1, can only end then.
pub fn run() -> Result<Infallible, AgentError> {
    boot::leave_initramfs()?;
    boot::bring_up()?;
    let channel = connect_to_host()?;
    serve(channel, &boot::surroundings())?;
    nix::unistd::sync();
    // A reset and not a power-off: moat's own kernel has no ACPI to power off with.
    match reboot(RebootMode::RB_AUTOBOOT) {
        Ok(never) => match never {},
        Err(errno) => Err(AgentError::Reset(errno)),
    }
}

fn connect_to_host() -> Result<OwnedFd, AgentError> {
    let connect_error = |source| AgentError::Connect { port: AGENT_PORT, source };
    let channel = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(connect_error)?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&channel), &VsockAddr::new(HOST_CID, AGENT_PORT))
        .map_err(connect_error)?;
    Ok(channel)
}
