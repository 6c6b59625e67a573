//! What a workload writes to its root does not reach the directory it came from, nor the next run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    space.write("root/dir/old", "old\n")?;
    let before = tree(&space.root())?;
    let seen = space.sh(
        "set -e; echo new > /etc/passwd; rm /etc/group; mkdir /dir/sub; mv /dir/old /dir/moved; \
         chmod 600 /dir/moved; chown 1000 /bin/busybox; rm /bin/awk; ln -s / /dir/link; \
         rm -r /home; mkdir /home; : > /dir/new; \
         cat /etc/passwd /dir/moved; ls -A /dir /home",
    )?;
    seen.status(0)?.stdout("new\nold\n/dir:\nlink\nmoved\nnew\nsub\n\n/home:\n")?;
    let after = tree(&space.root())?;
    for (path, was) in &before {
        ensure!(after.get(path) == Some(was), "{path}: was {was:?}, is {:?}", after.get(path));
    }
    ensure!(before.len() == after.len(), "the root's directory has new files");
    let next = space.sh("ls /dir; head -n 1 /etc/passwd")?;
    next.status(0)?.stdout("old\nroot:x:0:0:root:/root:/bin/sh\n")?;
    Ok(vec![seen, next])
}

/// A file's mode, owner, size and times of change.
type State = (u32, u32, u64, i64, i64);

/// Every file by its path.
fn tree(dir: &Path) -> Result<BTreeMap<String, State>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            let state = (meta.mode(), meta.uid(), meta.size(), meta.mtime(), meta.ctime_nsec());
            found.insert(path.display().to_string(), state);
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(found)
}
