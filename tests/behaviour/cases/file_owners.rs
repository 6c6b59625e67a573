//! Owners of the root's files are seen as they are on the host, and can be given away inside.

use std::os::unix::fs::{PermissionsExt, chown};

use anyhow::Result;
use moat_tests::host;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    if !host::is_root() {
        moat_tests::skip!("a plain user's container has one user, and this needs several");
    }
    let space = wall.workspace()?;
    space.write("root/owned", "")?;
    chown(space.root().join("owned"), Some(1234), Some(65_000))?;
    std::fs::set_permissions(space.root().join("owned"), std::fs::Permissions::from_mode(0o6641))?;
    space.spec("")?;
    let seen = space.sh("stat -c '%u:%g %a' / /owned /home/app /bin/busybox /etc/passwd; \
         chown 65534:3 /owned; chown -h 7:8 /bin/sh; mkdir /given; chown 65535 /given; \
         stat -c '%u:%g %a' /owned /given; stat -c %u:%g /bin/sh; \
         : > /given/file; stat -c %u:%g /given/file")?;
    seen.status(0)?.stderr("")?.stdout(
        "0:0 755\n1234:65000 6641\n1000:1000 755\n0:0 755\n0:0 644\n\
         65534:3 2641\n65535:0 755\n7:8\n0:0\n",
    )?;
    Ok(vec![seen])
}
