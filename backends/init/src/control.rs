//! The line between the process that owns a workload and the workload's first process: orders one
//! way, reports the other, as datagrams on a socket pair. It is a lifeline too: when its owner is
//! gone, however it ended, the first process sees the end of the line and takes all with it.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use moat_core::sandbox::{ExitStatus, StartError};
use moat_core::spec::Signal;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cgroup::JoinFiles;
use crate::command::refused;
use crate::enter::Namespaces;
use crate::first::Ids;

/// The most that a message takes, in bytes; a longer reason is cut.
const LIMIT: usize = 16 << 10;

/// The most descriptors that a message takes: a terminal and every kind of namespace.
const DESCRIPTORS: usize = 8;

/// What the owner says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Ids are mapped, so many, and the root is built. With the files by which to join the cgroup.
    Proceed(Ids),
    /// Run the workload's command. With the files by which to join the cgroup, if not before.
    Start,
    /// Send it a signal.
    Signal(Signal),
}

/// What the first process says, in this order: `Ready`, `Started`, `Exited`, or `Failed` at any
/// point before `Started`.
#[derive(Debug)]
pub enum Report {
    /// All is set up; it waits for [`Monitor::start`].
    Ready {
        /// The master of the workload's terminal, if it has one.
        terminal: Option<OwnedFd>,
        /// The workload's namespaces, if its owner may not open them later.
        namespaces: Option<Namespaces>,
    },
    /// The workload's command runs.
    Started,
    /// It will not; the first process ends.
    Failed(StartError),
    /// The workload's process has ended, and the first process with it.
    Exited(ExitStatus),
}

#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// By a program of two bytes' words, so it stays the first: the kernel refused the command with
    /// this error number.
    Refused(u8),
    /// With the terminal, if there is one, and then the namespaces.
    Ready {
        terminal: bool,
    },
    Started,
    Failed(StartError),
    Exited(ExitStatus),
}

/// The owner's end.
#[derive(Debug)]
pub struct Monitor(OwnedFd);

/// The first process's end.
#[derive(Debug)]
pub struct First(OwnedFd);

/// Makes a line.
///
/// # Errors
/// socketpair(2)'s.
pub fn pair() -> nix::Result<(Monitor, First)> {
    sockets().map(|(monitor, first)| (Monitor(monitor), First(first)))
}

pub(crate) fn sockets() -> nix::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
}

impl Monitor {
    /// Says that ids are mapped and the root is built, to a first process that waits for it, and
    /// has it join its cgroup by these files.
    ///
    /// # Errors
    /// `EPIPE` when it is gone.
    pub fn proceed(&self, ids: Ids, join: &JoinFiles) -> nix::Result<()> {
        send(&self.0, &Order::Proceed(ids), &join.descriptors())
    }

    /// Lets the workload's command run, in the cgroup that is joined by these files.
    ///
    /// # Errors
    /// `EPIPE` when the first process is gone.
    pub fn start(&self, join: &JoinFiles) -> nix::Result<()> {
        send(&self.0, &Order::Start, &join.descriptors())
    }

    /// Sends the workload's process a signal; after `start`.
    ///
    /// # Errors
    /// `EPIPE` when the first process is gone.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        send(&self.0, &Order::Signal(signal), &[])
    }

    /// Waits for the next report; `None` when the first process is gone or runs the workload's
    /// command itself.
    ///
    /// # Errors
    /// recvmsg(2)'s; `EBADMSG` for what is no report.
    pub fn receive(&self) -> nix::Result<Option<Report>> {
        let Some((message, mut descriptors)) = receive(&self.0)? else { return Ok(None) };
        Ok(Some(match message {
            Message::Ready { terminal } => {
                let namespaces =
                    descriptors.split_off(usize::from(terminal).min(descriptors.len()));
                let namespaces = (!namespaces.is_empty()).then_some(Namespaces(namespaces));
                Report::Ready { terminal: descriptors.pop(), namespaces }
            }
            Message::Started => Report::Started,
            Message::Failed(error) => Report::Failed(error),
            Message::Refused(number) => Report::Failed(refused(number)),
            Message::Exited(status) => Report::Exited(status),
        }))
    }
}

