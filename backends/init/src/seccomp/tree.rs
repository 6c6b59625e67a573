//! A filter as a program: a binary tree over the calls' numbers, so that each is decided in few
//! steps. The kernel tries a new filter with every number, to find the calls that it need not ask
//! the filter about (`seccomp_cache_prepare` in kernel/seccomp.c): in a chain, that is most of what
//! installing one takes.

use moat_core::seccomp::{Action, Condition, Operator};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompRule, sock_filter,
};

use super::answers::{Answer, Answers, Segment, Width};

// linux/bpf_common.h
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// `offsetof(struct seccomp_data, nr)` (seccomp(2)).
const NUMBER: u32 = 0;
/// `offsetof(struct seccomp_data, arch)`.
const ARCHITECTURE: u32 = 4;
/// `AUDIT_ARCH_X86_64` (linux/audit.h).
const X86_64: u32 = 0xc000_003e;

/// Makes the program. Calls of another architecture kill the process, since their numbers mean other
/// calls.
///
/// # Errors
/// None that a condition of an argument from 0 to 5 causes.
pub(super) fn assemble(answers: &Answers<'_>) -> Result<BpfProgram, BackendError> {
    let mut program = Backwards { answers, steps: Vec::with_capacity(512) };
    let root = program.tree(&answers.segments())?;
    let behind = program.steps.len() - root;
    if behind > 0 {
        program.push(JUMP, u32::try_from(behind).unwrap_or(u32::MAX));
    }
    program.push(LOAD, NUMBER);
    program.push(RETURN, number(Action::KillProcess));
    program.steps.push(sock_filter { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k: X86_64 });
    program.push(LOAD, ARCHITECTURE);
    program.steps.reverse();
    Ok(program.steps)
}

/// A program in the making, from its end: all jumps are forward, so where one goes is known when it
/// is made. A place is how many instructions there are from it to the end.
struct Backwards<'a> {
    answers: &'a Answers<'a>,
    steps: Vec<sock_filter>,
}

impl Backwards<'_> {
    /// Decides among these segments; gives where to jump for that.
    fn tree(&mut self, segments: &[Segment]) -> Result<usize, BackendError> {
        match segments {
            [] => Ok(self.end(Action::KillProcess)),
            [one] => self.answer(one.answer),
            // One number apart from those around it: as most of what is denied.
            [around, one, rest]
                if around.answer == rest.answer && one.from.checked_add(1) == Some(rest.from) =>
            {
                let rest = self.answer(around.answer)?;
                let exact = self.answer(one.answer)?;
                Ok(self.branch(JUMP_IF_EQUAL, one.from, exact, rest))
            }
            _ => {
                let (below, above) = segments.split_at(segments.len() / 2);
                let from = above.first().map_or(0, |segment| segment.from);
                let above = self.tree(above)?;
                let below = self.tree(below)?;
                Ok(self.branch(JUMP_IF_AT_LEAST, from, above, below))
            }
        }
    }

    fn answer(&mut self, answer: u16) -> Result<usize, BackendError> {
        match self.answers.get(answer) {
            None => Ok(self.end(Action::KillProcess)),
            Some(Answer::Always(action)) => Ok(self.end(*action)),
            Some(Answer::ByArguments { rules, otherwise, width }) => {
                let mut chain = BpfProgram::new();
                let mut loaded = None;
                for (conditions, action) in rules {
                    let conditions = conditions
                        .iter()
                        .map(|condition| compiled(condition, *width))
                        .collect::<Result<_, _>>()?;
                    let rule = BpfProgram::from(SeccompRule::new(conditions)?);
                    let rule = needed(&rule, loaded);
                    loaded = left_loaded(rule, loaded);
                    chain.extend_from_slice(rule);
                    // Where the rule does not match it jumps over what follows it, which is this.
                    chain.push(step(RETURN, number(*action)));
                }
                chain.push(step(RETURN, number(*otherwise)));
                self.steps.extend(chain.into_iter().rev());
                Ok(self.steps.len())
            }
        }
    }

    /// A return that is near enough to be jumped to.
    fn end(&mut self, action: Action) -> usize {
        /// Leaves room for what is made before the jump is.
        const NEAR: usize = 200;
        let k = number(action);
        let newest = self.steps.iter().rev().take(NEAR);
        let found = newest.into_iter().position(|step| step.code == RETURN && step.k == k);
        match found {
            Some(behind) => self.steps.len() - behind,
            None => {
                self.push(RETURN, k);
                self.steps.len()
            }
        }
    }

    /// Jumps to `yes` or to `no`.
    fn branch(&mut self, code: u16, k: u32, yes: usize, no: usize) -> usize {
        let no = self.within_reach(no);
        let yes = self.within_reach(yes);
        let distance = |place: usize| u8::try_from(self.steps.len() - place).unwrap_or(u8::MAX);
        let (jt, jf) = (distance(yes), distance(no));
        self.steps.push(sock_filter { code, jt, jf, k });
        self.steps.len()
    }

    /// A place from which to go to `place` that a branch made next can reach: itself, or a jump.
    fn within_reach(&mut self, place: usize) -> usize {
        let distance = self.steps.len() - place;
        // One more may be made for the branch's other way.
        if distance < usize::from(u8::MAX) {
            return place;
        }
        self.push(JUMP, u32::try_from(distance).unwrap_or(u32::MAX));
        self.steps.len()
    }

    fn push(&mut self, code: u16, k: u32) {
        self.steps.push(step(code, k));
    }
}

