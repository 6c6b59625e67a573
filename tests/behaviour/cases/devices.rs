//! /dev has the few nodes that programs need, and they work; nothing of the host's.

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// Character devices, with their numbers (kernel Documentation/admin-guide/devices.txt).
const NODES: [(&str, &str); 6] = [
    ("full", "1:7"),
    ("null", "1:3"),
    ("random", "1:8"),
    ("tty", "5:0"),
    ("urandom", "1:9"),
    ("zero", "1:5"),
];

/// All else that may be there.
const OTHERS: [&str; 9] =
    ["core", "fd", "mqueue", "ptmx", "pts", "shm", "stderr", "stdin", "stdout"];

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let seen = space.sh(
        "cd /dev; for d in *; do \
           [ -c $d ] && [ ! -L $d ] && echo $d $(printf '%d:%d' 0x$(stat -c %t $d) 0x$(stat -c %T $d)) \
             $(stat -c %a:%u:%g $d) || echo $d $(stat -c %F:%a $d); done; \
         find / -xdev \\( -type b -o -type c \\) 2>/dev/null | head; \
         head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; cat /dev/null; \
         echo x > /dev/full || echo full; echo x > /dev/null && echo null; \
         echo x > /dev/shm/x && cat /dev/shm/x; stat -c %a /dev/shm",
    )?;
    seen.status(0)?;
    let out = seen.out();
    let listed: Vec<&str> = out.lines().take_while(|line| !line.starts_with('3')).collect();
    for (name, numbers) in NODES {
        let node = format!("{name} {numbers} 666:");
        ensure!(listed.iter().any(|line| line.starts_with(&node)), "{node}?\n{}", seen.shown());
    }
    for name in listed.iter().filter_map(|line| line.split(' ').next()) {
        let known = OTHERS.contains(&name) || NODES.iter().any(|(node, _)| *node == name);
        ensure!(known, "/dev/{name} is more than a workload needs\n{}", seen.shown());
    }
    seen.stdout_has("3\n3\nfull\nnull\nx\n1777\n")?;
    Ok(vec![seen])
}
