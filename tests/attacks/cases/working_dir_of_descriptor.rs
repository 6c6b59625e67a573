//! A working directory that is a descriptor leads nowhere else.

use anyhow::Result;

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::{Field, SECRET};
use crate::inside::{Tries, read};

pub(super) const CASE: Case = Case {
    name: "working_dir_of_descriptor",
    does: "has a working directory of `/proc/self/fd/N`, where moat was started with descriptors of the host's directories",
    cve: Some("CVE-2024-21626"),
    hole: None,
    attack,
    behind,
    open: in_the_open,
};

const WHAT: &str = "a host's file from the working directory";

fn attack(tries: &Tries, _: &[&str]) {
    let found = ["secret", "../outside/secret"].map(read).into_iter().find_map(Result::ok);
    match found.filter(|text| text == SECRET) {
        Some(secret) => tries.got(WHAT, secret),
        None => tries.refused(WHAT, "not there"),
    }
}

fn starter(field: &Field<'_>) -> Vec<String> {
    let dir = field.outside();
    let script = format!("exec 5< '{0}' 7< '{0}' 8< '{0}'; exec \"$@\"", dir.display());
    ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}

fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    let starter = starter(field);
    let starter: Vec<&str> = starter.iter().map(String::as_str).collect();
    let mut found = Vec::new();
    for number in 3..=12 {
        field.space.spec(&format!("working_dir = \"/proc/self/fd/{number}\""))?;
        let args = field.command(&[]);
        let seen = field.space.through(&starter, &field.space.run_args(&args))?.run()?;
        let told = Evidence::parse(&seen.out());
        if told.is_empty() {
            // moat's own word, without what differs from number to number.
            let refusal =
                seen.err().lines().find(|line| line.starts_with("error")).map(str::to_owned);
            let refusal = refusal.unwrap_or_else(|| seen.shown());
            found.push(Evidence::refused(WHAT, refusal.replace(&number.to_string(), "N")));
        }
        found.extend(told);
    }
    Ok(found)
}

fn in_the_open(field: &Field<'_>) -> Result<Vec<Evidence>> {
    let starter = starter(field);
    let starter: Vec<&str> = starter.iter().map(String::as_str).collect();
    let runtime = field.naive_moat(&starter, &[], |naive| {
        "/proc/self/fd/7".clone_into(&mut naive.working_dir);
    })?;
    crate::field::told(&runtime.run()?)
}
