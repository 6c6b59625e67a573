//! What the README tells a user to type works, and shows what it says.
//!
//! Each line `$ COMMAND` of a `console` block is run by a shell in the repository, with the built
//! moat for `moat` and for `cargo run --release --`. The lines below it must be among what it
//! prints. A comment after the command may say more: `# exit status 0 or 1`, `# needs KVM`, and
//! `# the tests` for what would start these tests anew.

use std::fs;

use anyhow::{Context, Result, ensure};
use moat_tests::host;
use moat_tests::moat::{Moat, executable};
use moat_tests::seen::Seen;
use moat_tests::workspace::Workspace;

use crate::documents::root;

/// A command and what it is to show.
#[derive(Debug, Default)]
struct Example {
    command: String,
    comment: String,
    output: Vec<String>,
}

fn examples(readme: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            let (command, comment) = command.split_once("  # ").unwrap_or((command, ""));
            let (command, comment) = (command.trim().to_owned(), comment.trim().to_owned());
            found.push(Example { command, comment, output: Vec::new() });
        } else if let Some(example) = found.last_mut().filter(|_| inside) {
            example.output.push(line.to_owned());
        }
    }
    found
}

impl Example {
    /// The statuses that are fine.
    fn statuses(&self) -> Vec<i32> {
        let Some(named) = self.comment.strip_prefix("exit status ") else { return vec![0] };
        let words = named.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| *word != "or");
        words.map_while(|word| word.parse().ok()).collect()
    }

    /// What it keeps is this test's alone.
    fn run(&self, space: &Workspace) -> Result<Seen> {
        let moat = executable()?;
        let dir = moat.parent().context("moat is in a directory")?.display().to_string();
        let command = self.command.replace("cargo run --release -- ", "moat ");
        let path = format!("{dir}:{}", std::env::var("PATH").unwrap_or_default());
        Moat::program("sh", ["-c", &command])
            .env("PATH", path)
            .env("XDG_DATA_HOME", space.data_home()?)
            .dir(&root())
            .run()
    }
}

#[test]
fn every_command_works() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let examples = examples(&readme);
    ensure!(examples.len() >= 8, "only {examples:?}");
    let has_vms = host::has_vms();
    let space = Workspace::new(None)?;
    for example in &examples {
        if example.comment == "the tests" {
            continue;
        }
        let seen = example.run(&space)?;
        if example.comment == "needs KVM" && !has_vms {
            seen.refused(5, "unavailable").context(example.command.clone())?;
            continue;
        }
        let fine = example.statuses().contains(&seen.status);
        ensure!(fine, "{}\n{}", example.command, seen.shown());
        let printed = seen.out() + &seen.err();
        for line in &example.output {
            let is_there = printed.lines().any(|printed| printed == line);
            ensure!(is_there, "{} does not print {line:?}\n{}", example.command, seen.shown());
        }
    }
    Ok(())
}

#[test]
fn examples_are_read_as_they_are_meant() {
    let text =
        "```console\n$ moat doctor   # exit status 0 or 1; what\n$ a -- 'b # c'\nout\n```\n$ no\n";
    let found = examples(text);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].statuses(), [0, 1]);
    assert_eq!(found[1].command, "a -- 'b # c'");
    assert_eq!(found[1].output, ["out"]);
}
