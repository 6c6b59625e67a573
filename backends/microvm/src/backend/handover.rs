//! How moat lets the VMM's process go on, and gives it the mounts that it is to share: over the
//! socket between the two, since a mount with mapped owners can be made only once the process has
//! its ids.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::share::Trees;

/// How many descriptors go with one message; the kernel takes 253 (`SCM_MAX_FD`, unix(7)).
const CHUNK: usize = 200;

/// What is handed over, before the descriptors themselves.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Header {
    /// Whether there are mounts at all: else the process takes them itself.
    trees: bool,
    root: usize,
    volumes: usize,
}

/// The bytes of a header as it travels: JSON, filled up with spaces.
const HEADER: usize = 128;

/// Lets the process at the other end go on, with these mounts.
pub(super) fn give(socket: &UnixStream, trees: Option<Trees>) -> nix::Result<()> {
    let (given, root, volumes) = match trees {
        Some(Trees { root, volumes }) => (true, root, volumes),
        None => (false, Vec::new(), Vec::new()),
    };
    let header = Header { trees: given, root: root.len(), volumes: volumes.len() };
    let mut bytes = serde_json::to_vec(&header).map_err(|_| Errno::EMSGSIZE)?;
    bytes.resize(HEADER, b' ');
    send(socket, &bytes, &[])?;
    let all: Vec<BorrowedFd<'_>> = root.iter().chain(&volumes).map(AsFd::as_fd).collect();
    all.chunks(CHUNK).try_for_each(|chunk| send(socket, b".", chunk))
}

fn send(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CHUNK))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::EMSGSIZE);
    }
    let data = [IoSlice::new(bytes)];
    let sent = sendmsg(socket, &data, &mut control, SendFlags::NOSIGNAL).map_err(number)?;
    if sent == bytes.len() { Ok(()) } else { Err(Errno::EMSGSIZE) }
}

fn number(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}

/// Waits to be let go.
pub(super) fn wait(socket: &UnixStream) -> nix::Result<Option<Trees>> {
    let mut bytes = [0; HEADER];
    receive(socket, &mut bytes)?;
    let header: Header = serde_json::from_slice(&bytes).map_err(|_| Errno::EBADMSG)?;
    if !header.trees {
        return Ok(None);
    }
    let mut root = Vec::new();
    while root.len() < header.root + header.volumes {
        let mut found = receive(socket, &mut [0; 1])?;
        if found.is_empty() {
            return Err(Errno::EBADMSG);
        }
        root.append(&mut found);
    }
    let volumes = root.split_off(header.root);
    Ok(Some(Trees { root, volumes }))
}

fn receive(socket: &UnixStream, bytes: &mut [u8]) -> nix::Result<Vec<OwnedFd>> {
    let wanted = bytes.len();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CHUNK))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut data = [IoSliceMut::new(bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = recvmsg(socket, &mut data, &mut control, flags).map_err(number)?;
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let found = rights.flatten().collect();
    // moat is gone.
    if received.bytes == wanted { Ok(found) } else { Err(Errno::EPIPE) }
}

/// Whether the other end is gone.
pub(super) fn is_alone(socket: &UnixStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let mut byte = [0; 1];
    recv(socket, &mut byte, flags).is_ok_and(|(_, length)| length == 0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn files(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| File::open("/").unwrap().into()).collect()
    }

    #[test]
    fn many_mounts_arrive_in_order_and_none_at_all_is_known() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut volumes = files(450);
        volumes.push(File::open("/dev/null").unwrap().into());
        give(&here, Some(Trees { root: files(3), volumes })).unwrap();
        let trees = wait(&there).unwrap().unwrap();
        assert_eq!((trees.root.len(), trees.volumes.len()), (3, 451));
        let last: File = trees.volumes.into_iter().last().unwrap().into();
        let null = std::fs::metadata("/dev/null").unwrap().ino();
        assert_eq!(last.metadata().unwrap().ino(), null);
        give(&here, None).unwrap();
        assert!(wait(&there).unwrap().is_none());
        assert!(!is_alone(&there));
        drop(here);
        assert!(is_alone(&there));
        assert!(wait(&there).is_err());
    }
}
