//! `tmpfs`: a memory filesystem of the size asked for, which then is full, for all users.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.write("root/cache/lower", "hidden by the mount\n")?;
    space.spec("tmpfs = [\"/cache:1MiB\", \"/made/for/it\"]")?;
    let seen = space.sh("ls -A /cache; stat -c '%a %u:%g' /cache; \
         df -k /cache | awk 'END { print $2 }'; \
         awk '$2 == \"/cache\" { print $3, $4 }' /proc/mounts | tr , '\\n' | \
           grep -E 'tmpfs|nosuid|nodev|noexec'; \
         dd if=/dev/zero of=/cache/file bs=4096 count=512 2>&1 | grep -o 'No space.*'; \
         wc -c < /cache/file; \
         rm /cache/file; dd if=/dev/zero of=/cache/file bs=4096 count=200 2>/dev/null && \
           wc -c < /cache/file; \
         touch /made/for/it/file && echo made")?;
    seen.status(0)?.stdout_has("1777 0:0\n1024\n")?.stdout_has("No space left on device\n")?;
    seen.stdout_has("819200\nmade\n")?;
    Ok(vec![seen])
}