impl AsFd for Monitor {
    /// Readable when there is a report, or the end.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl First {
    /// Waits for [`Monitor::proceed`].
    ///
    /// # Errors
    /// `EPIPE` when the owner is gone.
    pub fn wait_to_proceed(&self) -> nix::Result<(Ids, JoinFiles)> {
        match receive(&self.0)? {
            Some((Order::Proceed(ids), join)) => Ok((ids, JoinFiles::from(join))),
            _ => Err(Errno::EPIPE),
        }
    }

    /// Waits for [`Monitor::start`]; `None` when the owner is gone.
    pub(crate) fn wait_to_start(&self) -> nix::Result<Option<JoinFiles>> {
        match receive(&self.0)? {
            Some((Order::Start, join)) => Ok(Some(JoinFiles::from(join))),
            _ => Ok(None),
        }
    }

    /// Sees that the owner is there.
    ///
    /// # Errors
    /// `EPIPE` when it is gone.
    pub(crate) fn still_owned(&self) -> nix::Result<()> {
        let mut line = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        match poll(&mut line, PollTimeout::ZERO)? {
            0 => Ok(()),
            _ => Err(Errno::EPIPE),
        }
    }

    pub(crate) fn ready(
        &self,
        terminal: Option<BorrowedFd<'_>>,
        namespaces: Option<&Namespaces>,
    ) -> nix::Result<()> {
        let namespaces = namespaces.iter().flat_map(|all| all.0.iter().map(AsFd::as_fd));
        let descriptors: Vec<_> = terminal.into_iter().chain(namespaces).collect();
        send(&self.0, &Message::Ready { terminal: terminal.is_some() }, &descriptors)
    }

    pub(crate) fn started(&self) -> nix::Result<()> {
        send(&self.0, &Message::Started, &[])
    }

    pub(crate) fn exited(&self, status: ExitStatus) -> nix::Result<()> {
        send(&self.0, &Message::Exited(status), &[])
    }

    pub(crate) fn failed(&self, error: StartError) -> nix::Result<()> {
        send(&self.0, &Message::Failed(shorten(error)), &[])
    }

    /// Waits for the next order; `None` when the owner is gone.
    pub(crate) fn receive(&self) -> nix::Result<Option<Order>> {
        Ok(receive(&self.0)?.map(|(order, _)| order))
    }
}

impl AsFd for First {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub(crate) fn send(
    socket: &OwnedFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> nix::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(|_| Errno::EMSGSIZE)?;
    let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = (!raw.is_empty()).then_some(ControlMessage::ScmRights(&raw));
    let rights = rights.as_slice();
    loop {
        let data = [IoSlice::new(&bytes)];
        match sendmsg::<()>(socket.as_raw_fd(), &data, rights, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => return sent.map(drop),
        }
    }
}

/// Waits for a message and tells how long it is: most are of a few bytes, and a buffer for the
/// longest is pages that a fresh process would have to be given.
fn length(socket: &OwnedFd) -> nix::Result<usize> {
    loop {
        match recv(socket.as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC) {
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            length => return Ok(length?.min(LIMIT)),
        }
    }
}

pub(crate) fn receive<M: DeserializeOwned>(
    socket: &OwnedFd,
) -> nix::Result<Option<(M, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; length(socket)?];
    let (received, descriptors) = loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = [IoSliceMut::new(&mut bytes)];
        match recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC) {
            // The other end was closed with something unread. It is told once, before what was sent
            // from there (`unix_release_sock` and `sock_error` in the kernel).
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
            Err(errno) => return Err(Errno::from_raw(errno.raw_os_error())),
            // Owned before anything else is looked at, so that none of a bad message stays open.
            Ok(received) => break (received, owned(&mut control)),
        }
    };
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::EBADMSG);
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    let bytes = bytes.get(..received.bytes).ok_or(Errno::EBADMSG)?;
    let message = postcard::from_bytes(bytes).map_err(|_| Errno::EBADMSG)?;
    Ok(Some((message, descriptors)))
}

