//! Where moat begins. The standard library's own beginning asks the C library for the end of the
//! stack, which reads /proc/self/maps, and sets up a second stack, both for its message about a
//! stack that has overflowed: a twentieth of all that a start takes. What else it does is done
//! here: stdin, stdout and stderr are open, SIGPIPE is ignored, and stdout is flushed at the end.
//!
//! Unsafe because the C library calls [`main`] by its bare name, of which there is one in a program;
//! the standard library takes the arguments from glibc by itself (in `.init_array`). fcntl and open
//! get numbers and a constant string. The disposition that is set for SIGPIPE calls no handler.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

use nix::sys::signal::{SigHandler, Signal, signal};

/// Called by the C library.
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    open_standard_streams();
    // SAFETY: see the head of this file.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    // Flushes stdout.
    std::process::exit(i32::from(crate::moat()))
}

/// Opens those of stdin, stdout and stderr that are closed: the next files that moat opens would
/// else be in their places.
fn open_standard_streams() {
    for number in 0..=2 {
        // SAFETY: see the head of this file. The lowest number that is free is this one.
        let opened = unsafe {
            libc::fcntl(number, libc::F_GETFD) != -1
                || libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) == number
        };
        if !opened {
            std::process::abort();
        }
    }
}
