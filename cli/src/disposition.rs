//! What a signal does to this process (sigaction(2)).
//!
//! Unsafe because sigaction is, to which nothing is given here but a whole structure to fill, that
//! lives across the call and for which all zeroes is a value.
#![allow(unsafe_code)]

use nix::sys::signal::Signal;

/// Whether it is ignored. /proc/self/status says the same of all at once, and takes longer to be
/// written than one start should wait.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    // SAFETY: see the head of this file.
    let mut found: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: see the head of this file; without a new action none is set.
    let told = unsafe { libc::sigaction(signal as i32, std::ptr::null(), &raw mut found) };
    told == 0 && found.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_standard_library_ignores_is_ignored() {
        assert!(is_ignored(Signal::SIGPIPE));
        assert!(!is_ignored(Signal::SIGTERM));
        assert!(!is_ignored(Signal::SIGKILL));
    }
}
