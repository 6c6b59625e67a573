//! Arguments reach the workload as they are, from the command line and from the spec.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

const ARGUMENTS: [&str; 16] = [
    "plain",
    "",
    "two words",
    " ",
    "'single'",
    "\"double\"",
    "line\nbreak\n",
    "tab\tand\rreturn",
    "back\\slash",
    "$HOME `id` $(id) *",
    "--help",
    "-",
    "--",
    "grüße, 世界 \u{1f30d}",
    "e\u{301}\u{202e}\u{7f}",
    "",
];

const SHOW: [&str; 4] = ["sh", "-c", "echo $#; for a; do printf '<%s>' \"$a\"; done", "name"];

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let command: Vec<&str> = SHOW.into_iter().chain(ARGUMENTS).collect();
    let expected: String = ARGUMENTS.iter().map(|argument| format!("<{argument}>")).collect();
    let expected = format!("{}\n{expected}", ARGUMENTS.len());

    space.spec("")?;
    let typed = space.run(&command)?;
    typed.status(0)?.stdout(&expected)?;

    // A TOML array of these strings is also a JSON one, DEL being escaped by hand.
    let array = serde_json::to_string(&ARGUMENTS)?.replace('\u{7f}', "\\u007f");
    space.spec(&format!("entrypoint = {}\ncommand = {array}", serde_json::to_string(&SHOW)?))?;
    let written = space.run(&[])?;
    written.status(0)?.stdout(&expected)?;
    Ok(vec![typed, written])
}
