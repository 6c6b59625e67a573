//! Nothing is typed on the terminal that moat is on.

use anyhow::Result;
use moat_tests::moat::Moat;
use moat_tests::terminal::Terminal;
use nix::errno::Errno;

use crate::call::{
    Arg::{B, N},
    call,
};
use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::Field;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    name: "terminal_input",
    does: "types by TIOCSTI, by TIOCSTI with more than 32 bits, and by TIOCLINUX",
    cve: Some("CVE-2016-2568, CVE-2019-10063"),
    hole: None,
    attack,
    behind,
    open: |field| on_a_terminal(field.naive_moat(&[], &[], |_| {})?),
};

/// `TIOCLINUX` of ioctl_console(2): asks the kind of a console, as the least it can do.
const TIOCLINUX: i64 = 0x541c;
const TIOCSTI: i64 = 0x5412;
/// The kernel takes 32 bits of it; a filter that compares 64 is fooled.
const HIGH: i64 = 1 << 32;

fn attack(tries: &Tries, _: &[&str]) {
    tries.of("TIOCSTI", call(libc::SYS_ioctl, [N(0), N(TIOCSTI), B(b"\n")]));
    tries.of("TIOCSTI and high bits", call(libc::SYS_ioctl, [N(0), N(TIOCSTI | HIGH), B(b"\n")]));
    // A pseudoterminal is no console, which is found out after the filter.
    let console = call(libc::SYS_ioctl, [N(0), N(TIOCLINUX), B(&[6])]);
    tries.door("TIOCLINUX", console, &[Errno::ENOTTY, Errno::EINVAL]);
}

fn on_a_terminal(moat: Moat) -> Result<Vec<Evidence>> {
    let (_, screen) = Terminal::start(moat, 200, 24)?.finish()?;
    Ok(Evidence::parse(&screen))
}

/// On a terminal of its own, and with the host's as its stdin.
fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    let mut found = Vec::new();
    for tty in [true, false] {
        field.space.spec(&format!("tty = {tty}"))?;
        found.extend(on_a_terminal(field.space.moat(&field.command(&[]))?)?);
    }
    Ok(found)
}
