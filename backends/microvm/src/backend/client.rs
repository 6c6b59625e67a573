//! The streams of another moat, the client of a further process, as this one reads and writes them:
//! without ever waiting for it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use moat_init::sys::descriptor::is_pipe;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::stat::fstat;

/// How not to wait for the other side of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It was opened for moat alone, and never waits.
    Alone,
    /// A socket, by `MSG_DONTWAIT`.
    Socket,
    /// What is shared with others, and can't be made not to wait: after poll(2), and little at once.
    Careful,
}

/// Makes the best of a descriptor that other processes have too, for reading or for writing. A pipe
/// is opened anew (proc(5), `/proc/pid/fd`), so that the flag `O_NONBLOCK` of it is moat's own.
pub(super) fn take(fd: OwnedFd, mode: OFlag) -> (OwnedFd, Way) {
    if fstat(&fd).is_ok_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFSOCK) {
        return (fd, Way::Socket);
    }
    // Of one with a name, poll(2) would not tell the end that came before it was opened.
    if !is_pipe(fd.as_fd()) || !allows(&fd, mode) {
        return (fd, Way::Careful);
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let reads = mode == OFlag::O_RDONLY;
    let opened = File::options()
        .read(reads)
        .write(!reads)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
        .open(path);
    match opened {
        Ok(own) => (own.into(), Way::Alone),
        // Another user's: root's, at a plain user's moat.
        Err(_) => (fd, Way::Careful),
    }
}

/// Whether it was opened so that this can be done with it.
fn allows(fd: &OwnedFd, mode: OFlag) -> bool {
    fcntl(fd, FcntlArg::F_GETFL).is_ok_and(|flags| {
        let access = OFlag::from_bits_retain(flags) & OFlag::O_ACCMODE;
        access == mode || access == OFlag::O_RDWR
    })
}

/// Where a further process's stdin comes from.
#[derive(Debug)]
pub(super) struct Input {
    fd: OwnedFd,
    way: Way,
}

impl Input {
    /// From a descriptor of the client's.
    pub(super) fn new(fd: OwnedFd) -> Self {
        let (fd, way) = take(fd, OFlag::O_RDONLY);
        Self { fd, way }
    }

    /// Reads once, after poll(2) has found something there; none at the end.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing after all.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.way {
            Way::Alone | Way::Careful => nix::unistd::read(&self.fd, buffer),
            Way::Socket => recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT),
        };
        match read {
            Err(Errno::EINTR) => Err(Errno::EAGAIN.into()),
            read => Ok(read?),
        }
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_pipe_that_others_hold_is_read_without_waiting() {
        let (reader, mut writer) = io::pipe().unwrap();
        let shared = reader.try_clone().unwrap();
        let input = Input::new(reader.into());
        assert_eq!(input.way, Way::Alone);
        let mut buffer = [0; 8];
        assert_eq!(input.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // The others' flag is as it was.
        let flags = OFlag::from_bits_retain(fcntl(&shared, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
        writer.write_all(b"typed").unwrap();
        assert_eq!(input.read(&mut buffer).unwrap(), 5);
        drop(writer);
        assert_eq!(input.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn what_may_only_be_written_is_not_read() {
        let (_reader, writer) = io::pipe().unwrap();
        let input = Input::new(writer.into());
        assert_eq!(input.way, Way::Careful);
        let errno = Errno::EBADF as i32;
        assert_eq!(input.read(&mut [0; 8]).unwrap_err().raw_os_error(), Some(errno));
    }

    #[test]
    fn a_socket_is_read_without_waiting() {
        let (one, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
        let input = Input::new(one.into());
        assert_eq!(input.way, Way::Socket);
        assert_eq!(input.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        other.write_all(b"typed").unwrap();
        assert_eq!(input.read(&mut [0; 8]).unwrap(), 5);
    }
}
