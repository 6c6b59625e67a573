//! Specs that are wrong: every problem at once, with its place, and what would be right.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use moat_tests::host;
use moat_tests::seen::Seen;
use moat_tests::workspace::Workspace;

use crate::starters::PLAIN_USER;

/// Runs this text as a spec, which must be refused as one.
fn refused(text: impl AsRef<[u8]>) -> Result<Seen> {
    let space = Workspace::new(None)?;
    space.whole_spec(text)?;
    let seen = space.verb(&["run", "moat.toml"])?.run()?;
    seen.status(3)?
        .stdout("")?
        .stderr_has("error[spec]: ")?
        .stderr_has("\nmoat.toml:")?
        .stderr_lacks("panicked")?;
    ensure!(seen.stderr.len() < 64 << 10, "{} bytes of errors", seen.stderr.len());
    Ok(seen)
}

#[test]
fn every_problem_is_told_at_once_with_its_place() -> Result<()> {
    let seen = refused(
        "[workload.case]\n\
         image = \"host\"\n\
         rootfs = \"./root\"\n\
         comand = [\"true\"]\n\
         tmpfs = [\"/tmp:64\"]\n\
         \n\
         [workload.case.resources]\n\
         memory = \"512mb\"\n\
         cpus = -1\n\
         [workload.case.isolaton]\n\
         level = \"vm\"\n",
    )?;
    for told in [
        "moat.toml:4:1: workload.case.comand: unknown key",
        "did you mean \"command\"?",
        "moat.toml:5:",
        "moat.toml:8:",
        "did you mean \"512MiB\"?",
        "moat.toml:9:",
        "moat.toml:10:",
        "did you mean \"isolation\"?",
        "rootfs",
    ] {
        seen.stderr_has(told)?;
    }
    Ok(())
}

#[test]
fn a_name_or_a_command_in_the_specs_place() -> Result<()> {
    let space = Workspace::new(None)?;
    space.spec("")?;
    let named = space.verb(&["run", "case"])?.run()?;
    named.refused(3, "spec")?.stderr_has("`moat run moat.toml case`")?;
    named.stderr_has("`moat run -- case`")?;
    let mistyped = space.verb(&["run", "maot.toml"])?.run()?;
    mistyped.refused(3, "spec")?.stderr_has("see that the path is right")?;
    Ok(())
}

#[test]
fn problems_as_json() -> Result<()> {
    let space = Workspace::new(None)?;
    space.whole_spec("[workload.case]\nimage = \"host\"\ncomand = [\"true\"]\nuser = \"\"\n")?;
    let seen = space.verb(&["run", "moat.toml", "--format", "json"])?.run()?;
    let error = seen.status(3)?.stdout("")?.json_error()?;
    ensure!(error["code"] == "spec" && error["status"] == 3, "{error}");
    let text = error["problems"].to_string();
    for part in ["\"line\":3", "\"column\":1", "workload.case.comand", "\"line\":4", "moat.toml"] {
        ensure!(text.contains(part), "{part} is not in {text}");
    }
    Ok(())
}

#[test]
fn what_is_no_toml() -> Result<()> {
    for text in
        ["[workload.case\n", "workload", "= 1", "[workload.case]\nimage = \"host", "\u{feff}["]
    {
        refused(text)?;
    }
    Ok(())
}

#[test]
fn empty_and_comment_only() -> Result<()> {
    for text in ["", "\n\n", "# nothing yet\n", "workload = {}\n"] {
        refused(text)?.stderr_has("[workload.")?;
    }
    refused("[workload.case]\n")?.stderr_has("image")?;
    Ok(())
}

#[test]
fn binary_and_other_encodings() -> Result<()> {
    let elf = fs::read(moat_tests::moat::executable()?)?;
    refused(&elf[..4096])?.stderr_has("binary")?;
    refused(b"[workload.caf\xe9]\n")?.stderr_has("UTF-8")?;
    let utf16: Vec<u8> = "[workload.case]".encode_utf16().flat_map(u16::to_le_bytes).collect();
    refused(utf16)?;
    Ok(())
}

