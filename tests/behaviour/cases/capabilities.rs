//! Privileges, as the kernel itself tells them in /proc/self/status.

use anyhow::Result;
use moat_tests::host;
use moat_tests::seen::Seen;

use crate::wall::Wall;

const LOOK: &str = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr '\\t' ' '";

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE,
/// SYS_CHROOT, SETFCAP, by their numbers in capabilities(7).
const DEFAULT: u64 =
    1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18 | 1 << 31;
const NET_RAW: u64 = 1 << 13;
const NET_BIND_SERVICE: u64 = 1 << 10;
const CHOWN: u64 = 1;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let mut all = Vec::new();
    let mut look = |lines: &str, effective: u64, ambient: u64, bounding: u64, no_new_privs: u8| {
        space.spec(lines)?;
        let seen = space.sh(LOOK)?;
        seen.status(0)?.stdout(&format!(
            "CapInh: {ambient:016x}\nCapPrm: {effective:016x}\nCapEff: {effective:016x}\n\
             CapBnd: {bounding:016x}\nCapAmb: {ambient:016x}\nNoNewPrivs: {no_new_privs}\n\
             Seccomp: 2\n"
        ))?;
        all.push(seen);
        anyhow::Ok(())
    };
    look("", DEFAULT, 0, DEFAULT, 1)?;
    let other = DEFAULT & !CHOWN | NET_RAW;
    look(
        "[workload.case.security]\ncap_add = [\"NET_RAW\"]\ncap_drop = [\"CAP_CHOWN\"]\n\
         no_new_privileges = false",
        other,
        0,
        other,
        0,
    )?;
    if !host::is_root() {
        return Ok(all);
    }
    look("user = \"1000\"", 0, 0, DEFAULT, 1)?;
    // What was added by name is there for another user too, and stays with each program.
    let added = "user = \"1000\"\n[workload.case.security]\n\
                 cap_add = [\"NET_RAW\", \"NET_BIND_SERVICE\"]\n";
    let (held, bounding) = (NET_RAW | NET_BIND_SERVICE, DEFAULT | NET_RAW);
    look(added, held, held, bounding, 1)?;
    let gained = format!("{added}no_new_privileges = false");
    look(&gained, held, held, bounding, 0)?;
    Ok(all)
}
