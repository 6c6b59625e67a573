//! The control socket of an instance: how [`moat_core::control`]'s messages travel.
//!
//! Who may use it: the user that the instance belongs to, and root. The directory's mode and the
//! socket's say so, and the kernel's word of who has connected is asked as well.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use moat_core::control::{Assembler, ControlError, DATAGRAM, Message, SOCKET, datagrams};
use nix::fcntl::OFlag;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::Uid;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// The most descriptors that travel with a message: stdin, stdout, stderr.
const DESCRIPTORS: usize = 3;

/// How many may wait to be accepted; more wait in connect(2).
const BACKLOG: i32 = 64;

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The kernel's reason.
    #[error("the control socket can't be {action}")]
    Socket {
        /// `made`, `opened`, `read`, `written`.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What came was no message, or what was to be sent is none.
    #[error("what goes over the control socket is not understood")]
    Message {
        /// Why.
        source: ControlError,
    },
}

fn socket(action: &'static str) -> impl FnOnce(Errno) -> ConnectionError {
    move |errno| ConnectionError::Socket { action, source: errno.into() }
}

impl From<ControlError> for ConnectionError {
    fn from(source: ControlError) -> Self {
        Self::Message { source }
    }
}

/// What has come over a connection.
#[derive(Debug)]
pub enum Incoming<M> {
    /// A message, with the descriptors that came along.
    Message(M, Vec<OwnedFd>),
    /// Nothing whole so far.
    NotYet,
    /// The other side is gone.
    End,
}

/// Where an instance's monitor is spoken to.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Makes the socket in an instance's directory, which has none yet.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn open(dir: &Path) -> Result<Self, ConnectionError> {
        let open = || {
            let (_dir, address) = address(dir)?;
            let socket = net::socket_with(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                None,
            )?;
            // bind(2) makes the file with the socket's own mode (unix_bind in the kernel).
            fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
            net::bind(&socket, &address)?;
            net::listen(&socket, BACKLOG)?;
            Ok(Self(socket))
        };
        open().map_err(|source| ConnectionError::Socket { action: "made", source })
    }

    /// The next connection, if there is one, and whether its other side may use it. It waits for
    /// nothing, neither now nor later.
    ///
    /// # Errors
    /// accept4(2)'s: `EMFILE` when there is no room for one more descriptor.
    pub fn accept(&self) -> Result<Option<Connection>, ConnectionError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match net::accept_with(&self.0, flags) {
            Ok(socket) => Ok(Some(Connection::new(socket))),
            // Gone before it was accepted, or not there at all.
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
            Err(errno) => Err(self::socket("opened")(errno)),
        }
    }
}

impl AsFd for Listener {
    /// Readable when there is a connection.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One side of a connection.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    coming: Assembler,
}

impl Connection {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, coming: Assembler::default() }
    }

    /// Connects to the monitor of the instance in this directory. What is received then waits for
    /// at most `patience`.
    ///
    /// # Errors
    /// `NotFound` when there is no socket yet, `ConnectionRefused` when nobody listens.
    pub fn open(dir: &Path, patience: Duration) -> io::Result<Self> {
        let (_dir, address) = address(dir)?;
        let flags = SocketFlags::CLOEXEC;
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        for timeout in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, timeout, Some(patience))?;
        }
        net::connect(&socket, &address)?;
        Ok(Self::new(socket))
    }

    /// Both sides of a connection, for a process and one that it forks. What is received is waited
    /// for without limit.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pair() -> Result<(Self, Self), ConnectionError> {
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(socket("made"))?;
        Ok((Self::new(one), Self::new(other)))
    }

    /// Whether the other side is root or the user that this process is.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_from_owner(&self) -> Result<bool, ConnectionError> {
        let credentials = nix::sys::socket::getsockopt(&self.socket, PeerCredentials)
            .map_err(|errno| ConnectionError::Socket { action: "asked", source: errno.into() })?;
        Ok(is_owner(Uid::from_raw(credentials.uid()), Uid::effective()))
    }

    /// Sends a message, and descriptors with it.
    ///
    /// # Errors
    /// `WouldBlock` when the other side does not read, `BrokenPipe` when it is gone.
    pub fn send<M: Message>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ConnectionError> {
        let datagrams = datagrams(message)?;
        let last = datagrams.len().saturating_sub(1);
        for (number, datagram) in datagrams.iter().enumerate() {
            let with = if number == last { descriptors } else { &[] };
            send(self.socket.as_fd(), datagram, with).map_err(socket("written"))?;
        }
        Ok(())
    }

    /// Receives a message, as far as it comes in time.
    ///
    /// # Errors
    /// When the other side can't be understood.
    pub fn receive<M: Message>(&mut self) -> Result<Incoming<M>, ConnectionError> {
        self.receive_with(RecvFlags::empty())
    }

    /// Receives a message, as far as it is there.
    ///
    /// # Errors
    /// When the other side can't be understood.
    pub fn receive_now<M: Message>(&mut self) -> Result<Incoming<M>, ConnectionError> {
        self.receive_with(RecvFlags::DONTWAIT)
    }

    fn receive_with<M: Message>(
        &mut self,
        flags: RecvFlags,
    ) -> Result<Incoming<M>, ConnectionError> {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let (length, descriptors) = match receive(self.socket.as_fd(), &mut buffer, flags) {
                Ok(received) => received,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(Incoming::NotYet),
                Err(Errno::CONNRESET) => return Ok(Incoming::End),
                Err(errno) => return Err(socket("read")(errno)),
            };
            if length == 0 {
                return Ok(Incoming::End);
            }
            let datagram = buffer.get(..length).unwrap_or_default();
            if let Some(message) = self.coming.take(datagram)? {
                return Ok(Incoming::Message(message, descriptors));
            }
        }
    }
}

