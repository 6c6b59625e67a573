//! What a filter does with each call, before it is a program.

use moat_core::seccomp::{Action, Condition, LAST};

/// What says that there is no such call, so that a program uses an older one.
pub(super) const NO_SUCH_CALL: Action = Action::Errno(38);
/// `__X32_SYSCALL_BIT` (asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;
/// The answer of calls that nobody has set, and of those beyond [`LAST`].
const NEWER: u16 = 0;
/// The answer of calls that are closed in every filter.
const CLOSED: u16 = 1;

/// What is done with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// This, whatever the arguments.
    Always(Action),
    /// What the arguments decide.
    ByArguments {
        /// In this order: the first of which all conditions hold decides.
        rules: Vec<(&'a [Condition], Action)>,
        /// What is done where none does.
        otherwise: Action,
        /// How much of each argument is looked at.
        width: Width,
    },
}

/// How much of an argument is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// The lower 32 bits.
    Half,
    /// All 64.
    Full,
}

/// The answers for all calls.
#[derive(Debug)]
pub(crate) struct Answers<'a> {
    /// Each different answer once.
    different: Vec<Answer<'a>>,
    /// Which of them each call has, by its number.
    calls: Vec<u16>,
}

/// The calls from one number on, to the next segment's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// The first number.
    pub(super) from: u32,
    /// Their answer, as [`Answers::get`] knows it.
    pub(super) answer: u16,
}

impl<'a> Answers<'a> {
    /// The same for every call.
    pub(super) fn new(action: Action) -> Self {
        let closed = Answer::Always(NO_SUCH_CALL);
        let calls = (0..=LAST).map(|_| NEWER).collect();
        Self { different: vec![Answer::Always(action), closed], calls }
    }

    /// This for every call that is not set, x32's too.
    pub(super) fn only(action: Action) -> Self {
        let mut answers = Self::new(action);
        answers.different.iter_mut().for_each(|answer| *answer = Answer::Always(action));
        answers
    }

    /// Sets the answer for a call. One beyond [`LAST`] keeps the first that was set.
    pub(super) fn set(&mut self, call: u32, answer: Answer<'a>) {
        let found = self.different.iter().position(|known| *known == answer);
        let index = found.unwrap_or_else(|| {
            self.different.push(answer);
            self.different.len() - 1
        });
        let call = usize::try_from(call).ok().and_then(|call| self.calls.get_mut(call));
        if let (Some(call), Ok(index)) = (call, u16::try_from(index)) {
            *call = index;
        }
    }

    pub(super) fn get(&self, answer: u16) -> Option<&Answer<'a>> {
        self.different.get(usize::from(answer))
    }

    /// In the order of their numbers, the first from 0, neighbours different. x32's calls, which
    /// have the numbers of others with a bit set, do not exist in any filter.
    pub(super) fn segments(&self) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::with_capacity(128);
        let calls = (0..).zip(self.calls.iter().copied());
        for (from, answer) in calls.chain([(LAST + 1, NEWER), (X32_BIT, CLOSED)]) {
            let answered = segments.last().and_then(|last| self.get(last.answer));
            if answered.is_none_or(|last| Some(last) != self.get(answer)) {
                segments.push(Segment { from, answer });
            }
        }
        segments
    }
}
