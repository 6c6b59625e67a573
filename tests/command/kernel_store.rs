//! `moat kernel import`, `ls`, `default` and `rm`: bundles come, are chosen and go, broken ones too.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use moat_tests::moat::Moat;
use moat_tests::seen::Seen;
use moat_tests::workspace::Workspace;

struct Place {
    space: Workspace,
    data: PathBuf,
}

impl Place {
    /// With `first`, which is the default, and `second`.
    fn new() -> Result<Self> {
        let space = Workspace::new(None)?;
        let data = space.path().join("data");
        let mut kernel = fs::read(space.root().join("bin/busybox"))?;
        kernel.extend(b"\0Linux version 9.9-test (nobody)\0");
        space.write("first", &kernel)?;
        let place = Self { space, data };
        let first = place.run(&["kernel", "import", "first", "--discovery", "cmdline"])?;
        first.status(0)?.stdout_has("kernel first: 9.9-test from /")?;
        let second = place.run(&["kernel", "import", "first", "--name", "second"])?;
        second.status(0)?.stdout_has("moat kernel default second")?;
        Ok(place)
    }

    fn moat(&self, args: &[&str]) -> Result<Moat> {
        Ok(self.space.verb(args)?.env("XDG_DATA_HOME", &self.data))
    }

    fn run(&self, args: &[&str]) -> Result<Seen> {
        self.moat(args)?.run()
    }

    /// The name of each, and whether it is the default and whether it is broken.
    fn rows(&self) -> Result<Vec<(String, bool, bool)>> {
        let listed = self.run(&["kernel", "ls", "--format", "json"])?;
        let rows = listed.status(0)?.json()?;
        let rows = rows.as_array().context("no list")?;
        let row = |row: &serde_json::Value| {
            let name = row["name"].as_str().unwrap_or_default().to_owned();
            (name, row["default"] == true, row.get("broken").is_some())
        };
        Ok(rows.iter().map(row).collect())
    }

    fn holds(&self, expected: &[(&str, bool, bool)]) -> Result<()> {
        let rows = self.rows()?;
        let expected: Vec<_> =
            expected.iter().map(|row| (row.0.to_owned(), row.1, row.2)).collect();
        ensure!(rows == expected, "{rows:?}");
        Ok(())
    }
}

#[test]
fn chosen_and_removed() -> Result<()> {
    let place = Place::new()?;
    place.holds(&[("first", true, false), ("second", false, false)])?;
    place.run(&["kernel", "ls"])?.status(0)?.stdout_has("first (default)")?;
    let chosen = place.run(&["kernel", "default", "second", "--format", "json"])?;
    ensure!(chosen.status(0)?.json()?["default"] == true, "{}", chosen.shown());
    place.holds(&[("first", false, false), ("second", true, false)])?;

    let unknown = place.run(&["kernel", "default", "third"])?;
    unknown.refused(125, "kernel")?.stderr_has("moat kernel ls")?;
    // Those that are there go, whatever is said of the others.
    let removed = place.run(&["kernel", "rm", "third", "../kernels", "default"])?;
    removed.status(125)?.stdout("removed second\n")?.stderr_has("third")?;
    place.holds(&[("first", false, false)])?;
    let removed = place.run(&["kernel", "rm", "first", "--format", "json"])?;
    ensure!(removed.status(0)?.json()? == serde_json::json!(["first"]), "{}", removed.shown());
    place.holds(&[])?;
    place.run(&["kernel", "rm", "first"])?.refused(125, "kernel")?;
    place.run(&["kernel", "rm"])?.status(2)?;
    Ok(())
}

#[test]
fn broken_ones_are_listed_and_mended_or_removed() -> Result<()> {
    let place = Place::new()?;
    let kernels = place.data.join("moat/kernels");
    fs::write(kernels.join("first/vmlinux"), "cut")?;
    fs::write(kernels.join("second/manifest.toml"), "name = 7\n")?;
    place.holds(&[("first", true, true), ("second", false, true)])?;
    let listed = place.run(&["kernel", "ls"])?;
    listed.status(0)?.stdout_has("first (default)")?.stdout_has("broken")?.stderr("")?;
    place.run(&["kernel", "default", "first"])?.refused(125, "kernel")?.stderr_has("import")?;

    place.run(&["kernel", "import", "first"])?.status(0)?;
    place.holds(&[("first", true, false), ("second", false, true)])?;
    place.run(&["kernel", "rm", "second"])?.status(0)?.stdout("removed second\n")?;
    place.holds(&[("first", true, false)])?;
    Ok(())
}

#[test]
fn modules_that_are_not_there() -> Result<()> {
    let place = Place::new()?;
    for modules in ["nosuch", "root"] {
        let args = ["kernel", "import", "first", "--name", "third", "--modules", modules];
        place.run(&args)?.refused(125, "kernel")?.stderr_has(modules)?;
    }
    place.holds(&[("first", true, false), ("second", false, false)])
}
