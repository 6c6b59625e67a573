//! Every file in `specs/` runs, and shows what its first line says.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use moat_tests::host;
use moat_tests::moat::Moat;
use moat_tests::terminal::Terminal;

use crate::documents::root;

/// What the examples print; those that are not here need only end well.
const PRINTED: [(&str, &str); 4] = [
    ("hello.toml", "hello\n"),
    ("limits.toml", "open files: 256, core size: 0\n"),
    ("untrusted-script.toml", "scratch space is in /tmp\nthe root is read-only\n"),
    ("vm.toml", "2 processors, Linux "),
];

fn specs() -> Result<Vec<PathBuf>> {
    let mut specs = Vec::new();
    for entry in fs::read_dir(root().join("specs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            specs.push(path);
        }
    }
    specs.sort();
    ensure!(specs.len() >= 5, "only {specs:?}");
    Ok(specs)
}

fn moat(args: &[&str]) -> Result<Moat> {
    Ok(Moat::new(args)?.dir(&root()))
}

#[test]
fn each_says_what_it_shows_and_names_its_schema() -> Result<()> {
    for path in specs()? {
        let text = fs::read_to_string(&path)?;
        let mut lines = text.lines();
        let what = lines.next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
        ensure!(what.ends_with('.'), "{}: what does it show?", path.display());
        let schema = lines.find_map(|line| line.strip_prefix("#:schema "));
        let schema = schema.with_context(|| format!("{} names no schema", path.display()))?;
        ensure!(path.with_file_name(schema).exists(), "{}: {schema}?", path.display());
    }
    Ok(())
}

#[test]
fn each_runs() -> Result<()> {
    if !host::has_containers() {
        moat_tests::skip!("{}", host::lacks("container").unwrap_or_default());
    }
    let has_vms = host::has_vms();
    for path in specs()? {
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
        let args = ["run", path.to_str().context("a path")?];
        let text = fs::read_to_string(&path)?;
        if text.contains("\ntty = true\n") {
            on_a_terminal(name, &args)?;
            continue;
        }
        let seen = moat(&args)?.run()?;
        if text.contains("level = \"vm\"") && !has_vms {
            seen.refused(5, "unavailable").context(name.to_owned())?;
            continue;
        }
        seen.status(0).context(name.to_owned())?;
        let printed = PRINTED.iter().find(|(spec, _)| *spec == name).map_or("", |(_, text)| text);
        ensure!(seen.out().starts_with(printed), "{name}\n{}", seen.shown());
    }
    Ok(())
}

fn on_a_terminal(name: &str, args: &[&str]) -> Result<()> {
    let mut terminal = Terminal::start(moat(args)?, 80, 24)?;
    terminal.send(b"echo it is $((40 + 2)); exit 7\n")?;
    let (status, screen) = terminal.finish()?;
    ensure!(status == 7 && screen.contains("it is 42"), "{name}: status {status}: {screen}");
    Ok(())
}

#[test]
fn the_shipped_schema_is_what_the_types_make_and_moat_prints() -> Result<()> {
    let path = Path::new(&root()).join("docs/spec.schema.json");
    let made = format!("{:#}\n", moat_core::spec::schema());
    if std::env::var_os("MOAT_WRITE_SCHEMA").is_some() {
        fs::write(&path, &made)?;
    }
    let shipped = fs::read_to_string(&path)?;
    ensure!(
        shipped == made,
        "{} is not what the types make: run this test with MOAT_WRITE_SCHEMA=1",
        path.display()
    );
    moat(&["schema"])?.run()?.status(0)?.stdout(&shipped)?;
    Ok(())
}
