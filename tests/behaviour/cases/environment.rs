//! The workload has the spec's environment and moat's few defaults, and nothing of moat's own.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    // busybox's env sorts nothing, and a shell would add variables of its own.
    let bare = space.moat(&["env"])?.env("MOAT_CASE_LEAK", "leaked").run()?;
    bare.status(0)?.stdout_has("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")?;
    bare.stdout_has("HOME=/root\n")?;
    anyhow::ensure!(!bare.out().contains("LEAK"), "moat's own reached it\n{}", bare.shown());

    space.spec(
        "env = { PLAIN = \"a\", EMPTY = \"\", SPACES = \" b  c \", EQUALS = \"=d==\", \
         LINES = \"e\\nf\\n\", UNICODE = \"grüße 世界\", DOLLAR = \"$PLAIN\", HOME = \"/tmp\", \
         PATH = \"/bin\" }",
    )?;
    let set =
        space.sh("for name in PLAIN EMPTY SPACES EQUALS LINES UNICODE DOLLAR HOME PATH; do \
         eval \"printf '%s=<%s>\\n' $name \\\"\\$$name\\\"\"; done; \
         env | grep -c ^EMPTY=")?;
    set.status(0)?.stdout(
        "PLAIN=<a>\nEMPTY=<>\nSPACES=< b  c >\nEQUALS=<=d==>\nLINES=<e\nf\n>\n\
         UNICODE=<grüße 世界>\nDOLLAR=<$PLAIN>\nHOME=</tmp>\nPATH=</bin>\n1\n",
    )?;

    // PATH is where the program is looked for.
    space.spec("env = { PATH = \"/elsewhere:/tools\" }")?;
    space.write("root/tools/greet", "#!/bin/sh\necho found along PATH\n")?;
    std::fs::set_permissions(
        space.root().join("tools/greet"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    let path = space.run(&["greet"])?;
    path.status(0)?.stdout("found along PATH\n")?;
    Ok(vec![bare, set, path])
}
