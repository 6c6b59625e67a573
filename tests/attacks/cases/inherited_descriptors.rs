//! What moat was started with does not come in.

use std::fs;

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{OFlag, readlink};

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::{Field, told};
use crate::inside::{Tries, open};

pub(super) const CASE: Case = Case {
    name: "inherited_descriptors",
    does: "looks for descriptors of host directories that moat was started with, its own and PID 1's",
    cve: Some("CVE-2024-21626"),
    hole: None,
    attack,
    behind,
    open: in_the_open,
};

fn attack(tries: &Tries, _: &[&str]) {
    let what = "descriptors beyond 0, 1 and 2";
    let links = (3..1024).filter_map(|fd| {
        let path = format!("/proc/self/fd/{fd}");
        Some(format!("{fd} is {}", fs::read_link(path).ok()?.display()))
    });
    let links: Vec<String> = links.collect();
    if links.is_empty() {
        tries.refused(what, "none");
    } else {
        tries.got(what, links.join(", "));
    }
    let secret =
        (3..1024).find_map(|fd| fs::read_to_string(format!("/proc/self/fd/{fd}/secret")).ok());
    match secret {
        Some(secret) => tries.got("a file below one", secret),
        None => tries.refused("a file below one", "no such descriptor"),
    }
    let of_first = (0..16).map(|fd| readlink(format!("/proc/1/fd/{fd}").as_str()));
    let of_first = of_first.reduce(Result::or).unwrap_or(Err(Errno::ENOENT));
    let of_first = of_first.map(|link| link.to_string_lossy().into_owned());
    tries.of("what a descriptor of PID 1's is", of_first);
    let stdin = open("/proc/1/fd/1", OFlag::O_WRONLY);
    tries.of("PID 1's stdout by its name", stdin.map(|_| "opened"));
}

/// Starts what follows with one directory and one file of the host's.
fn starter(field: &Field<'_>) -> Vec<String> {
    let (dir, secret) = (field.outside(), field.secret());
    let script = format!("exec 5< '{}' 9< '{secret}'; exec \"$@\"", dir.display());
    ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}

fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    field.space.spec("")?;
    let starter = starter(field);
    let starter: Vec<&str> = starter.iter().map(String::as_str).collect();
    let args = field.command(&[]);
    told(&field.space.through(&starter, &field.space.run_args(&args))?.run()?)
}

fn in_the_open(field: &Field<'_>) -> Result<Vec<Evidence>> {
    let starter = starter(field);
    let starter: Vec<&str> = starter.iter().map(String::as_str).collect();
    told(&field.naive_moat(&starter, &[], |_| {})?.run()?)
}
