//! What the workload sees of a process of moat's that is among its own: name, command line and
//! environment. The first two are for all to see, whatever the process is (proc_pid_cmdline(5)).
//!
//! Unsafe because the kernel shows the memory in which it put arguments and environment when the
//! program started, and so they are overwritten there. The caller's process was forked and has one
//! thread, so nothing else reads or writes them at the time. What the standard and the C library
//! keep are pointers to strings in there: they stay valid, and find empty strings, for the last
//! byte of either part is a NUL before and after. No Rust reference to them is ever made.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;

/// What it is called instead, at most 15 bytes (prctl(2), `PR_SET_NAME`).
const NAME: &CStr = c"moat-init";

/// Names of the fields in proc_pid_stat(5), counted from the one after the program's name, which
/// is the second of all and may hold blanks and parentheses.
const ARG_START: usize = 48 - 3;

/// Takes name, command line and environment from the calling process. It must have one thread, and
/// read neither arguments nor environment afterwards.
///
/// # Errors
/// When /proc can't be read.
pub(crate) fn hide() -> io::Result<()> {
    nix::sys::prctl::set_name(NAME)?;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let unknown = || io::Error::other("/proc/self/stat is not as expected");
    let [arg_start, arg_end, env_start, env_end] = places(&stat).ok_or_else(unknown)?;
    for (start, end, text) in [(arg_start, arg_end, NAME.to_bytes()), (env_start, env_end, b"")] {
        let length = end.checked_sub(start).ok_or_else(unknown)?;
        if start == 0 || length == 0 {
            continue;
        }
        let area = std::ptr::with_exposed_provenance_mut::<u8>(start);
        let kept = text.len().min(length - 1);
        // SAFETY: the kernel says that its copy of the arguments (the environment) is there and so
        // long; it is writable, being part of the first stack. See the head of this file.
        unsafe {
            std::ptr::write_bytes(area, 0, length);
            std::ptr::copy_nonoverlapping(text.as_ptr(), area, kept);
        }
    }
    Ok(())
}

/// Where arguments and environment begin and end.
fn places(stat: &str) -> Option<[usize; 4]> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(ARG_START).map(|field| field.trim_end().parse().ok());
    Some([fields.next()??, fields.next()??, fields.next()??, fields.next()??])
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn the_fields_are_those_of_the_manual() {
        let stat: Vec<String> = (1..=52).map(|field: u32| field.to_string()).collect();
        let stat = stat.join(" ").replacen(" 2 ", " (a) (b 2) ", 1);
        assert_eq!(places(&stat), Some([48, 49, 50, 51]));
        assert_eq!(places("1 (x) S 1"), None);
        assert_eq!(places(""), None);
    }

    #[test]
    fn this_process_has_its_arguments_there() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let [arg_start, arg_end, env_start, env_end] = places(&stat).unwrap();
        let length = std::fs::read("/proc/self/cmdline").unwrap().len();
        assert_eq!(arg_end - arg_start, length);
        assert!(arg_end <= env_start && env_start <= env_end);
    }
}
