//! Volumes: what is written in the workload is on the host, with its owner and mode, and the other
//! way round; a single file may be one; a symlink in a volume or in the root leads nowhere else.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use anyhow::{Result, ensure};
use moat_tests::host;
use moat_tests::seen::Seen;
use nix::unistd::Uid;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.write("data/from-host", "host\n")?;
    space.write("file.txt", "one\n")?;
    space.write("outside/target", "untouched\n")?;
    fs::create_dir(space.path().join("data/shared"))?;
    fs::set_permissions(
        space.path().join("data/shared"),
        std::os::unix::fs::PermissionsExt::from_mode(0o2775),
    )?;
    symlink(space.path().join("outside"), space.path().join("data/out"))?;
    symlink("/etc", space.root().join("link"))?;
    space.spec(
        "volumes = [\"./data:/data\", \"./file.txt:/etc/one.txt\", \"./outside:/link/inner\"]",
    )?;
    let seen =
        space.sh("set -e; cat /data/from-host /etc/one.txt; stat -c '%a %u' /data/shared; \
         echo inside > /data/made; chmod 640 /data/made; mkdir -m 750 /data/dir; \
         echo two >> /etc/one.txt; mv /data/from-host /data/dir/moved; \
         ln -s made /data/symbolic; ln /data/made /data/hard; stat -c %h /data/made; \
         [ -e /data/out ] || echo dangling; cat /etc/inner/target; \
         truncate -s 5 /data/sparse; dd if=/dev/zero bs=1 count=1 seek=3 conv=notrunc \
           of=/data/sparse 2>/dev/null; touch -d '2001-02-03 04:05:06' /data/sparse; \
         ls /data; df /data > /dev/null; rm -r /data/shared; sync")?;
    seen.status(0)?.stderr("")?.stdout(
        "host\none\n2775 0\n2\ndangling\nuntouched\n\
         dir\nhard\nmade\nout\nshared\nsparse\nsymbolic\n",
    )?;
    ensure!(space.read("data/made")? == "inside\n", "data/made is another");
    ensure!(space.read("data/dir/moved")? == "host\n", "data/dir/moved is another");
    ensure!(space.read("file.txt")? == "one\ntwo\n", "file.txt is another");
    let meta = |name: &str| fs::symlink_metadata(space.path().join(name));
    let (made, dir) = (meta("data/made")?, meta("data/dir")?);
    let us = Uid::effective().as_raw();
    ensure!((made.mode() & 0o7777, made.uid(), made.nlink()) == (0o640, us, 2), "{made:?}");
    ensure!((dir.mode() & 0o7777, dir.uid()) == (0o750, us), "{dir:?}");
    ensure!(meta("data/symbolic")?.is_symlink(), "the symlink is none");
    ensure!(meta("data/sparse")?.mtime() == 981_173_106, "{:?}", meta("data/sparse")?);
    ensure!(meta("data/shared").is_err(), "data/shared is still there");
    ensure!(!space.root().join("etc/inner").exists(), "a mount point was made in the root");
    // What a volume is mounted on inside another is made there, file or directory, the owner's.
    space.write("deps/one", "1\n")?;
    space.spec(
        "volumes = [\"./data:/data\", \"./deps:/data/dir/deps\", \"./file.txt:/data/below/file\"]",
    )?;
    let inner = space.sh("cat /data/dir/deps/one /data/below/file; stat -c %u /data/below")?;
    inner.status(0)?.stderr("")?.stdout("1\none\ntwo\n0\n")?;
    let (deps, below) = (meta("data/dir/deps")?, meta("data/below/file")?);
    ensure!((deps.mode() & 0o7777, deps.uid()) == (0o755, us), "{deps:?}");
    ensure!((below.len(), below.uid()) == (0, us), "{below:?}");
    if !host::is_root() {
        return Ok(vec![seen, inner]);
    }

    let owned = space.sh(
        "chown 1000:2000 /data/made && stat -c %u:%g /data/made && umask 027 && : > /data/masked \
         && stat -c %a /data/masked",
    )?;
    owned.status(0)?.stdout("1000:2000\n640\n")?;
    let made = meta("data/made")?;
    ensure!((made.uid(), made.gid()) == (1000, 2000), "on the host: {made:?}");
    Ok(vec![seen, inner, owned])
}
