//! `read_only`: the root can't be written, what is mounted over it can.

use anyhow::Result;
use moat_tests::host;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.write("data/file", "")?;
    space.spec("read_only = true\ntmpfs = [\"/scratch\"]\nvolumes = [\"./data:/data\"]")?;
    let seen = space.sh(
        "touch /new; mkdir /etc/new; rm /etc/passwd; chmod 700 /bin; echo x > /etc/passwd; \
         mount -o remount,rw / 2>/dev/null || echo stays so; \
         for d in /scratch /data /dev/shm; do touch $d/new && echo $d; done",
    )?;
    seen.status(0)?.stdout("stays so\n/scratch\n/data\n/dev/shm\n")?.stderr(
        "touch: /new: Read-only file system\n\
         mkdir: can't create directory '/etc/new': Read-only file system\n\
         rm: can't remove '/etc/passwd': Read-only file system\n\
         chmod: /bin: Read-only file system\n\
         sh: can't create /etc/passwd: Read-only file system\n",
    )?;
    if !host::is_root() {
        return Ok(vec![seen]);
    }

    // A volume over a place where this machine's own root has another filesystem.
    space.write("other/file", "")?;
    space.host_spec("read_only = true\nvolumes = [\"./data:/mnt\"]")?;
    let starter = ["unshare", "--mount", "sh", "-c", "mount --bind other /mnt; exec \"$@\"", "sh"];
    let script = "touch /mnt/over && echo written; touch /etc/new 2>/dev/null || echo sealed";
    let over = space.through(&starter, &space.run_args(&["sh", "-c", script]))?.run()?;
    over.status(0)?.stdout("written\nsealed\n")?.stderr("")?;
    Ok(vec![seen, over])
}
