//! The hypervisor that the host may run on is not talked to.

use nix::errno::Errno;

use crate::call::{Arg::N, call};
use crate::inside::Tries;

use crate::cases::Case;

pub(super) const CASE: Case = Case {
    name: "vsock",
    does: "opens a socket of family AF_VSOCK, which no namespace keeps apart",
    cve: None,
    hole: None,
    attack,
    behind: |field| field.moat(""),
    open: |field| field.naive(|_| {}),
};

fn attack(tries: &Tries, _: &[&str]) {
    let family = i64::from(libc::AF_VSOCK);
    let stream = i64::from(libc::SOCK_STREAM);
    for (what, number) in [("socket", libc::SYS_socket), ("socketpair", libc::SYS_socketpair)] {
        let mut room = [0; 8];
        let arguments = [N(family), N(stream), N(0), crate::call::Arg::Room(&mut room)];
        // What this kernel, or that family, does not have is found out after the filter.
        let past = [Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP, Errno::ESOCKTNOSUPPORT];
        tries.door(what, call(number, arguments).map(|_| "opened"), &past);
    }
}
