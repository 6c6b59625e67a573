//! The machine is not restarted.

use nix::errno::Errno;

use crate::call::{Arg::N, call};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case::new(
    "reboot",
    "calls reboot(2) with a wrong magic number, which is looked at after the rights",
    attack,
);

fn attack(tries: &Tries, _: &[&str]) {
    let asked = call(libc::SYS_reboot, [N(0), N(0), N(0), N(0)]);
    tries.door("reboot", asked, &[Errno::EINVAL]);
}
