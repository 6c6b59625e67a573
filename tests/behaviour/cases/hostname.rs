//! The host name is the workload's own, known to its resolver, and not the host's to lose.

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let before = nix::unistd::gethostname()?;
    let script = "hostname; cat /proc/sys/kernel/hostname; uname -n; cat /etc/hosts; \
                  hostname other 2>/dev/null; echo changed: $?";
    space.spec("")?;
    let default = space.sh(script)?;
    default.status(0)?.stdout_has("case\ncase\ncase\n")?;
    space.spec("hostname = \"Web-1.example.com\"")?;
    let set = space.sh(script)?;
    set.status(0)?.stdout_has("Web-1.example.com\nWeb-1.example.com\nWeb-1.example.com\n")?;
    ensure!(set.out().matches("Web-1.example.com").count() > 3, "not in hosts\n{}", set.shown());
    ensure!(before == nix::unistd::gethostname()?, "the host's name has changed");
    Ok(vec![default, set])
}
