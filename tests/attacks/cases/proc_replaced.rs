//! What the root and its volumes put at /proc is not what moat takes for the kernel's.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::Result;

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::Field;
use crate::inside::{Tries, read};

pub(super) const CASE: Case = Case {
    name: "proc_replaced",
    does: "puts a volume of its own over /proc, and makes /proc of the root a symlink",
    cve: Some("CVE-2019-19921, CVE-2023-27561"),
    hole: None,
    attack,
    behind,
    open: in_the_open,
};

const PLANTED: &str = "self/attr/planted";

fn attack(tries: &Tries, arguments: &[&str]) {
    let what = arguments.first().copied().unwrap_or_default();
    match read(&format!("/proc/{PLANTED}")) {
        Ok(text) => tries.got(what, text),
        Err(errno) => tries.refused(what, format!("/proc is the kernel's: {errno:?}")),
    }
}

const VOLUME: &str = "a volume at /proc";
const LINK: &str = "/proc as a symlink";

fn run(field: &Field<'_>, what: &str, lines: &str) -> Result<Evidence> {
    field.space.spec(lines)?;
    let seen = field.space.run(&field.command(&[what]))?;
    let told = Evidence::parse(&seen.out()).pop();
    let refusal = seen.err().lines().find(|line| line.starts_with("error")).map(str::to_owned);
    Ok(told.unwrap_or_else(|| Evidence::refused(what, refusal.unwrap_or_else(|| seen.shown()))))
}

fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    field.space.write(&format!("fake/{PLANTED}"), "planted")?;
    let volume = run(field, VOLUME, "volumes = [\"./fake:/proc\"]")?;
    field.space.write(&format!("root/fake/{PLANTED}"), "planted")?;
    fs::remove_dir(field.space.root().join("proc"))?;
    symlink("fake", field.space.root().join("proc"))?;
    Ok(vec![volume, run(field, LINK, "")?])
}

fn in_the_open(field: &Field<'_>) -> Result<Vec<Evidence>> {
    field.space.write(&format!("fake/{PLANTED}"), "planted")?;
    let fake = field.space.path().join("fake");
    let mut found = field.naive_with(&[VOLUME], |naive| {
        naive.volumes.push((fake.clone(), "/proc".to_owned()));
    })?;
    // Mounted on what the symlink leads to, and left without what would be there.
    field.space.write(&format!("root/fake/{PLANTED}"), "planted")?;
    fs::remove_dir(field.space.root().join("proc"))?;
    symlink(&fake, field.space.root().join("proc"))?;
    found.extend(field.naive_with(&[LINK], |naive| {
        naive.volumes.push((field.space.root().join("fake"), fake.display().to_string()));
    })?);
    Ok(found)
}
