//! `env_file`: later files win over earlier ones, and `env` over all.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.write("first.env", "# a comment\n\nA=first\nB=first\nC=first\n")?;
    space.write("sub/second.env", "B=second\nC=second\nEQUALS=a=b=c\nEMPTY=\n")?;
    space.spec("env_file = [\"first.env\", \"./sub/second.env\"]\nenv = { C = \"env\" }")?;
    let seen = space.sh("echo \"$A $B $C <$EQUALS> <$EMPTY>\"; env | grep -c ^EMPTY=")?;
    seen.status(0)?.stdout("first second env <a=b=c> <>\n1\n")?.stderr("")?;
    Ok(vec![seen])
}
