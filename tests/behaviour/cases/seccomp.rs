//! What the default filter and the missing capabilities refuse, with the same errors.

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// Whatever is done, which should be nothing but chroot, says so; the rest tells its error.
const TRY: &str = "try() { \"$@\" > /tmp/out 2>&1 && [ ! -s /tmp/out ] && echo \"done: $*\" || \
    { printf '%s: ' \"$1\"; tail -n 1 /tmp/out; }; }";

/// What a workload has no business with. The clock would be set to what it shows already.
const TRIED: [&str; 15] = [
    "mount -t tmpfs none /mnt",
    "mount -o bind / /mnt",
    "umount /proc",
    "unshare -U true",
    "unshare -m true",
    "unshare -n true",
    "chroot / true",
    "swapon /dev/zero",
    "reboot -f",
    "date -s @$(date +%s)",
    "mknod /tmp/kmem c 1 2",
    "mknod /tmp/zero c 1 5",
    "dmesg",
    "pivot_root / /tmp",
    "sh -c 'echo c > /proc/sysrq-trigger'",
];

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let tried: String = TRIED.iter().map(|command| format!("; try {command}")).collect();
    let seen = space.sh(&format!("{TRY}{tried}"))?;
    seen.status(0)?;
    let out = seen.out();
    let done: Vec<&str> = out.lines().filter(|line| line.starts_with("done: ")).collect();
    ensure!(done == ["done: chroot / true"], "was let do: {done:?}\n{}", seen.shown());
    ensure!(out.lines().count() == TRIED.len(), "not all was tried\n{}", seen.shown());
    // The time of day differs from run to run.
    let lines = out.lines().filter(|line| !line.starts_with("date: "));
    let stdout = lines.map(|line| format!("{line}\n")).collect::<String>().into_bytes();
    Ok(vec![Seen { stdout, ..seen }])
}
