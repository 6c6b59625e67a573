//! What the default filter and the missing capabilities refuse, with the same errors.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let seen = space.sh("try() { \"$@\" > /tmp/out 2>&1 && echo \"done: $*\" || \
           { printf '%s: ' \"$1\"; tail -n 1 /tmp/out; }; }; \
         try mount -t tmpfs none /tmp; try umount /proc; try unshare -U true; \
         try unshare -m true; try unshare -n true; try mount -o bind / /mnt; \
         try chroot / true; try insmod /nothing; try swapon /dev/zero; try reboot -f; \
         try date -s 2001-01-01; try nice -n -5 true; try mknod /tmp/kmem c 1 2; \
         try mknod /tmp/zero c 1 5; try sysctl -w kernel.panic=1; try dmesg; \
         try pivot_root / /tmp; try losetup /dev/loop0 /etc/passwd; \
         try sh -c 'echo c > /proc/sysrq-trigger'")?;
    seen.status(0)?;
    for refused in ["mount", "umount", "unshare", "mknod", "reboot", "date", "pivot_root"] {
        seen.stdout_has(&format!("{refused}: "))?;
    }
    let done: Vec<String> =
        seen.out().lines().filter(|line| line.starts_with("done: ")).map(str::to_owned).collect();
    anyhow::ensure!(done == ["done: chroot / true"], "was let do: {done:?}\n{}", seen.shown());
    Ok(vec![seen])
}
