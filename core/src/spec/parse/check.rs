//! What must hold among the keys of a workload.

use std::collections::BTreeMap;

use super::section::Section;
use crate::spec::written::Workload;
use crate::spec::{GuestPath, Image, Restart, Trust};

/// The keys that say where the root comes from.
const ROOTS: [&str; 3] = ["image", "rootfs", "oci"];

/// Where `shm_size` applies.
const SHM: &str = "/dev/shm";

/// Keys of the format that nothing implements yet.
const NOT_YET: [&str; 3] = ["oci", "ports", "depends_on"];

pub(super) fn workload(t: &mut Section<'_, '_, '_>, at: usize, written: &Workload) {
    one_root(t, at);
    command(t, at, written);
    trust(t, written);
    mounts(t, written);
    not_yet(t, written);
}

fn one_root(t: &mut Section<'_, '_, '_>, at: usize) {
    let mut given: Vec<_> =
        ROOTS.iter().filter_map(|key| t.offset(key).map(|offset| (offset, *key))).collect();
    given.sort_unstable();
    match given.as_slice() {
        [_] => {}
        [] => {
            let help = "write one of image, rootfs, oci; image = \"host\" is this machine's own \
                root, copy-on-write";
            let key = t.key.clone();
            t.report.add_with_help(at, &key, "no source of its root", help);
        }
        [(_, first), others @ ..] => {
            for (_, key) in others {
                let message = format!("a second source of the root, besides {first}");
                t.wrong(key, message, "keep exactly one of image, rootfs, oci");
            }
        }
    }
}

/// Only an image brings a command of its own.
fn command(t: &mut Section<'_, '_, '_>, at: usize, written: &Workload) {
    let host = written.image == Some(Image::Host);
    let own_root = host || written.rootfs.is_some();
    let wrong = |given: &Option<Vec<String>>, key| given.is_none() && t.offset(key).is_some();
    if wrong(&written.entrypoint, "entrypoint") || wrong(&written.command, "command") {
        return;
    }
    let (key, offset) = match (t.offset("command"), t.offset("entrypoint")) {
        (_, Some(offset)) => (format!("{}.entrypoint", t.key), offset),
        (Some(offset), None) => (format!("{}.command", t.key), offset),
        (None, None) => (t.key.clone(), at),
    };
    match written.entrypoint.iter().chain(&written.command).flatten().next() {
        Some(program) if program.is_empty() => {
            t.report.add(offset, &key, "the program's name must not be empty");
        }
        None if own_root => {
            let source = if host { "image = \"host\"" } else { "a rootfs" };
            let message = format!("has no command, and {source} brings none");
            let help = "write what runs, such as command = [\"echo\", \"hello\"]";
            t.report.add_with_help(offset, &key, message, help);
        }
        _ => {}
    }
}

fn trust(t: &mut Section<'_, '_, '_>, written: &Workload) {
    let pulled = matches!(written.image, Some(Image::Registry(_))) || written.oci.is_some();
    if pulled && written.trust == Some(Trust::Trusted) {
        let help = "leave it out; a policy may trust what was pulled";
        t.wrong("trust", "a spec may lower trust, never raise it", help);
    }
}

/// Two mounts at one place would hide each other.
fn mounts(t: &mut Section<'_, '_, '_>, written: &Workload) {
    let volumes = written.volumes.iter().flatten();
    let volumes = volumes.map(|volume| (&volume.value.target, volume.place, &volume.key));
    let tmpfs = written.tmpfs.iter().flatten();
    let tmpfs = tmpfs.map(|tmpfs| (&tmpfs.value.target, tmpfs.place, &tmpfs.key));
    let mut taken: BTreeMap<&GuestPath, &str> = BTreeMap::new();
    for (target, place, key) in volumes.chain(tmpfs) {
        let Some(other) = taken.insert(target, key) else { continue };
        let other = other.strip_prefix(&t.key).unwrap_or(other).trim_start_matches('.');
        let message = format!("{target} is taken by {other}");
        t.report.add_at(place, key, message, "give each a place of its own".to_owned());
    }
    let shm = taken.iter().find(|(target, _)| target.as_str() == SHM);
    if let (Some((_, key)), true) = (shm, t.offset("shm_size").is_some()) {
        let other = key.strip_prefix(&t.key).unwrap_or(key).trim_start_matches('.');
        let message = format!("{SHM} is taken by {other}, to which it does not apply");
        t.wrong("shm_size", message, "keep one of them");
    }
}

fn not_yet(t: &mut Section<'_, '_, '_>, written: &Workload) {
    for key in NOT_YET {
        t.not_yet(key);
    }
    if let Some(image @ Image::Registry(_)) = &written.image {
        t.value_not_yet("image", image, "use image = \"host\" or rootfs = \"./directory\"");
    }
    if let Some(restart) = written.restart.filter(|restart| *restart != Restart::No) {
        t.value_not_yet("restart", &restart, "only \"no\" is");
    }
}
