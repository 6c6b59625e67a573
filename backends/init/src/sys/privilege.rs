//! Capabilities and seccomp: capset(2), `PR_CAPBSET_DROP`, seccomp(2).
//!
//! Unsafe because they are raw calls. Each passes pointers to whole structures that live across
//! the call; the kernel copies what it reads.
#![allow(unsafe_code)]

use moat_core::spec::Capability;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use seccompiler::sock_filter;

// linux/capability.h
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Takes a capability from what the process and its children can ever gain. One that this kernel
/// does not know is fine.
///
/// # Errors
/// The kernel's.
pub(crate) fn drop_from_bounding(capability: Capability) -> nix::Result<()> {
    // SAFETY: takes no pointer.
    let result =
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability.number())) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// What a process has of each capability.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Capabilities([CapabilityWord; 2]);

impl Capabilities {
    /// Those of the calling process.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn own() -> nix::Result<Self> {
        let mut own = Self::default();
        let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
        // SAFETY: version 3 reads a header and fills two words, which is what is passed.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_capget, std::ptr::from_ref(&header), own.0.as_mut_ptr())
        })?;
        Ok(own)
    }

    /// Permitted and effective.
    pub(crate) fn hold(&mut self, capability: Capability) {
        self.with(capability, |word, bit| {
            word.effective |= bit;
            word.permitted |= bit;
        });
    }

    /// Inheritable.
    pub(crate) fn inherit(&mut self, capability: Capability) {
        self.with(capability, |word, bit| word.inheritable |= bit);
    }

    fn with(&mut self, capability: Capability, set: impl FnOnce(&mut CapabilityWord, u32)) {
        let number = capability.number();
        if let Some(word) = self.0.get_mut(usize::from(number / 32)) {
            set(word, 1 << (number % 32));
        }
    }

    /// Makes the process have these, and no others.
    ///
    /// # Errors
    /// The kernel's: `EPERM` for one that the process does not have.
    pub(crate) fn set(&self) -> nix::Result<()> {
        let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
        // SAFETY: version 3 reads a header and two words, which is what is passed.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_capset, std::ptr::from_ref(&header), self.0.as_ptr())
        })
        .map(drop)
    }
}

/// Does `work` with these file-system ids, so that what it makes is theirs, and with the calling
/// process's rights all the same (setfsuid(2) takes those over files away; capabilities(7)).
///
/// # Errors
/// What the work gave; the kernel's.
pub(crate) fn with_file_ids<T>(
    (uid, gid): (u32, u32),
    work: impl FnOnce() -> nix::Result<T>,
) -> nix::Result<T> {
    let own = Capabilities::own()?;
    let group = setfsgid(Gid::from_raw(gid));
    let user = setfsuid(Uid::from_raw(uid));
    let done = own.set().and_then(|()| work());
    setfsuid(user);
    setfsgid(group);
    own.set()?;
    done
}

/// Lets a capability that is permitted and inheritable stay with the next program, which need not
/// ask for it (capabilities(7), "Ambient").
///
/// # Errors
/// The kernel's.
pub(crate) fn raise_ambient(capability: Capability) -> nix::Result<()> {
    let raise = libc::c_ulong::from(libc::PR_CAP_AMBIENT_RAISE.cast_unsigned());
    let number = libc::c_ulong::from(capability.number());
    let unused: libc::c_ulong = 0;
    // SAFETY: takes no pointer.
    Errno::result(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, number, unused, unused) })
        .map(drop)
}

/// How a filter is put in force.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FilterFlags {
    /// `SECCOMP_FILTER_FLAG_LOG`.
    pub(crate) log: bool,
    /// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
    pub(crate) speculation: bool,
}

/// Adds a seccomp filter. Needs `no_new_privs` or CAP_SYS_ADMIN in the user namespace.
///
/// # Errors
/// The kernel's: `EINVAL` for a program that it does not take.
pub(crate) fn filter(program: &[sock_filter], flags: FilterFlags) -> nix::Result<()> {
    let log = if flags.log { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
    let speculation = if flags.speculation { libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW } else { 0 };
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    // The kernel only reads it; libc's type for the same 8-byte instruction is another.
    let filter = program.as_ptr().cast_mut().cast::<libc::sock_filter>();
    let program = libc::sock_fprog { len, filter };
    // SAFETY: `program` says where the instructions are and how many; both live across the call.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            log | speculation,
            std::ptr::from_ref(&program),
        )
    })
    .map(drop)
}