const fn step(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// A rule without what it begins with in vain: a jump over steps that, since all jumps are forward,
/// nothing else comes to, and a load of what is `loaded`.
fn needed(rule: &[sock_filter], loaded: Option<u32>) -> &[sock_filter] {
    let rule = match rule {
        [first, rest @ ..] if first.code == JUMP => {
            usize::try_from(first.k).ok().and_then(|over| rest.get(over..)).unwrap_or(rule)
        }
        rule => rule,
    };
    match rule {
        [first, rest @ ..] if first.code == LOAD && Some(first.k) == loaded => rest,
        rule => rule,
    }
}

/// What is loaded where a rule did not match, if that is the same wherever it did not.
fn left_loaded(rule: &[sock_filter], loaded: Option<u32>) -> Option<u32> {
    // linux/bpf_common.h: the class of jumps.
    let is_branch = |step: &sock_filter| step.code & 0x07 == JUMP && step.code != JUMP;
    match rule {
        [only] if is_branch(only) => loaded,
        [load, only] if load.code == LOAD && is_branch(only) => Some(load.k),
        _ => None,
    }
}

fn compiled(condition: &Condition, width: Width) -> Result<SeccompCondition, BackendError> {
    let operator = match condition.operator {
        Operator::Equal => SeccompCmpOp::Eq,
        Operator::NotEqual => SeccompCmpOp::Ne,
        Operator::Less => SeccompCmpOp::Lt,
        Operator::LessOrEqual => SeccompCmpOp::Le,
        Operator::Greater => SeccompCmpOp::Gt,
        Operator::GreaterOrEqual => SeccompCmpOp::Ge,
        Operator::MaskedEqual(mask) => SeccompCmpOp::MaskedEq(mask),
    };
    let width = match width {
        Width::Half => SeccompCmpArgLen::Dword,
        Width::Full => SeccompCmpArgLen::Qword,
    };
    SeccompCondition::new(condition.argument, width, operator, condition.value)
}

/// What a filter returns for it.
fn number(action: Action) -> u32 {
    u32::from(match action {
        Action::KillProcess => SeccompAction::KillProcess,
        Action::KillThread => SeccompAction::KillThread,
        Action::Trap => SeccompAction::Trap,
        Action::Errno(errno) => SeccompAction::Errno(u32::from(errno)),
        Action::Trace(message) => SeccompAction::Trace(u32::from(message)),
        Action::Log => SeccompAction::Log,
        Action::Allow => SeccompAction::Allow,
    })
}
