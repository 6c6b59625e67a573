//! Gives back memory that a start has touched and a long wait does not: what of moat's own file is
//! never written leaves the page tables, and comes again, mostly from the page cache, when it is
//! needed.
//!
//! Unsafe because dl_iterate_phdr(3) hands out pointers to this program's own headers, which stay;
//! and because of madvise(2) on it. Only segments without the right to be written are given back:
//! none of their pages can differ from the file's.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

/// Bytes of a page on x86-64. On another machine what does not begin with one is refused, and stays.
const PAGE: usize = 4096;

/// Gives back what there is.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and frees only what nobody has.
    unsafe {
        libc::malloc_trim(0);
    }
    // SAFETY: see the head of this file; the function that is called keeps to the signature and is
    // given no data.
    unsafe { libc::dl_iterate_phdr(Some(forget_unwritten), std::ptr::null_mut()) };
}

/// Called for each object of this program.
extern "C" fn forget_unwritten(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: the C library passes a structure that lives across this call.
    let info = unsafe { &*info };
    // SAFETY: so many headers are there, for as long as the object is.
    let headers =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let (Ok(offset), Ok(length)) =
            (usize::try_from(header.p_vaddr), usize::try_from(header.p_memsz))
        else {
            continue;
        };
        let Ok(at) = usize::try_from(info.dlpi_addr) else { continue };
        let Some(start) = at.checked_add(offset) else { continue };
        // Segments share no page of memory, whatever they do in the file.
        let into_page = start % PAGE;
        let from = std::ptr::with_exposed_provenance_mut(start - into_page);
        // SAFETY: see the head of this file.
        unsafe { libc::madvise(from, length.saturating_add(into_page), libc::MADV_DONTNEED) };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_goes_on_with_less() {
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = text.lines().find(|line| line.starts_with("RssFile:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let text: String = (0..1000).map(|number| format!("{number}")).collect();
        let before = resident();
        give_back();
        let after = resident();
        assert!(after < before, "{after} of {before} KiB");
        assert_eq!(text, (0..1000).map(|number| number.to_string()).collect::<String>());
    }
}
