//! There is no second, unmasked proc.

use nix::mount::{MsFlags, mount};

use crate::call::{
    Arg::{N, S},
    call,
};
use crate::cases::Case;
use crate::inside::{Tries, read};

pub(super) const CASE: Case = Case::new(
    "proc_mounted_anew",
    "mounts a proc and a sysfs of its own, by mount(2) and fsopen(2)",
    attack,
);

fn attack(tries: &Tries, _: &[&str]) {
    for kind in ["proc", "sysfs"] {
        let mounted = mount(Some(kind), "/tmp", Some(kind), MsFlags::empty(), None::<&str>);
        tries.of(&format!("mount {kind}"), mounted.map(|()| "done"));
        if kind == "proc" {
            let keys = read("/tmp/interrupts").map(|text| format!("{} bytes", text.len()));
            tries.of("a masked file of it", keys);
        }
    }
    // linux/mount.h: FSCONFIG_CMD_CREATE.
    const CREATE: i64 = 6;
    let made = call(libc::SYS_fsopen, [S(c"proc"), N(0)]).and_then(|context| {
        call(libc::SYS_fsconfig, [N(context), N(CREATE), N(0), N(0), N(0)])?;
        call(libc::SYS_fsmount, [N(context), N(0), N(0)])
    });
    tries.of("fsmount proc", made.map(|_| "done"));
}