#[test]
fn huge_and_deep() -> Result<()> {
    let comment = format!("# {}\n", "x".repeat(120));
    refused(comment.repeat(20_000))?.stderr_has("bytes are too many")?;
    refused(format!("x = {}", "[".repeat(200_000)))?;
    refused("[workload.case.a.a]\n".repeat(20_000))?;
    let many: String = (0..20_000).map(|i| format!("key{i} = {i}\n")).collect();
    refused(format!("[workload.case]\nimage = \"host\"\n{many}"))?.stderr_has("more")?;
    Ok(())
}

#[test]
fn a_sparse_file_of_terabytes_is_not_read() -> Result<()> {
    let space = Workspace::new(None)?;
    space.whole_spec("")?;
    fs::File::options().write(true).open(space.path().join("moat.toml"))?.set_len(1 << 40)?;
    let seen = space.verb(&["run", "moat.toml"])?.run()?;
    seen.status(3)?.stderr_has("error[spec]: ")?;
    let seen = space.verb(&["run", "/dev/zero"])?.run()?;
    seen.status(3)?.stderr_has("error[spec]: ")?;
    Ok(())
}

#[test]
fn hostile_text_does_not_reach_the_terminal() -> Result<()> {
    let seen = refused("[workload.case]\nimage = \"host\"\n\"\\u001b[2J\\u202e\" = 1\n")?;
    let err = seen.err();
    ensure!(!err.contains('\u{1b}') && !err.contains('\u{202e}'), "{err:?}");
    Ok(())
}

#[test]
fn valid_keys_that_nothing_implements_yet_are_refused_by_name() -> Result<()> {
    let seen = refused(
        "[workload.case]\nimage = \"host\"\ncommand = [\"true\"]\nports = [\"8080:80\"]\n\
         restart = \"always\"\n[workload.case.network]\nmode = \"nat\"\n",
    )?;
    for key in ["workload.case.ports", "workload.case.restart", "workload.case.network.mode"] {
        let line = seen.err().lines().find(|line| line.contains(key)).map(str::to_owned);
        let line = line.with_context(|| format!("{key} is not named\n{}", seen.shown()))?;
        ensure!(line.contains("not supported yet"), "{line}");
    }
    Ok(())
}

#[test]
fn environment_files_are_checked_as_well() -> Result<()> {
    let space = Workspace::new(None)?;
    space.spec("command = [\"true\"]\nenv_file = [\"good.env\", \"bad.env\", \"missing.env\"]")?;
    space.write("good.env", "A=1\n")?;
    space.write("bad.env", "B=2\n1C=3\nno equals sign\n")?;
    let seen = space.verb(&["run"])?.run()?;
    seen.status(3)?.stdout("")?;
    for told in ["bad.env:2:1", "bad.env:3:1", "missing.env"] {
        seen.stderr_has(told)?;
    }
    space.write("bad.env", format!("LONG={}\n", "x".repeat(129 << 10)))?;
    space.verb(&["run"])?.run()?.status(3)?.stderr_has("LONG")?;
    Ok(())
}

#[test]
fn a_spec_that_is_not_there_or_can_not_be_read() -> Result<()> {
    let space = Workspace::new(None)?;
    space.verb(&["run", "nosuch.toml"])?.run()?.refused(3, "spec")?.stderr_has("nosuch.toml")?;
    space.verb(&["run"])?.run()?.refused(3, "spec")?.stderr_has("moat run -- COMMAND")?;
    space.verb(&["explain"])?.run()?.refused(3, "spec")?;
    space.verb(&["run", "root"])?.run()?.refused(3, "spec")?.stderr_has("root")?;
    std::os::unix::fs::symlink("loop.toml", space.path().join("loop.toml"))?;
    space.verb(&["run", "loop.toml"])?.run()?.refused(3, "spec")?.stderr_has("loop.toml")?;
    space.verb(&["run", "root/etc/passwd/x"])?.run()?.refused(3, "spec")?;
    Ok(())
}

#[test]
fn a_spec_of_someone_else() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("root reads everything, and only root can become a plain user");
    }
    let space = Workspace::new(None)?;
    space.spec("command = [\"true\"]")?;
    let spec = space.path().join("moat.toml");
    fs::set_permissions(spec, fs::Permissions::from_mode(0o600))?;
    let moat = space.through(&PLAIN_USER, &["run", "moat.toml"])?;
    let seen = moat.env("HOME", "/").run()?;
    seen.refused(3, "spec")?.stderr_has("moat.toml")?.stderr_has("Permission denied")?;
    Ok(())
}
