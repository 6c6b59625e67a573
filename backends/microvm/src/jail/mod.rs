//! What a VMM gives up before a hostile guest runs in it: rights, limits, and all system calls but
//! those of each thread's list.
//!
//! ```text
//! calls    the lists, to be read by people     filter  makes and installs filters of them
//! rights   capabilities and resource limits    killed  who broke the rules, and how
//! allocator  what the C library must not do
//! ```

pub(crate) mod allocator;
mod calls;
mod filter;
pub(crate) mod killed;
pub(crate) mod rights;
#[cfg(test)]
mod tests;

use nix::errno::Errno;

/// A kind of thread of a running machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thread {
    /// The one that made the machine and waits for its end.
    Main,
    /// One that runs guest code.
    Vcpu,
    /// That of a device, by its name.
    Device(&'static str),
}

/// Called by each thread of a machine before it touches anything of the guest's, and by the main
/// one when all others are made.
pub type Confine = fn(Thread) -> Result<(), Refused>;

/// The host refused a thread's confinement, and the thread must not go on.
#[derive(Debug, thiserror::Error)]
#[error("can't {action} of the VMM's thread {thread:?}")]
pub struct Refused {
    action: &'static str,
    thread: Thread,
    /// The kernel's reason.
    source: Errno,
}

/// Holds the calling thread to its list of system calls, and takes its rights but those of the file
/// server. For good.
///
/// # Errors
/// The kernel's.
pub fn confine(thread: Thread) -> Result<(), Refused> {
    let failed = |action| move |source| Refused { action, thread, source };
    nix::sys::prctl::set_no_new_privs().map_err(failed("set no_new_privs"))?;
    if thread != Thread::Device(calls::FILE_SERVER) {
        rights::give_up_all().map_err(failed("take the rights"))?;
    }
    if thread == Thread::Main {
        rights::end_growth().map_err(failed("limit the resources"))?;
    }
    filter::install(thread).map_err(failed("filter the system calls"))
}

/// As [`confine`], but for the main thread, which is left as it is: for a process that has more to
/// do when its machine has ended.
///
/// # Errors
/// The kernel's.
pub fn confine_all_but_main(thread: Thread) -> Result<(), Refused> {
    if thread == Thread::Main { Ok(()) } else { confine(thread) }
}

/// Leaves the calling thread as it is: for machines whose guests are trusted, in tests.
///
/// # Errors
/// None.
pub fn leave_free(_: Thread) -> Result<(), Refused> {
    Ok(())
}
