//! The workload runs as the user asked for, by name or number, with the groups and the home that
//! the root's own files give it.

use anyhow::Result;
use moat_tests::host;
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// What is asked, and what id(1) and HOME show then.
const USERS: [(&str, &str); 6] = [
    ("app", "1000 1000 1000,2000 /home/app"),
    ("1000", "1000 1000 1000,2000 /home/app"),
    ("app:extra", "1000 2000 2000 /home/app"),
    ("1000:3000", "1000 3000 3000 /home/app"),
    ("4242", "4242 0 0 /"),
    ("4242:4343", "4242 4343 4343 /"),
];

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    if !host::is_root() {
        moat_tests::skip!("a plain user's container has one user, and this needs several");
    }
    let space = wall.workspace()?;
    let mut all = Vec::new();
    for (user, expected) in USERS {
        space.spec(&format!("user = \"{user}\""))?;
        let seen = space.sh(
            "echo $(id -u) $(id -g) $(id -G | tr ' ' '\\n' | sort -n | uniq | tr '\\n' , | \
             sed s/,$//) $HOME; \
             grep -E '^(Uid|Gid):' /proc/self/status | tr '\\t' ' '; \
             : > /etc/passwd",
        )?;
        let (uid, gid) = (field(expected, 0), field(expected, 1));
        seen.stdout(&format!(
            "{expected}\nUid: {uid} {uid} {uid} {uid}\nGid: {gid} {gid} {gid} {gid}\n"
        ))?;
        seen.status(1)?.stderr_has("/etc/passwd: Permission denied")?;
        all.push(seen);
    }
    for (user, file) in [("ghost", "/etc/passwd"), ("app:ghosts", "/etc/group")] {
        space.spec(&format!("user = \"{user}\""))?;
        let seen = space.sh("id")?;
        seen.status(125)?.stdout("")?.stderr_has(file)?.stderr_has("hint: ")?;
        // The code in brackets is the wall's own.
        all.push(Seen { stderr: Vec::new(), ..seen });
    }
    Ok(all)
}

fn field(text: &str, index: usize) -> &str {
    text.split(' ').nth(index).unwrap_or("")
}
