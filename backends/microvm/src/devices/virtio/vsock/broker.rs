//! Where a guest's streams lead to on the host: to port P by the unix socket `PATH_P`
//! (Firecracker docs/vsock.md, "Guest-Initiated Connections").
//!
//! A VMM in its jail can't reach paths, and must not: a descriptor of the directory would be a way
//! out of its root (openat(2) follows `..` above it), and connect(2) in its seccomp list a way to
//! every abstract socket. So it asks: one datagram with the port, answered by one with the connected
//! socket, or without. Who answers is outside of the jail (a monitor, or for a bare VMM a thread),
//! knows the path, and lets a port number be all that a guest can choose.
//!
//! Ask: 4 bytes, the port, little-endian. Answer: the same 4 bytes, and the socket, in order.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg,
    sendmsg, socket_with, socketpair,
};

/// Bytes of both datagrams.
const PORT: usize = 4;

/// The half outside of the jail, which connects.
#[derive(Debug)]
pub struct Broker {
    socket: OwnedFd,
    path: PathBuf,
}

/// The half inside, which asks.
#[derive(Debug)]
pub struct Asker(OwnedFd);

/// Both halves, for sockets at `path` with `_` and a port behind it.
///
/// # Errors
/// When the host gives no sockets.
pub fn broker(path: &Path) -> io::Result<(Broker, Asker)> {
    let (outside, inside) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Broker { socket: outside, path: path.to_owned() }, Asker(inside)))
}

impl AsFd for Broker {
    /// Readable when `answer` has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsFd for Asker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Broker {
    /// Answers until the VMM is gone.
    ///
    /// # Errors
    /// When the channel fails otherwise.
    pub fn serve(&self) -> io::Result<()> {
        while self.answer()? {}
        Ok(())
    }

    /// Waits for one question and answers it; false when the VMM is gone.
    ///
    /// # Errors
    /// When the channel fails otherwise.
    pub fn answer(&self) -> io::Result<bool> {
        let mut question = [0; PORT];
        let mut parts = [IoSliceMut::new(&mut question)];
        let mut control = RecvAncillaryBuffer::default();
        let received = loop {
            match recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                result => break result?,
            }
        };
        if received.bytes == 0 {
            return Ok(false);
        }
        // Of a VMM that says something else, port 0 is asked, which nobody may listen on.
        let port = if received.bytes == PORT { u32::from_le_bytes(question) } else { 0 };
        let socket = self.connect(port).ok();
        let fds = socket.as_ref().map(AsFd::as_fd);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(fd) = &fds {
            control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(fd)));
        }
        let answer = [IoSlice::new(&question)];
        match sendmsg(&self.socket, &answer, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(false),
            result => Ok(result.map(|_| true)?),
        }
    }

    /// Waits for nobody: who does not take connections fast enough is not there.
    fn connect(&self, port: u32) -> Result<OwnedFd, Errno> {
        let mut path = self.path.as_os_str().as_bytes().to_vec();
        path.extend(format!("_{port}").as_bytes());
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &address)?;
        Ok(socket)
    }
}

impl Asker {
    /// Asks for a socket to `port`; false when nobody will answer.
    pub(super) fn ask(&self, port: u32) -> bool {
        let bytes = port.to_le_bytes();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::net::send(&self.0, &bytes, flags).is_ok_and(|sent| sent == PORT)
    }

    /// The next answer: a socket, or that there is none. None while it has not come.
    ///
    /// # Errors
    /// When no answer will ever come.
    pub(super) fn answer(&self) -> io::Result<Option<Option<UnixStream>>> {
        let mut bytes = [0; PORT];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        match recvmsg(&self.0, &mut parts, &mut control, flags) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Ok(received) if received.bytes == 0 => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            result => result?,
        };
        let mut socket = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                socket = fds.map(UnixStream::from).last();
            }
        }
        Ok(Some(socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn each_question_has_its_answer_in_order_and_the_socket_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        let listener = UnixListener::bind(dir.path().join("vm.sock_52")).unwrap();
        let (broker, asker) = broker(&path).unwrap();
        assert!(asker.answer().unwrap().is_none());
        for port in [1, 52, u32::MAX] {
            assert!(asker.ask(port));
            assert!(broker.answer().unwrap());
        }
        assert!(asker.answer().unwrap().unwrap().is_none());
        let mut socket = asker.answer().unwrap().unwrap().unwrap();
        let blocks = socket.read(&mut [0]).unwrap_err();
        assert_eq!(blocks.kind(), io::ErrorKind::WouldBlock);
        let (mut peer, _) = listener.accept().unwrap();
        socket.write_all(b"through").unwrap();
        drop(socket);
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert!(asker.answer().unwrap().unwrap().is_none());
        drop(broker);
        assert!(asker.answer().is_err() && !asker.ask(52));
    }

    #[test]
    fn one_that_never_accepts_keeps_nobody_waiting_and_a_vmm_that_ends_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = UnixListener::bind(dir.path().join("s_1")).unwrap();
        let (broker, asker) = broker(&path).unwrap();
        let mut refused = false;
        for _ in 0..5000 {
            assert!(asker.ask(1) && broker.answer().unwrap());
            refused |= asker.answer().unwrap().unwrap().is_none();
        }
        // The kernel has room for so many (net.core.somaxconn), and then says no.
        assert!(refused);
        // A VMM that says nonsense is answered like one that asks for nobody.
        rustix::net::send(asker.as_fd(), b"x", SendFlags::empty()).unwrap();
        assert!(broker.answer().unwrap());
        assert!(asker.answer().unwrap().unwrap().is_none());
        drop(asker);
        broker.serve().unwrap();
    }
}
