//! The hypervisor that the host may run on is not talked to.

use nix::errno::Errno;

use crate::call::{Arg::N, call};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case =
    Case::new("vsock", "opens a socket of family AF_VSOCK, which no namespace keeps apart", attack);

fn attack(tries: &Tries, _: &[&str]) {
    for (what, kind) in [("stream", libc::SOCK_STREAM), ("datagram", libc::SOCK_DGRAM)] {
        let opened = call(libc::SYS_socket, [N(libc::AF_VSOCK.into()), N(kind.into()), N(0)]);
        // What this kernel does not have of it is found out after the filter.
        let past = [Errno::EAFNOSUPPORT, Errno::ESOCKTNOSUPPORT, Errno::ENODEV];
        tries.door(what, opened.map(|_| "opened"), &past);
    }
}
