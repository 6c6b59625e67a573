//! The workload's default seccomp filter.

mod table;

use std::collections::BTreeMap;

use moat_core::sandbox::StartError;
use moat_core::spec::Capability;
use nix::errno::Errno;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

use crate::error::Step;
use crate::sys::privilege;
use table::Denied;

/// Two programs, both of which every system call passes: the stricter answer holds.
#[derive(Debug)]
pub(crate) struct Filter {
    gate: [sock_filter; 5],
    table: BpfProgram,
}

impl Filter {
    /// The filter for a workload with these capabilities.
    ///
    /// # Errors
    /// None that the table can cause, but seccompiler's are passed on.
    pub(crate) fn new(capabilities: &[Capability]) -> Result<Self, StartError> {
        let table = compile(capabilities)
            .map_err(|error| error.to_string())
            .step(|| "make the seccomp filter")?;
        Ok(Self { gate: gate(), table })
    }

    /// Puts it in force for the calling thread and all that come from it. Needs `no_new_privs` or
    /// CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn install(&self) -> Result<(), StartError> {
        // The gate last: what was added last runs first, and most calls end there.
        privilege::filter(&self.table)
            .and_then(|()| privilege::filter(&self.gate))
            .step(|| "install the seccomp filter")
    }
}

/// What seccompiler has no words for: x32 calls, which have the numbers of others with a bit set
/// (asm/unistd.h, `__X32_SYSCALL_BIT`), and clone3, whose flags are behind a pointer and for which
/// programs fall back to clone on `ENOSYS`. Other architectures' calls are ended by the table's
/// program, which seccompiler starts with that check.
fn gate() -> [sock_filter; 5] {
    // linux/bpf_common.h
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    /// `offsetof(struct seccomp_data, nr)` (seccomp(2)).
    const NUMBER: u32 = 0;
    const X32_BIT: u32 = 0x4000_0000;
    const CLONE3: u32 = 435;
    const _: () = assert!(libc::SYS_clone3 == CLONE3 as libc::c_long);
    let no_such_call = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    [
        step(LOAD, 0, 0, NUMBER),
        step(JUMP_IF_AT_LEAST, 2, 0, X32_BIT),
        step(JUMP_IF_EQUAL, 1, 0, CLONE3),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, 0, no_such_call),
    ]
}

fn compile(capabilities: &[Capability]) -> Result<BpfProgram, BackendError> {
    let mut rules = BTreeMap::new();
    for denied in table::CALLS {
        let calls = match denied {
            Denied::Always(calls) => calls,
            Denied::Without(needed, _) if capabilities.contains(needed) => continue,
            Denied::Without(_, calls) => calls,
        };
        rules.extend(calls.iter().map(|call| (*call, Vec::new())));
    }
    if !capabilities.contains(&Capability::SYS_ADMIN) {
        let flags = table::NAMESPACE_FLAGS;
        rules.insert(libc::SYS_clone, any_flag(flags.into_iter())?);
        let flags = flags.into_iter().chain([table::NEW_TIME]);
        rules.insert(libc::SYS_unshare, any_flag(flags)?);
    }
    let families = table::SOCKET_FAMILIES.iter().map(|family| u64::from(family.cast_unsigned()));
    rules.insert(libc::SYS_socket, any_value(0, families.clone())?);
    rules.insert(libc::SYS_socketpair, any_value(0, families)?);
    rules.insert(libc::SYS_ioctl, any_value(1, table::TERMINAL_REQUESTS.into_iter())?);
    let other_than_all = table::PERSONALITIES
        .iter()
        .map(|value| condition(0, SeccompCmpOp::Ne, *value))
        .collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_personality, vec![SeccompRule::new(other_than_all)?]);
    let denied = SeccompAction::Errno(Errno::EPERM as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, denied, TargetArch::x86_64)?.try_into()
}

/// Denies a call when one of these bits of its first argument is set.
fn any_flag(flags: impl Iterator<Item = libc::c_int>) -> Result<Vec<SeccompRule>, BackendError> {
    flags
        .map(|flag| {
            let bit = u64::from(flag.cast_unsigned());
            SeccompRule::new(vec![condition(0, SeccompCmpOp::MaskedEq(bit), bit)?])
        })
        .collect()
}

/// Denies a call when this argument is one of these values.
fn any_value(
    argument: u8,
    values: impl Iterator<Item = u64>,
) -> Result<Vec<SeccompRule>, BackendError> {
    values
        .map(|value| SeccompRule::new(vec![condition(argument, SeccompCmpOp::Eq, value)?]))
        .collect()
}

/// The kernel itself looks at the lower half of these arguments alone, and so does the filter.
fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}
