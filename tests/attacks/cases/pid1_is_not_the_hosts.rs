//! What /proc/1 tells is nothing of the host or of moat.

use std::fs;

use anyhow::Result;

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::{Field, SECRET, told};
use crate::inside::{Tries, number, read};

pub(super) const CASE: Case = Case {
    behind,
    open: in_the_open,
    ..Case::new(
        "pid1_is_not_the_hosts",
        "reads PID 1's environment, command line, root, working directory and mounts",
        attack,
    )
};

/// A variable of moat's own environment.
const VARIABLE: (&str, &str) = ("MOAT_ATTACK_TOKEN", "s3cret-of-moat");

fn attack(tries: &Tries, arguments: &[&str]) {
    let secret = arguments.first().copied().unwrap_or_default();
    let has = |what: &str, path: &str, part: &str| match read(path) {
        Ok(text) if text.contains(part) => tries.got(what, format!("has {part:?}")),
        Ok(text) => {
            let beginning: String =
                text.chars().take_while(|letter| *letter != '\0').take(60).collect();
            tries.refused(what, format!("{beginning:?}..."));
        }
        Err(errno) => tries.refused(what, format!("{errno:?}")),
    };
    has("environment", "/proc/1/environ", VARIABLE.1);
    // The attack itself is the last of it.
    has("command line", "/proc/1/cmdline", secret);
    has("root", &format!("/proc/1/root{secret}"), SECRET);
    let dir = secret.strip_suffix("/outside/secret").unwrap_or_default();
    has("mounts", "/proc/1/mountinfo", dir);
    let cwd = fs::read_to_string("/proc/1/cwd/outside/secret").map_err(|error| number(&error));
    tries.of("working directory", cwd);
}

fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    field.space.spec("")?;
    let secret = field.secret();
    let moat = field.space.moat(&field.command(&[&secret]))?;
    told(&moat.env(VARIABLE.0, VARIABLE.1).run()?)
}

fn in_the_open(field: &Field<'_>) -> Result<Vec<Evidence>> {
    let runtime = field.naive_moat(&[], &[&field.secret()], |_| {})?;
    told(&runtime.env(VARIABLE.0, VARIABLE.1).run()?)
}
