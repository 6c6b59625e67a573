//! The filter of the workload's system calls: moat's own, or the user's.

pub mod allow;
mod answers;
mod ready;
mod table;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;

use moat_core::sandbox::{Process, Seccomp, StartError};
use moat_core::seccomp::{Action, Condition, Kernel, LAST, Profile, Rule};
use moat_core::spec::Capability;
use seccompiler::BpfProgram;

use crate::error::Step;
use crate::sys::privilege::{self, FilterFlags};
use answers::{Answer, Answers, NO_SUCH_CALL, Width};
use ready::ready;
use tree::assemble;

/// The most instructions that the kernel takes (linux/bpf_common.h, `BPF_MAXINSNS`).
const LONGEST: usize = 4096;
/// The last number of the time in which each architecture had its own: rseq, of Linux 4.18.
const LAST_OF_OLD: u32 = 334;
/// A program for the kernel.
#[derive(Debug)]
pub(crate) struct Filter {
    program: BpfProgram,
    flags: FilterFlags,
}

impl Filter {
    /// The filter of a process.
    ///
    /// # Errors
    /// When the user's is longer than the kernel takes.
    pub(crate) fn new(process: &Process) -> Result<Self, StartError> {
        match &process.seccomp {
            Seccomp::Default => {
                let program = match ready(&process.capabilities) {
                    Some(program) => program,
                    None => program(&own(&process.capabilities), "moat's own")?,
                };
                Ok(Self { program, flags: FilterFlags::default() })
            }
            Seccomp::Profile(profile) => {
                let flags = FilterFlags { log: profile.log, speculation: profile.speculation };
                let program = program(&users(profile, kernel()?), &profile.name)?;
                Ok(Self { program, flags })
            }
        }
    }

    /// Puts it in force for the calling thread and all that come from it. Needs `no_new_privs` or
    /// CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn install(&self) -> Result<(), StartError> {
        privilege::filter(&self.program, self.flags).step(|| "install the seccomp filter")
    }
}

/// The version of the kernel that is to hold the filter: in a guest, the guest's.
fn kernel() -> Result<Kernel, StartError> {
    let step = || "ask for the kernel's version";
    let names = nix::sys::utsname::uname().step(step)?;
    let release = names.release().to_string_lossy();
    release.parse().map_err(|_| format!("{release:?}")).step(step)
}

pub(crate) fn program(answers: &Answers<'_>, whose: &str) -> Result<BpfProgram, StartError> {
    let program = match assemble(answers) {
        Ok(program) if program.len() > LONGEST => {
            let length = program.len();
            Err(format!("it takes {length} instructions, and the kernel {LONGEST} at most"))
        }
        made => made.map_err(|error| error.to_string()),
    };
    program.step(|| format!("make the seccomp filter: {whose}"))
}

/// moat's own filter, for a workload with these capabilities at most.
fn own(capabilities: &[Capability]) -> Answers<'static> {
    let has = |any: &[Capability]| any.iter().any(|one| capabilities.contains(one));
    let mut answers = Answers::new(NO_SUCH_CALL);
    for call in table::KNOWN.into_iter().flatten() {
        answers.set(call, Answer::Always(Action::Allow));
    }
    for denied in table::CALLS.iter().filter(|denied| !has(denied.unless)) {
        for call in denied.calls {
            answers.set(number(*call), Answer::Always(denied.action));
        }
    }
    for call in table::CONDITIONAL.iter().filter(|call| !has(call.unless)) {
        let rules = call.rules.iter().filter(|rule| !has(rule.unless));
        let rules = rules.map(|rule| (rule.conditions, rule.action)).collect();
        let (otherwise, width) = (call.otherwise, Width::Half);
        answers.set(number(call.call), Answer::ByArguments { rules, otherwise, width });
    }
    answers
}

/// The libc crate's numbers are signed.
fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// The user's rules for a call.
#[derive(Default)]
struct Chain<'a> {
    /// For some arguments, up to the first that is for all.
    rules: Vec<(&'a [Condition], Action)>,
    /// The first that is for all.
    rest: Option<Action>,
}

/// The user's filter, on a kernel of this version.
pub(crate) fn users(profile: &Profile, kernel: Kernel) -> Answers<'_> {
    let there = |rule: &&Rule| {
        let new_enough = rule.since.is_none_or(|since| since <= kernel);
        new_enough && rule.before.is_none_or(|before| kernel < before)
    };
    let mut calls: BTreeMap<u32, Chain<'_>> = BTreeMap::new();
    for rule in profile.rules.iter().filter(there) {
        for call in &rule.calls {
            let chain = calls.entry(*call).or_default();
            if chain.rest.is_none() && rule.conditions.is_empty() {
                chain.rest = Some(rule.action);
            } else if chain.rest.is_none() {
                chain.rules.push((&rule.conditions, rule.action));
            }
        }
    }
    let newest = calls.last_key_value().map_or(0, |(call, _)| *call);
    let mut answers = Answers::new(match profile.default {
        // Calls that the profile's author can't have known.
        Action::Errno(_) => NO_SUCH_CALL,
        other => other,
    });
    for call in 0..=newest.clamp(LAST_OF_OLD, LAST) {
        answers.set(call, Answer::Always(profile.default));
    }
    for (call, Chain { rules, rest }) in calls {
        let otherwise = rest.unwrap_or(profile.default);
        let answer = match rules.is_empty() {
            true => Answer::Always(otherwise),
            false => Answer::ByArguments { rules, otherwise, width: Width::Full },
        };
        answers.set(call, answer);
    }
    answers
}