fn owned(control: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    rights.flatten().collect()
}

/// The texts of an error hold words of the spec, which may be long.
pub(crate) fn shorten(error: StartError) -> StartError {
    const TEXT: usize = LIMIT / 4;
    let cut = |mut text: String| {
        if text.len() > TEXT {
            let end = (0..=TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
        }
        text
    };
    match error {
        StartError::NotFound { program } => StartError::NotFound { program: cut(program) },
        StartError::NotExecutable { program, reason } => {
            StartError::NotExecutable { program: cut(program), reason: cut(reason) }
        }
        StartError::NoSuchId { kind, name, file } => {
            StartError::NoSuchId { kind: cut(kind), name: cut(name), file: cut(file) }
        }
        StartError::Setup { step, reason } => {
            StartError::Setup { step: cut(step), reason: cut(reason) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_and_orders_arrive_whole_and_in_order() {
        let (monitor, first) = pair().unwrap();
        monitor.start(&JoinFiles::default()).unwrap();
        monitor.signal(Signal::TERM).unwrap();
        assert_eq!(first.receive().unwrap(), Some(Order::Start));
        assert_eq!(first.receive().unwrap(), Some(Order::Signal(Signal::TERM)));
        let null = std::fs::File::open("/dev/null").unwrap();
        first.ready(Some(null.as_fd()), None).unwrap();
        first.failed(StartError::NotFound { program: "é".repeat(LIMIT) }).unwrap();
        assert!(matches!(
            monitor.receive().unwrap(),
            Some(Report::Ready { terminal: Some(_), namespaces: None })
        ));
        let Some(Report::Failed(StartError::NotFound { program })) = monitor.receive().unwrap()
        else {
            panic!("not a failure");
        };
        assert!(program.starts_with("éé") && program.len() <= LIMIT / 4);
        drop(first);
        assert!(monitor.receive().unwrap().is_none());
    }

    #[test]
    fn the_last_word_is_heard_though_an_order_was_not() {
        let (monitor, first) = pair().unwrap();
        first.exited(ExitStatus::Code(3)).unwrap();
        monitor.signal(Signal::INT).unwrap();
        drop(first);
        let heard = monitor.receive().unwrap();
        assert!(matches!(heard, Some(Report::Exited(ExitStatus::Code(3)))), "{heard:?}");
        assert!(monitor.receive().unwrap().is_none());
    }

    #[test]
    fn whether_the_owner_is_there_is_known() {
        let (monitor, first) = pair().unwrap();
        // An order that was not read yet is no end.
        monitor.start(&JoinFiles::default()).unwrap();
        first.still_owned().unwrap();
        drop(monitor);
        assert_eq!(first.still_owned(), Err(Errno::EPIPE));
    }

    #[test]
    fn of_a_message_with_too_many_descriptors_none_stays_open() {
        let (monitor, first) = pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let many = [writer.as_fd(); DESCRIPTORS + 12];
        send(&first.0, &Message::Started, &many).unwrap();
        drop(writer);
        assert_eq!(monitor.receive().unwrap_err(), Errno::EBADMSG);
        // The pipe ends once nobody holds its other end.
        let mut end = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut end, PollTimeout::from(5000u16)), Ok(1));
        // The line itself goes on.
        first.started().unwrap();
        assert!(matches!(monitor.receive().unwrap(), Some(Report::Started)));
    }

    #[test]
    fn a_refusal_is_two_bytes() {
        assert_eq!(postcard::to_stdvec(&Message::Refused(2)).unwrap(), [0, 2]);
        assert_eq!(postcard::to_stdvec(&Message::Refused(255)).unwrap(), [0, 255]);
    }

    #[test]
    fn the_first_process_sees_that_its_owner_is_gone() {
        let (monitor, first) = pair().unwrap();
        drop(monitor);
        assert_eq!(first.receive().unwrap(), None);
    }
}
