//! The table at the end of a run, and docs/attacks.md.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::cases::ALL;
use crate::evidence::Outcome;

/// Set, it makes [`is_documented`] write the document anew.
const WRITE: &str = "MOAT_WRITE_ATTACKS";

/// Prints what each attack came to, as a Markdown table.
pub(crate) fn print(rows: &[(&'static str, Outcome)]) {
    let mut text = String::from(
        "\n| attack | behind moat | open | what was got behind moat | what was got in the open |\n\
         |---|---|---|---|---|\n",
    );
    let found = |name: &str| rows.iter().find(|(row, _)| *row == name).map(|(_, outcome)| outcome);
    let mut count = 0;
    for (name, outcome) in ALL.iter().filter_map(|case| Some((case.name, found(case.name)?))) {
        let ([behind, open], [got, got_open]) = (outcome.words(), outcome.cells());
        // A String takes all that is written to it.
        let _ = writeln!(text, "| {name} | {behind} | {open} | {got} | {got_open} |");
        count += 1;
    }
    if count > 0 {
        // Whoever would have read it is gone.
        let _ = io::stdout().lock().write_all(text.as_bytes());
    }
}

/// Checks that docs/attacks.md has every attack.
pub(crate) fn is_documented() -> Result<()> {
    let dir = env::var_os("CARGO_MANIFEST_DIR").context("not run by cargo")?;
    let path = Path::new(&dir).join("../docs/attacks.md");
    let expected = document();
    if env::var_os(WRITE).is_some() {
        fs::write(&path, &expected)?;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    ensure!(
        found == expected,
        "docs/attacks.md is not what the cases say: run this test once with {WRITE}=1"
    );
    Ok(())
}

fn document() -> String {
    let mut text = String::from(INTRODUCTION);
    for case in ALL {
        let cve = case.cve.unwrap_or_default();
        let hole = case.hole.map(|why| format!(". **Succeeds as yet**: {why}")).unwrap_or_default();
        // A String takes all that is written to it.
        let _ = writeln!(text, "| `{}` | {}{hole} | {cve} |", case.name, case.does);
    }
    text
}

const INTRODUCTION: &str = "\
# Attacks that are tried

<!-- Written by tests/attacks: MOAT_WRITE_ATTACKS=1 cargo test -p moat-tests --test attacks documented -->

`cargo xtask test` runs each of these twice: as the workload of `moat run --isolation container`,
where nothing of it may succeed, and against a deliberately open configuration, where it must, so
that it is known to bite. What this machine's kernel does not have is reported as skipped. The run
ends with a table of what exactly each attack got on both sides.

The open configuration is what a spec can open (`cap_add`, `no_new_privileges = false`, larger
limits), or else a naive runtime in [tests/attacks/naive.rs](../tests/attacks/naive.rs): root in a
mount and a pid namespace and a chroot, and nothing more.

What is by design, and so no attack: a workload's user 0 may leave a set-user-ID file on a writable
volume, which on the host belongs to the host's root. Give writable volumes from a directory that
other users of the host can't enter, or from a filesystem mounted `nosuid`.

| attack | what it does | known as |
|---|---|---|
";
