//! What the guest's agent says that the workload uses, asked over the channel. A guest may answer
//! late, or never.

use std::time::{Duration, Instant};

use moat_core::diagnose::{Code, Fault};
use moat_core::workload::Figures;

/// How long the guest's agent may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// The most of a guest's text that is shown, in characters.
const TEXT: usize = 300;

/// A question to the guest, and its answer.
#[derive(Debug, Default)]
pub(super) struct Asked {
    question: Question,
    answer: Option<Result<Figures, Fault>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Question {
    #[default]
    None,
    /// Somebody waits for the answer until then.
    Awaited(Instant),
    /// Nobody does any more; it may come yet.
    Late,
}

impl Asked {
    /// Somebody wants to know; whether the guest has to be asked for it.
    pub(super) fn ask(&mut self) -> bool {
        let is_new = self.question == Question::None;
        if !matches!(self.question, Question::Awaited(_)) {
            self.question = Question::Awaited(Instant::now() + LIMIT);
        }
        is_new
    }

    /// What is known without asking the guest.
    pub(super) fn answer(&mut self, answer: Result<Figures, Fault>) {
        self.answer = Some(answer);
    }

    /// Until when the answer is waited for.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.question {
            Question::Awaited(until) => Some(until),
            Question::None | Question::Late => None,
        }
    }

    /// The guest has answered. False when nothing was asked.
    pub(super) fn hear(&mut self, figures: Result<Figures, String>) -> bool {
        match std::mem::take(&mut self.question) {
            Question::None => return false,
            Question::Late => {}
            Question::Awaited(_) => {
                self.answer = Some(figures.map_err(|text| {
                    fault("can't tell what the workload uses").because(printable(&text))
                }));
            }
        }
        true
    }

    /// It is late: whoever waits is told that no answer came.
    pub(super) fn give_up_late(&mut self) {
        if self.until().is_some_and(|until| until <= Instant::now()) {
            self.give_up();
            let what = format!("the guest does not say what it uses within {} s", LIMIT.as_secs());
            self.answer = Some(Err(fault(what).hint("it may be too busy: try again")));
        }
    }

    /// Nobody waits for an answer any more.
    pub(super) fn give_up(&mut self) {
        if self.question != Question::None {
            self.question = Question::Late;
        }
    }

    /// Whether there is an answer that was not told yet.
    pub(super) fn has_answer(&self) -> bool {
        self.answer.is_some()
    }

    /// The answer, once.
    pub(super) fn take(&mut self) -> Option<Result<Figures, Fault>> {
        self.answer.take()
    }
}

fn fault(what: impl Into<String>) -> Fault {
    Fault::new(Code::Microvm, what)
}

/// A guest's text may be long, and hold what moves a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().take(TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Result<Figures, String> {
        Err("no\x1b[2Jway".repeat(100))
    }

    #[test]
    fn one_question_at_a_time_and_one_answer_to_each() {
        let mut asked = Asked::default();
        assert!(!asked.hear(refused()), "nothing was asked");
        assert!(asked.ask() && !asked.ask());
        assert!(asked.hear(refused()) && asked.until().is_none());
        let cause = asked.take().unwrap().unwrap_err().source.unwrap().to_string();
        assert!(cause.starts_with("no [2Jway") && cause.chars().count() == TEXT, "{cause}");
        assert!(asked.take().is_none() && !asked.hear(refused()));
    }

    #[test]
    fn an_answer_that_comes_late_is_that_to_the_next_question() {
        let mut asked = Asked::default();
        assert!(asked.ask());
        asked.give_up();
        // The guest still owes an answer.
        assert!(!asked.ask() && asked.until().is_some());
        assert!(asked.hear(refused()) && asked.has_answer());
        assert!(asked.ask());
        asked.give_up();
        asked.take();
        assert!(asked.hear(refused()) && !asked.has_answer(), "nobody waits for it");
        assert!(!asked.hear(refused()));
    }
}
