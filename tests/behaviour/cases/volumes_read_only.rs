//! A volume `:ro` can't be written, whatever the workload tries, nor can what is mounted below it.

use anyhow::{Result, ensure};
use moat_tests::host;
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
    if !host::is_root() {
        return Ok(vec![seen]);
    }

    // `ro` holds for what is mounted below the source as well.
    space.write("data/below/file", "covered\n")?;
    let script = "mount -t tmpfs none data/below; echo below > data/below/file; \"$@\"; \
                  cat data/below/file";
    let starter = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let tries = "cat /data/below/file; echo x > /data/below/file; touch /data/below/new; \
                 mount -o remount,rw /data/below 2>/dev/null && echo x > /data/below/file; \
                 umount /data/below 2>/dev/null && echo unmounted";
    let args = space.run_args(&["sh", "-c", tries]);
    let deep = space.through(&starter, &args)?.run()?;
    deep.status(0)?.stdout("below\nbelow\n")?.stderr(
        "sh: can't create /data/below/file: Read-only file system\n\
         touch: /data/below/new: Read-only file system\n",
    )?;
    Ok(vec![seen, deep])
}
