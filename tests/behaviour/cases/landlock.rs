//! Files that a workload may use at most, whatever their modes say.

use anyhow::Result;
use moat_tests::seen::Seen;
use moat_tests::skip;

use crate::wall::Wall;

const LOOK: &str = "cat /etc/motd; ls /etc; echo x > /tmp/in && cat /tmp/in; echo x > /out; \
    rm /etc/motd; echo > /etc/motd; echo x > /dev/null && echo quiet; head -c 1 /dev/zero | wc -c; \
    grep NoNew /proc/self/status";

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.write("root/etc/motd", "hello\n")?;
    let mut all = Vec::new();
    let allowed = "read = [\"/bin\", \"/proc\"], write = [\"/tmp\"]";
    for (further, no_new_privs) in [("", 1), (", no_new_privileges = false", 0)] {
        space.spec(&format!("security = {{ landlock = {{ {allowed} }}{further} }}"))?;
        let seen = space.sh(LOOK)?;
        if seen.err().contains("make a Landlock ruleset") {
            seen.refused(125, if wall == Wall::Vm { "microvm" } else { "container" })?
                .stderr_has("hint: Landlock takes Linux 6.2 or newer")?;
            skip!("the kernel that would hold it has no Landlock of Linux 6.2");
        }
        seen.stdout(&format!("x\nquiet\n1\nNoNewPrivs:\t{no_new_privs}\n"))?;
        for refused in [
            "cat: can't open '/etc/motd': Permission denied",
            "ls: can't open '/etc': Permission denied",
            "can't create /out: Permission denied",
            "rm: can't remove '/etc/motd': Permission denied",
            "can't create /etc/motd: Permission denied",
        ] {
            seen.stderr_has(refused)?;
        }
        all.push(seen);
    }
    // Not even for the command itself, nor what is not there.
    space.spec("security = { landlock = { read = [\"/etc\"] } }")?;
    space.run(&["true"])?.refused(126, "not-executable")?;
    space.spec("security = { landlock = { read = [\"/nowhere\"] } }")?;
    space.run(&["true"])?.stderr_has("allow /nowhere with Landlock")?.status(125)?;
    Ok(all)
}
