//! Clients of the host's socket that have yet to say which of the guest's ports they want:
//! `CONNECT port`, and a newline (Firecracker docs/vsock.md, "Host-Initiated Connections").

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

/// The longest line that makes sense is 19 bytes long.
const MAX_LINE: usize = 32;
/// Clients that may keep us waiting at a time; more wait in connect(2).
pub(super) const MAX_CALLERS: usize = 64;

/// A client has made up its mind, or is gone.
#[derive(Debug)]
pub(super) enum Call {
    /// It wants this port. What it says next is for the guest.
    Port(u32, UnixStream),
    /// It said nonsense, or hung up: there is nobody to talk to.
    Ended,
    /// It has not finished its line.
    NotYet,
}

#[derive(Debug)]
struct Caller {
    socket: UnixStream,
    line: Vec<u8>,
}

/// The clients, by their ids.
#[derive(Debug, Default)]
pub(super) struct Callers(BTreeMap<u64, Caller>);

impl Callers {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A new client, whose socket does not block.
    pub(super) fn add(&mut self, id: u64, socket: UnixStream) {
        self.0.insert(id, Caller { socket, line: Vec::new() });
    }

    /// Lets go of one, if it is there.
    pub(super) fn drop(&mut self, id: u64) {
        self.0.remove(&id);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Reads on in a client's line; None if there is no such client.
    pub(super) fn listen(&mut self, id: u64) -> Option<Call> {
        let call = match self.0.get_mut(&id)?.read() {
            Ok(None) => return Some(Call::NotYet),
            Ok(Some(port)) => port,
            Err(_) => None,
        };
        let caller = self.0.remove(&id)?;
        Some(call.map_or(Call::Ended, |port| Call::Port(port, caller.socket)))
    }
}

impl Caller {
    /// The port, once there is a whole line; `Some(None)` when it is no port. Takes no byte beyond
    /// the line out of the socket.
    fn read(&mut self) -> io::Result<Option<Option<u32>>> {
        loop {
            let mut bytes = [0; MAX_LINE];
            let fd = self.socket.as_raw_fd();
            let count = match recv(fd, &mut bytes, MsgFlags::MSG_PEEK) {
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let peeked = bytes.get(..count).unwrap_or_default();
            let end = peeked.iter().position(|byte| *byte == b'\n');
            let wanted = end.map_or(count, |end| end + 1);
            let mut taken = [0; MAX_LINE];
            let room = taken.get_mut(..wanted).unwrap_or_default();
            let count = recv(fd, room, MsgFlags::empty())?;
            self.line.extend(taken.get(..count).unwrap_or_default());
            if count == 0 || self.line.len() > MAX_LINE {
                return Ok(Some(None));
            }
            if end.is_some() {
                return Ok(Some(port(&self.line)));
            }
        }
    }
}

fn port(line: &[u8]) -> Option<u32> {
    let words = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let number = words.strip_suffix('\r').unwrap_or(words).strip_prefix("CONNECT ")?;
    // `parse` would take a sign.
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn call(parts: &[&[u8]]) -> (Call, UnixStream) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut callers = Callers::default();
        callers.add(1, theirs);
        let mut last = Call::NotYet;
        for part in parts {
            ours.write_all(part).unwrap();
            last = callers.listen(1).unwrap();
        }
        (last, ours)
    }

    #[test]
    fn a_line_may_come_in_pieces_and_what_follows_is_left() {
        let (last, _ours) = call(&[b"CONN", b"ECT 5", b"2\nhello"]);
        let Call::Port(52, mut socket) = last else { panic!("{last:?}") };
        let mut rest = [0; 5];
        socket.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"hello");
        assert!(matches!(call(&[b"CONNECT 4294967295\r\n"]).0, Call::Port(u32::MAX, _)));
    }

    #[test]
    fn what_is_no_port_ends_the_call() {
        for line in [
            "CONNECT \n",
            "CONNECT -1\n",
            "CONNECT +1\n",
            "CONNECT 4294967296\n",
            "connect 1\n",
            "CONNECT 1 2\n",
            "\n",
            "CONNECT 99999999999999999999999999999999999\n",
            "CONNECT 0000000000000000000000000000000000000001\n",
        ] {
            assert!(matches!(call(&[line.as_bytes()]).0, Call::Ended), "{line:?}");
        }
        assert!(matches!(call(&[b"CONNECT \xff\n"]).0, Call::Ended));
        assert!(matches!(call(&[&[b'x'; 33]]).0, Call::Ended));
        assert!(matches!(call(&[&[b'x'; 30], b"yyy"]).0, Call::Ended));
    }

    #[test]
    fn one_that_hangs_up_or_says_nothing_is_no_call() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut callers = Callers::default();
        callers.add(7, theirs);
        assert!(matches!(callers.listen(7), Some(Call::NotYet)));
        drop(ours);
        assert!(matches!(callers.listen(7), Some(Call::Ended)));
        assert!(callers.listen(7).is_none() && callers.len() == 0);
    }
}
