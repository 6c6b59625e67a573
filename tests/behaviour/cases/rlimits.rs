//! Resource limits: those of the spec, and the same defaults on both walls.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    // Two of them go by how much memory the kernel has.
    let table =
        "tail -n +2 /proc/self/limits | tr -s ' ' | grep -v -e '^Max processes' -e '^Max pending'";
    space.spec("")?;
    let default = space.sh(table)?;
    default.status(0)?.stdout_has("Max open files ")?;
    space.spec(
        "[workload.case.rlimits]\nnofile = 256\ncore = 0\nfsize = \"1MiB\"\n\
         stack = { soft = \"1MiB\", hard = \"4MiB\" }",
    )?;
    let set = space.sh(&format!(
        "{table} | grep -E '^Max (open|core|file size|stack)'; \
         dd if=/dev/zero of=/file bs=1M count=2 2>/dev/null; wc -c < /file"
    ))?;
    set.status(0)?.stdout(
        "Max file size 1048576 1048576 bytes \nMax stack size 1048576 4194304 bytes \n\
         Max core file size 0 0 bytes \nMax open files 256 256 files \n1048576\n",
    )?;
    Ok(vec![default, set])
}
