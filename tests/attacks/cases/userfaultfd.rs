//! Page faults can't be held up, as exploits of races do.

use nix::fcntl::OFlag;

use crate::call::{Arg::N, call};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case =
    Case::new("userfaultfd", "calls userfaultfd, and opens /dev/userfaultfd", attack);

fn attack(tries: &Tries, _: &[&str]) {
    tries.of("userfaultfd", call(libc::SYS_userfaultfd, [N(0)]).map(|_| "opened"));
    tries.opens("/dev/userfaultfd", OFlag::O_RDWR);
}
