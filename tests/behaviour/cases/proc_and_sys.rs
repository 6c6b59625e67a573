//! /proc and /sys tell nothing of the host that they need not, and change nothing of its kernel.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let seen = space.sh(
        "try() { (eval \"$1\") > /tmp/out 2>&1 && echo \"let: $1\" || echo \"no: $1\"; }; \
         try 'echo 1 > /proc/sys/kernel/panic'; try 'echo x > /proc/sys/kernel/core_pattern'; \
         try 'echo h > /proc/sysrq-trigger'; try 'head -c 1 /proc/kcore | grep .'; \
         try 'head -c 1 /proc/keys | grep .'; try 'head -n 1 /proc/timer_list | grep .'; \
         try 'head -c 1 /dev/mem'; try 'echo 1 > /proc/irq/default_smp_affinity'; \
         try 'mkdir /sys/fs/cgroup/probe'; try 'touch /sys/probe'; \
         try 'echo 0 > /sys/kernel/mm/transparent_hugepage/enabled'; \
         try 'ls /sys/firmware | grep .'; try 'head -c 1 /proc/1/root/etc/passwd'; \
         try 'mount -o remount,rw /sys'; try 'mount -o remount,rw /proc/sys'; \
         try 'echo 100 > /proc/self/oom_score_adj'; \
         awk '$2 ~ \"^/(proc|sys|dev)\" { print $2, $3 }' /proc/mounts",
    )?;
    seen.status(0)?;
    let let_do: Vec<String> =
        seen.out().lines().filter(|line| line.starts_with("let: ")).map(str::to_owned).collect();
    let fine =
        ["let: head -c 1 /proc/1/root/etc/passwd", "let: echo 100 > /proc/self/oom_score_adj"];
    let worse: Vec<_> = let_do.iter().filter(|line| !fine.contains(&line.as_str())).collect();
    anyhow::ensure!(worse.is_empty(), "was let do: {worse:?}\n{}", seen.shown());
    Ok(vec![seen])
}
