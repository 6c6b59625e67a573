//! What a slow thing is doing, on stderr: a bar on a terminal, a line a step elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use moat_microvm::kernel::Progress;
use serde_json::json;

use crate::output::Output;

/// How often a spinner turns, in milliseconds.
const TICK: std::time::Duration = std::time::Duration::from_millis(120);

/// Shows the progress of one slow thing until it is dropped.
pub(crate) struct Shown {
    output: Output,
    bar: Option<ProgressBar>,
    step: String,
}

impl Shown {
    /// A bar where people look at one, lines where they don't.
    pub(crate) fn new(output: Output) -> Self {
        Self { output, bar: output.draws().then(bar), step: String::new() }
    }

    /// Takes one report.
    pub(crate) fn take(&mut self, progress: Progress<'_>) {
        let is_new = self.step != progress.step;
        if is_new {
            progress.step.clone_into(&mut self.step);
        }
        match &self.bar {
            Some(bar) => draw(bar, progress),
            None if is_new => {
                self.output.note(progress.step, || json!({ "progress": progress.step }));
            }
            None => {}
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
