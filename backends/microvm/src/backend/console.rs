//! The end of what the guest's console said, kept for the fault that a lost guest becomes.

use std::collections::VecDeque;

/// How many of the console's last bytes are kept.
const KEPT: usize = 16 << 10;

/// How many of its last lines a fault shows.
const LINES: usize = 20;

/// The console's last bytes.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let excess = self.0.len().saturating_sub(KEPT);
        self.0.drain(..excess);
    }

    /// The last lines, as text that can be printed: the guest may have written anything, terminal
    /// controls too.
    pub(super) fn text(&self) -> Option<String> {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text: String = String::from_utf8_lossy(&bytes)
            .chars()
            .map(|c| if c == '\n' || !c.is_control() { c } else { ' ' })
            .collect();
        let lines: Vec<&str> =
            text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let last = lines.len().saturating_sub(LINES);
        // What came just before a panic says more than the registers that it prints.
        let panic = lines.iter().rposition(|line| line.contains("Kernel panic"));
        let first = panic.map_or(last, |panic| panic.saturating_sub(LINES / 2).min(last));
        let shown: Vec<&str> = lines.into_iter().skip(first).take(LINES).collect();
        (!shown.is_empty()).then(|| shown.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_shown_and_only_what_can_be_printed() {
        let mut tail = Tail::default();
        assert_eq!(tail.text(), None);
        for line in 0..100_000 {
            tail.push(format!("line {line}\r\n").as_bytes());
        }
        tail.push(b"\x1b]0;title\x07 \xff end");
        assert!(tail.0.len() <= KEPT);
        let text = tail.text().unwrap();
        assert_eq!(text.lines().count(), LINES);
        assert_eq!(text.lines().next(), Some("line 99981"));
        assert_eq!(text.lines().last(), Some(" ]0;title  \u{fffd} end"));
    }

    #[test]
    fn of_a_panic_its_reason_is_shown_and_not_the_end_of_its_dump() {
        let mut tail = Tail::default();
        tail.push(b"moat-guest: no share\nKernel panic - not syncing: init is gone\n");
        (0..50).for_each(|register| tail.push(format!("R{register}: 0\n").as_bytes()));
        let text = tail.text().unwrap();
        assert!(text.starts_with("moat-guest: no share\nKernel panic"), "{text}");
        assert_eq!(text.lines().count(), LINES);
    }
}
