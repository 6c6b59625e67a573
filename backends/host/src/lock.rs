//! Locks on files that last as long as the process that took them, however that ends (fcntl(2),
//! "Open file description locks"). Unlike pids they can't be mistaken, and mean the same in every
//! pid namespace. A forked process shares them until it closes its copy of the descriptor.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// Takes the lock, waiting for whoever has it.
///
/// # Errors
/// The kernel's: `ENOLCK` on a filesystem without locks.
pub(crate) fn take(file: &File) -> io::Result<()> {
    let wanted = whole_file()?;
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLKW(&wanted)) {
            Err(Errno::EINTR) => {}
            taken => return Ok(taken.map(drop)?),
        }
    }
}

/// Takes the lock if nobody has it; whether it did. The file must be open for writing.
///
/// # Errors
/// The kernel's.
pub(crate) fn try_take(file: &File) -> io::Result<bool> {
    try_take_range(file, whole_file()?)
}

/// Whether somebody has the lock.
///
/// # Errors
/// The kernel's.
pub(crate) fn is_taken(file: &File) -> io::Result<bool> {
    is_range_taken(file, whole_file()?)
}

/// As [`try_take`], of one byte of the file, whether it has so many or not.
///
/// # Errors
/// The kernel's.
pub(crate) fn try_take_byte(file: &File, at: i64) -> io::Result<bool> {
    try_take_range(file, byte(at)?)
}

/// As [`is_taken`], of one byte.
///
/// # Errors
/// The kernel's.
pub(crate) fn is_byte_taken(file: &File, at: i64) -> io::Result<bool> {
    is_range_taken(file, byte(at)?)
}

fn try_take_range(file: &File, range: libc::flock) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn is_range_taken(file: &File, mut range: libc::flock) -> io::Result<bool> {
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut range))?;
    Ok(libc::c_int::from(range.l_type) != libc::F_UNLCK)
}

fn byte(at: i64) -> nix::Result<libc::flock> {
    Ok(libc::flock { l_start: at, l_len: 1, ..whole_file()? })
}

fn whole_file() -> nix::Result<libc::flock> {
    let number = |number: libc::c_int| number.try_into().map_err(|_| Errno::EINVAL);
    Ok(libc::flock {
        l_type: number(libc::F_WRLCK)?,
        l_whence: number(libc::SEEK_SET)?,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_held_until_the_file_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = File::create(&path).unwrap();
        let second = File::options().write(true).open(&path).unwrap();
        take(&first).unwrap();
        assert!(is_taken(&second).unwrap());
        assert!(!is_taken(&first).unwrap(), "one's own is not in the way");
        assert!(!try_take(&second).unwrap());
        drop(first);
        assert!(!is_taken(&second).unwrap());
        assert!(try_take(&second).unwrap());
    }
}
