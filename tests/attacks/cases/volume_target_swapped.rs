//! A mount point that is swapped for a symlink while moat starts leads nowhere else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::Field;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    name: "volume_target_swapped",
    does: "swaps what a volume is mounted on for a symlink to a host directory, over and over, during 40 starts",
    cve: Some("CVE-2021-30465"),
    hole: None,
    attack,
    behind,
    open: in_the_open,
};

/// Starts behind moat; the naive runtime needs a few.
const STARTS: u32 = 20;

/// The host makes trouble, and sees what came of it.
fn attack(tries: &Tries, _: &[&str]) {
    tries.refused("started", "nothing to do inside");
}

/// A volume that others may write, and a directory of the root: `a` in each is a directory at one
/// moment and a symlink out at the next.
fn prepare(field: &Field<'_>) -> Result<()> {
    for parent in ["shared", "root"] {
        let parent = field.space.path().join(parent);
        fs::create_dir_all(parent.join("a/inner"))?;
        symlink(field.outside(), parent.join("b"))?;
    }
    field.space.write("data/file", "the volume's")
}

/// Starts things while `a` and `b` of a directory change places.
fn swapping(parent: &Path, start: impl FnOnce() -> Result<()>) -> Result<()> {
    let (a, b, done) = (parent.join("a"), parent.join("b"), AtomicBool::new(false));
    thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps = 0;
            while !done.load(Ordering::Relaxed) {
                let swapped = renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE);
                swaps += u32::from(swapped.is_ok());
            }
            swaps
        });
        let started = start();
        done.store(true, Ordering::Relaxed);
        let swaps = swapper.join().unwrap_or_default();
        ensure!(swaps > 100, "swapped only {swaps} times");
        started
    })
}

/// What was made in the host's directory, or mounted over it.
fn escaped(field: &Field<'_>, what: &str, ran: u32) -> Result<Evidence> {
    let names = fs::read_dir(field.outside())?.flatten().map(|entry| entry.file_name());
    let names: Vec<_> = names.filter(|name| name != "secret").collect();
    let how = format!("made in the host's directory: {names:?}");
    let none = format!("{ran} of {STARTS} starts ran, nothing came out");
    Ok(Evidence::when(!names.is_empty(), what, if names.is_empty() { none } else { how }))
}

const KINDS: [(&str, &str, &str); 2] = [
    ("mount point in a volume", "shared", "/shared/a/inner"),
    ("mount point in the root", "root", "/a/inner"),
];

fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    prepare(field)?;
    let mut found = Vec::new();
    for (what, parent, target) in KINDS {
        field.space.spec(&format!("volumes = [\"./shared:/shared\", \"./data:{target}\"]"))?;
        let mut ran = 0;
        swapping(&field.space.path().join(parent), || {
            for _ in 0..STARTS {
                // It runs, or moat refuses; neither may touch what is outside.
                ran += u32::from(field.space.run(&["true"])?.status == 0);
            }
            Ok(())
        })?;
        found.push(escaped(field, what, ran)?);
    }
    Ok(found)
}

fn in_the_open(field: &Field<'_>) -> Result<Vec<Evidence>> {
    prepare(field)?;
    let mut found = Vec::new();
    for (what, parent, target) in KINDS {
        swapping(&field.space.path().join(parent), || {
            let mut starts = 0..STARTS;
            while starts.next().is_some() && !field.outside().join("inner").exists() {
                let volume = |name: &str| field.space.path().join(name);
                let runtime = field.naive_moat(&[], &[], |naive| {
                    naive.volumes.push((volume("shared"), "/shared".to_owned()));
                    naive.volumes.push((volume("data"), target.to_owned()));
                })?;
                runtime.run()?;
            }
            Ok(())
        })?;
        found.push(escaped(field, what, STARTS)?);
        fs::remove_dir_all(field.outside().join("inner"))?;
    }
    Ok(found)
}
