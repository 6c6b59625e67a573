//! The machine is not restarted.

use nix::errno::Errno;

use crate::call::{Arg::N, call};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    name: "reboot",
    does: "calls reboot(2) with a wrong magic number, which is looked at after the rights",
    cve: None,
    hole: None,
    attack,
    behind: |field| field.moat(""),
    open: |field| field.naive(|_| {}),
};

fn attack(tries: &Tries, _: &[&str]) {
    let asked = call(libc::SYS_reboot, [N(0), N(0), N(0), N(0)]);
    tries.door("reboot", asked, &[Errno::EINVAL]);
}
