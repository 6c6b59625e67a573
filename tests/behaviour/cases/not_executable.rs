//! A command that is there but can't be executed: 126, and the same words on both walls.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    for (name, text, mode) in [
        ("plain", "#!/bin/sh\necho no\n", 0o644),
        ("orphan", "#!/no/such/interpreter\n", 0o755),
        ("garbage", "\x7fELF, it says", 0o755),
    ] {
        space.write(&format!("root/bin/{name}"), text)?;
        let path = space.root().join("bin").join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    let run = |program: &str| {
        let seen = space.run(&[program])?;
        seen.refused(126, "not-executable")?.stderr_has(program)?;
        Ok(seen)
    };
    // By name and by path: a name is also looked for further along PATH.
    ["plain", "/bin/plain", "/etc", "orphan", "garbage"].into_iter().map(run).collect()
}
