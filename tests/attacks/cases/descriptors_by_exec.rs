//! What `moat exec` was started with does not come in either.

use anyhow::Result;
use moat_tests::running::{Running, in_own_dir};

use crate::cases::{Case, inherited_descriptors, working_dir_of_descriptor};
use crate::evidence::Evidence;
use crate::field::{Field, told};
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    name: "descriptors_by_exec",
    does: "looks for descriptors that `moat exec` was started with, and has one of them as its `--workdir`",
    cve: Some("CVE-2024-21626"),
    hole: None,
    attack,
    behind,
    open: in_the_open,
};

fn attack(tries: &Tries, _: &[&str]) {
    (inherited_descriptors::CASE.attack)(tries, &[]);
    (working_dir_of_descriptor::CASE.attack)(tries, &[]);
}

/// Starts what follows with descriptors of a directory of the host's.
fn starter(field: &Field<'_>) -> [String; 4] {
    let dir = field.outside();
    let script = format!("exec 5< '{0}' 7< '{0}' 8< '{0}'; exec \"$@\"", dir.display());
    ["sh".to_owned(), "-c".to_owned(), script, "sh".to_owned()]
}

fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    field.space.spec("")?;
    let starter = starter(field);
    let starter = starter.each_ref().map(String::as_str);
    let running = Running::start(&field.space)?;
    let exec = |workdir: &str| {
        let command = field.command(&[]);
        let args = [&["exec", "--workdir", workdir, "case"], command.as_slice()].concat();
        in_own_dir(&field.space, field.space.through(&starter, &args)?)?.run()
    };
    let mut found = told(&exec("/")?)?;
    for number in 3..=12 {
        // Where moat refuses it there is nothing to tell.
        found.extend(Evidence::parse(&exec(&format!("/proc/self/fd/{number}"))?.out()));
    }
    running.finish()?;
    Ok(found)
}

fn in_the_open(field: &Field<'_>) -> Result<Vec<Evidence>> {
    let starter = starter(field);
    let starter = starter.each_ref().map(String::as_str);
    let (live, first) = field.naive_running("echo ready; exec sleep 5")?;
    let enter = field.naive_enter(&starter, &first, |naive| {
        "/proc/self/fd/7".clone_into(&mut naive.working_dir);
    })?;
    let found = told(&enter.run()?);
    drop(live);
    found
}
