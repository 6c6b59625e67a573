//! A filter that names what is allowed, for a program that knows all its calls, as the VMM does.

use moat_core::seccomp::{Action, Condition};
use nix::errno::Errno;
use seccompiler::BpfProgram;

use super::answers::{Answer, Answers, Width};
use super::{number, tree};
use crate::sys::privilege::{self, FilterFlags};

/// The calls of one thread. Any other kills its whole process (`SECCOMP_RET_KILL_PROCESS`,
/// seccomp(2)).
#[derive(Debug)]
pub struct AllowList<'a>(Answers<'a>);

impl<'a> AllowList<'a> {
    /// None at all.
    #[must_use]
    pub fn new() -> Self {
        Self(Answers::only(Action::KillProcess))
    }

    /// Allows a call, by its number.
    pub fn allow(&mut self, call: libc::c_long) {
        self.0.set(number(call), Answer::Always(Action::Allow));
    }

    /// Allows a call where any of these lists of conditions holds whole. The lower 32 bits of an
    /// argument are looked at: for numbers that the kernel takes as an `int` or as flags of one.
    pub fn allow_where(
        &mut self,
        call: libc::c_long,
        any_of: impl IntoIterator<Item = &'a [Condition]>,
    ) {
        let rules = any_of.into_iter().map(|all| (all, Action::Allow)).collect();
        let (otherwise, width) = (Action::KillProcess, Width::Half);
        self.0.set(number(call), Answer::ByArguments { rules, otherwise, width });
    }

    /// Makes a program of it.
    ///
    /// # Errors
    /// `EINVAL` for a condition on an argument that no call has.
    pub fn compile(&self) -> nix::Result<Program> {
        tree::assemble(&self.0).map(Program).map_err(|_| Errno::EINVAL)
    }
}

impl Default for AllowList<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// A filter for the kernel.
#[derive(Debug, Clone)]
pub struct Program(BpfProgram);

impl Program {
    /// Puts it in force for the calling thread, for ever. Needs `no_new_privs` or CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// The kernel's: `EINVAL` when it has no filters.
    pub fn install(&self) -> nix::Result<()> {
        privilege::filter(&self.0, FilterFlags::default())
    }
}
