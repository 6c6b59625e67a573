//! A volume `:ro` can't be written, whatever the workload tries.

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.write("data/file", "kept\n")?;
    space.write("single", "kept too\n")?;
    space.spec("volumes = [\"./data:/data:ro\", \"./single:/single:ro\"]")?;
    let seen = space.sh(
        "cat /data/file /single; echo x > /data/file; echo x > /single; touch /data/new; \
         rm /data/file; mkdir /data/dir; chmod 777 /data/file; mv /data/file /data/other; \
         mount -o remount,rw /data 2>/dev/null && echo x > /data/file; \
         umount /data 2>/dev/null && echo unmounted; cat /data/file",
    )?;
    seen.status(0)?.stdout("kept\nkept too\nkept\n")?.stderr(
        "sh: can't create /data/file: Read-only file system\n\
         sh: can't create /single: Read-only file system\n\
         touch: /data/new: Read-only file system\n\
         rm: can't remove '/data/file': Read-only file system\n\
         mkdir: can't create directory '/data/dir': Read-only file system\n\
         chmod: /data/file: Read-only file system\n\
         mv: can't rename '/data/file': Read-only file system\n",
    )?;
    ensure!(space.read("data/file")? == "kept\n", "data/file was changed");
    ensure!(space.read("single")? == "kept too\n", "single was changed");
    Ok(vec![seen])
}
