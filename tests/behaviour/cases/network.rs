//! `network.mode = "none"`, the default: loopback alone, up, and nobody else on it.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let seen = space.sh("tail -n +3 /proc/net/dev | cut -d: -f1; ls /sys/class/net; \
         ip -o addr show | awk '{ print $2, $3, $4 }'; \
         ip -o link show lo | grep -o ',UP,'; ip route; ip -6 route | grep -v '^::1 '; \
         (echo hello | nc -l -p 4000 &); sleep 0.5; nc 127.0.0.1 4000 < /dev/null; \
         nc -w 1 10.0.2.2 80 < /dev/null || echo unreachable; \
         nc -w 1 localhost 9 < /dev/null; grep -c ' 0A ' /proc/net/tcp")?;
    seen.stdout_has("lo inet 127.0.0.1/8\n")?.stdout_has(",UP,\n")?.stdout_has("hello\n")?;
    seen.stdout_has("unreachable\n")?;
    Ok(vec![seen])
}
