//! `moat kernel import` of what is no kernel.

use std::fs;

use anyhow::{Result, ensure};
use moat_tests::workspace::Workspace;

#[test]
fn files_that_are_no_kernel() -> Result<()> {
    let space = Workspace::new(None)?;
    let data = space.path().join("data");
    let elf = fs::read(moat_tests::moat::executable()?)?;
    space.write("text", "this is no kernel\n")?;
    space.write("empty", "")?;
    space.write("cut", &elf[..200])?;
    space.write("program", &elf)?;
    space.write("zeros", vec![0; 1 << 20])?;
    let mut boot = vec![0; 4096];
    boot[0x202..0x206].copy_from_slice(b"HdrS");
    space.write("header-only", &boot)?;
    fs::create_dir(space.path().join("directory"))?;
    for file in ["text", "empty", "cut", "program", "zeros", "header-only", "directory", "nosuch"] {
        let moat = space.verb(&["kernel", "import", file])?.env("XDG_DATA_HOME", &data);
        let seen = moat.run()?;
        seen.refused(125, "kernel")?.stderr_has(file)?;
    }
    let left = count(&data.join("moat/kernels"));
    ensure!(left == 0, "{left} files are left");
    let list = space.verb(&["kernel", "ls"])?.env("XDG_DATA_HOME", &data).run()?;
    list.status(0)?.stdout_has("moat kernel install")?;
    Ok(())
}

#[test]
fn an_endless_file_is_not_read() -> Result<()> {
    let space = Workspace::new(None)?;
    let data = space.path().join("data");
    let seen = space.verb(&["kernel", "import", "/dev/zero"])?.env("XDG_DATA_HOME", &data).run()?;
    seen.refused(125, "kernel")?.stderr_has("/dev/zero")?;
    Ok(())
}

#[test]
fn names_that_lead_elsewhere() -> Result<()> {
    let space = Workspace::new(None)?;
    let data = space.path().join("data");
    space.write("text", "this is no kernel\n")?;
    for name in ["../../escaped", "/tmp/escaped", "", "a/b", "."] {
        let moat = space.verb(&["kernel", "import", "text", "--name", name])?;
        let seen = moat.env("XDG_DATA_HOME", &data).run()?;
        ensure!(seen.status != 0, "{}", seen.shown());
        seen.stderr_lacks("panicked")?;
    }
    ensure!(!space.path().join("escaped").exists(), "a name led out");
    Ok(())
}

/// Regular files below this directory, however deep, but the store's own lock.
fn count(dir: &std::path::Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count(&entry.path()),
            _ if entry.file_name() == ".lock" => 0,
            _ => 1,
        })
        .sum()
}
