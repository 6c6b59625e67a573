//! A second chroot does not lead out of the first.

use nix::fcntl::OFlag;
use nix::unistd::{chdir, chroot, fchdir};

use crate::cases::Case;
use crate::field::SECRET;
use crate::inside::{Tries, open, read};

pub(super) const CASE: Case = Case {
    behind: |field| field.moat_with("", &[&field.secret()]),
    open: |field| field.naive_with(&[&field.secret()], |_| {}),
    ..Case::new(
        "chroot_escape",
        "changes its root below its working directory, and climbs out by fchdir and dots",
        attack,
    )
};

fn attack(tries: &Tries, arguments: &[&str]) {
    let secret = arguments.first().copied().unwrap_or_default();
    let what = "a host's file";
    let climbed = open("/", OFlag::O_DIRECTORY).and_then(|held| {
        chroot("/tmp")?;
        fchdir(&held)?;
        for _ in 0..64 {
            chdir("..")?;
        }
        chroot(".")?;
        read(secret)
    });
    match climbed {
        Ok(text) if text == SECRET => tries.got(what, text),
        Ok(text) => tries.refused(what, format!("another: {text:?}")),
        Err(errno) => tries.refused(what, format!("{errno:?}")),
    }
}