impl AsFd for Connection {
    /// Readable when something has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_owner(peer: Uid, own: Uid) -> bool {
    peer.is_root() || peer == own
}

/// The socket's address by way of its open directory, since one may have 108 bytes only
/// (unix(7)). The directory must stay open while the address is used.
fn address(dir: &Path) -> io::Result<(File, SocketAddrUnix)> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let dir = File::options().read(true).custom_flags(flags.bits()).open(dir)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
    Ok((dir, SocketAddrUnix::new(path)?))
}

fn send(
    socket: BorrowedFd<'_>,
    datagram: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = control.push(SendAncillaryMessage::ScmRights(descriptors));
    if !descriptors.is_empty() && !fits {
        return Err(Errno::INVAL);
    }
    loop {
        match net::sendmsg(socket, &[IoSlice::new(datagram)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop),
        }
    }
}

fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: RecvFlags,
) -> rustix::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut data = [IoSliceMut::new(buffer)];
    let received = net::recvmsg(socket, &mut data, &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        // More than either side sends; what did not fit is closed.
        return Err(Errno::MSGSIZE);
    }
    Ok((received.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_core::control::{NewProcess, Reply, Request};
    use moat_core::sandbox::ExitStatus;
    use moat_core::spec::Signal;

    const SOON: Duration = Duration::from_millis(100);

    fn pair(dir: &Path) -> (Connection, Connection) {
        let listener = Listener::open(dir).unwrap();
        let client = Connection::open(dir, SOON).unwrap();
        (client, listener.accept().unwrap().unwrap())
    }

    fn exec(argument: usize) -> Request {
        Request::Exec(NewProcess {
            argv: vec!["x".repeat(argument)],
            env: std::collections::BTreeMap::new(),
            user: None,
            working_dir: None,
            terminal: None,
        })
    }

    #[test]
    fn messages_and_descriptors_go_both_ways_below_a_long_path() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("d".repeat(200));
        std::fs::create_dir(&dir).unwrap();
        let (mut client, mut server) = pair(&dir);
        assert!(server.is_from_owner().unwrap());
        use std::os::unix::fs::MetadataExt;
        assert_eq!(std::fs::metadata(dir.join(SOCKET)).unwrap().mode() & 0o777, 0o600);

        let (reader, writer) = io::pipe().unwrap();
        client.send(&exec(100_000), &[reader.as_fd(), writer.as_fd(), writer.as_fd()]).unwrap();
        let Incoming::Message(message, descriptors) = server.receive::<Request>().unwrap() else {
            panic!("no message");
        };
        assert_eq!((message, descriptors.len()), (exec(100_000), 3));
        assert!(matches!(server.receive::<Request>().unwrap(), Incoming::NotYet));

        server.send(&Reply::Exited(ExitStatus::Code(3)), &[]).unwrap();
        let reply = client.receive::<Reply>().unwrap();
        let Incoming::Message(Reply::Exited(ExitStatus::Code(3)), _) = reply else {
            panic!("{reply:?}");
        };
        assert!(matches!(client.receive::<Reply>().unwrap(), Incoming::NotYet), "not for ever");
        drop(server);
        assert!(matches!(client.receive::<Reply>().unwrap(), Incoming::End));
        assert!(client.send(&Request::Signal(Signal::TERM), &[]).is_err());
    }

    #[test]
    fn garbage_and_too_many_descriptors_end_the_connection() {
        let dir = tempfile::tempdir().unwrap();
        let (client, mut server) = pair(dir.path());
        send(client.as_fd(), b"garbage", &[]).unwrap();
        assert!(server.receive::<Request>().is_err());
        let too_long = vec![0; DATAGRAM + 1];
        send(client.as_fd(), &too_long, &[]).unwrap();
        assert!(server.receive::<Request>().is_err());

        let own = client.as_fd();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(20))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let many = [own; 20];
        assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
        let message = datagrams(&Request::Signal(Signal::TERM)).unwrap().remove(0);
        net::sendmsg(own, &[IoSlice::new(&message)], &mut control, SendFlags::empty()).unwrap();
        assert!(server.receive::<Request>().is_err());
    }

    #[test]
    fn a_client_that_does_not_read_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (_client, server) = pair(dir.path());
        let refused = (0..100_000).find_map(|_| server.send(&Reply::Started, &[]).err()).unwrap();
        let ConnectionError::Socket { source, .. } = refused else { panic!("{refused}") };
        assert_eq!(source.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn only_the_owner_and_root() {
        let uid = Uid::from_raw;
        assert!(is_owner(uid(1000), uid(1000)) && is_owner(uid(0), uid(1000)));
        assert!(!is_owner(uid(1000), uid(0)) && !is_owner(uid(1001), uid(1000)));
    }

    #[test]
    fn nobody_there_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let kind = || Connection::open(dir.path(), SOON).unwrap_err().kind();
        assert_eq!(kind(), io::ErrorKind::NotFound);
        drop(Listener::open(dir.path()).unwrap());
        assert_eq!(kind(), io::ErrorKind::ConnectionRefused);
    }
}
