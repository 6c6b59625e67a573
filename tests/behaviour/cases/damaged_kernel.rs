//! A guest kernel that was damaged after it came: one clear error, with what mends it, and nothing
//! left.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use moat_tests::kernels::default_bundle;
use moat_tests::remains::Watched;
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// What is done to a bundle in this directory, and what the error says.
type Damage = (fn(&Path) -> Result<()>, &'static str);

/// Seen before anything is started.
const SEEN_AT_ONCE: [Damage; 5] = [
    (|dir| cut(&dir.join("vmlinux")), "vmlinux has another size"),
    (|dir| Ok(fs::remove_file(dir.join("vmlinux"))?), "vmlinux is missing"),
    (|dir| edit(dir, "discovery", "undiscovered"), "manifest"),
    (|dir| edit(dir, "name = \"damaged\"", "name = \"other\""), "other"),
    (|dir| edit(dir, "modules = [", "modules = [\"nosuch.ko\", "), "nosuch.ko is missing"),
];

/// Seen by who reads the kernel: moat's VMM, or the machine that it runs in.
const SEEN_LATE: [Damage; 4] = [
    (
        |dir| {
            let path = dir.join("vmlinux");
            let size = fs::metadata(&path)?.len();
            cut(&path)?;
            edit(dir, &format!("size = {size}"), &format!("size = {}", size / 2))
        },
        "vmlinux is not what it was",
    ),
    (|dir| fill(&dir.join("vmlinux"), 0), "vmlinux is not what it was"),
    // Its ELF headers are whole, its code is not.
    (|dir| fill(&dir.join("vmlinux"), 0x1000), "vmlinux is not what it was"),
    (fill_modules, "the guest's console ends with"),
];

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let watched = Watched::new(&space)?;
    let bundle = default_bundle()?;
    let kernels = space.path().join("data/moat/kernels");
    let dir = kernels.join("damaged");
    space.spec("vm = { kernel = \"damaged\" }")?;
    // A kernel that has all built in has no modules to damage.
    let has_modules = bundle.dir.join("modules").is_dir();
    let late = SEEN_LATE.into_iter().take(if has_modules { 4 } else { 3 });
    for (damage, says) in SEEN_AT_ONCE.into_iter().chain(late) {
        copy(&bundle.dir, &dir)?;
        edit(&dir, &format!("name = \"{}\"", bundle.name), "name = \"damaged\"")?;
        damage(&dir)?;
        let moat = space.moat(&["echo", "ran"])?.env("XDG_DATA_HOME", space.path().join("data"));
        let seen = watched.watch(moat).run()?;
        let code = if says.contains("console") { "microvm" } else { "kernel" };
        seen.refused(125, code).context(says)?.stderr_has(says)?;
        watched.nothing(&space, &[])?;
        fs::remove_dir_all(&kernels)?;
    }
    Ok(Vec::new())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn edit(dir: &Path, from: &str, to: &str) -> Result<()> {
    let path = dir.join("manifest.toml");
    let text = fs::read_to_string(&path)?;
    anyhow::ensure!(text.contains(from), "the manifest has no {from:?}");
    Ok(fs::write(&path, text.replacen(from, to, 1))?)
}

fn cut(path: &Path) -> Result<()> {
    let size = fs::metadata(path)?.len();
    Ok(File::options().write(true).open(path)?.set_len(size / 2)?)
}

fn fill_modules(dir: &Path) -> Result<()> {
    fs::read_dir(dir.join("modules"))?.try_for_each(|module| fill(&module?.path(), 0))
}

/// Overwrites all from that byte on.
fn fill(path: &Path, from: usize) -> Result<()> {
    let mut bytes = fs::read(path)?;
    // `ud2`, of two bytes: what runs it ends at once.
    for (at, byte) in bytes.iter_mut().enumerate().skip(from) {
        *byte = if at % 2 == 0 { 0x0f } else { 0x0b };
    }
    Ok(fs::write(path, bytes)?)
}
