//! A further process is as the workload's own: behind the same wall, with the same restrictions.

use anyhow::{Result, ensure};
use moat_tests::running::Running;
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// What tells one process's surroundings from another's.
const SURROUNDINGS: &str = "for n in cgroup ipc mnt net pid user uts; do \
    readlink /proc/self/ns/$n; done; cat /proc/self/cgroup /proc/self/uid_map; \
    grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|SigIgn|SigBlk)' /proc/self/status; \
    cat /proc/self/limits /proc/self/oom_score_adj; umask; pwd; \
    env | grep -vE '^(OLDPWD|SHLVL|_)=' | sort; ls /proc/self/fd | wc -l; hostname; id";

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    for lines in [
        "",
        "user = \"app\"\nworking_dir = \"/tmp\"\nenv = { A = \"1\", HOME = \"/elsewhere\" }\n\
         rlimits = { nofile = 77 }\nsecurity.cap_add = [\"NET_ADMIN\"]\n\
         security.cap_drop = [\"CHOWN\"]",
        "init = false\nsecurity.no_new_privileges = false",
    ] {
        space.spec(lines)?;
        let script = format!("({SURROUNDINGS}) < /dev/null > /tmp/own 2>&1");
        let running = Running::start_with(&space, &script)?;
        let further = running.sh(SURROUNDINGS)?;
        let own = running.exec(&["cat", "/tmp/own"])?;
        further.status(0)?.stderr("")?;
        ensure!(further.out() == own.out(), "own: {}\nfurther: {}", own.shown(), further.shown());
        // It shares what the workload writes, and is seen by it.
        let mark = format!("12{}", std::process::id());
        let seen = running.sh(&format!(
            "sleep {mark} & until ps -o args | grep -v grep | grep 'sleep {mark}'; do \
             sleep 0.02; done; kill $!"
        ))?;
        seen.stdout_has(&format!("sleep {mark}\n"))?;
        running.finish()?.status(0)?.stdout("ready\nended\n")?;
    }
    Ok(Vec::new())
}
