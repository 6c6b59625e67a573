//! What a slow thing is doing, on stderr: a bar on a terminal; elsewhere a line for each step, and
//! one now and then while a step takes long.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use moat_core::diagnose::Fault;
use moat_microvm::kernel::{self, Progress, Report};
use serde_json::json;

use crate::interrupt::Interrupt;
use crate::output::Output;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// How often a line tells that a long step goes on.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Does slow work, showing its progress. A signal that ends moat ends the work first, which then
/// undoes what it began.
pub(crate) fn watched<T>(
    output: Output,
    work: impl FnOnce(Report<'_>) -> Result<T, kernel::Error>,
) -> Result<T, Fault> {
    let mut interrupt = Interrupt::hold()?;
    let mut shown = Shown::new(output);
    let outcome = work(&mut |progress| {
        if interrupt.came() {
            // Of a build that is 100 000 files.
            shown.take(Progress { step: "stopping: removing what was made so far", done: None });
            return ControlFlow::Break(());
        }
        shown.take(progress);
        ControlFlow::Continue(())
    });
    drop(shown);
    if matches!(outcome, Err(kernel::Error::Interrupted)) {
        output.note("interrupted: nothing is left of it", || json!({ "interrupted": true }));
        drop(interrupt);
    }
    Ok(outcome?)
}

/// Shows the progress of one slow thing until it is dropped.
struct Shown {
    output: Output,
    bar: Option<ProgressBar>,
    step: String,
    since: Instant,
    told: Instant,
}

impl Shown {
    /// A bar where people look at one, lines where they don't.
    fn new(output: Output) -> Self {
        let bar = output.draws().then(bar);
        let now = Instant::now();
        Self { output, bar, step: String::new(), since: now, told: now }
    }

    /// Takes one report.
    fn take(&mut self, progress: Progress<'_>) {
        let is_new = self.step != progress.step;
        if is_new {
            progress.step.clone_into(&mut self.step);
            self.since = Instant::now();
        }
        if let Some(bar) = &self.bar {
            draw(bar, progress);
        } else if is_new || self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            tell(self.output, progress, self.since.elapsed().as_secs());
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn tell(output: Output, progress: Progress<'_>, seconds: u64) {
    let step = progress.step;
    match progress.done {
        Some((done @ 1.., of @ 1..)) => {
            let percent = done.saturating_mul(100) / of;
            let fields = || json!({ "progress": step, "percent": percent });
            output.note(&format!("{step}: {percent}%"), fields);
        }
        _ if seconds > 0 => {
            let fields = || json!({ "progress": step, "seconds": seconds });
            output.note(&format!("{step}: {seconds} s"), fields);
        }
        _ => output.note(step, || json!({ "progress": step })),
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(TICK);
    bar
}

fn draw(bar: &ProgressBar, progress: Progress<'_>) {
    let template = match progress.done {
        Some((done, of)) => {
            bar.set_length(of);
            bar.set_position(done);
            "{spinner} {msg} {wide_bar} {percent:>3}% {elapsed}"
        }
        None => "{spinner} {msg} {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(progress.step.to_owned());
}
