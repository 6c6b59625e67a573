//! Command lines that make no sense: status 2, and what would make sense.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Result, ensure};
use moat_tests::moat::Moat;
use moat_tests::terminal::Terminal;
use moat_tests::workspace::Workspace;

#[test]
fn unknown_verbs_flags_and_values() -> Result<()> {
    for (args, told) in [
        (&["rum"][..], "similar"),
        (&["run", "--isolaton", "vm"][..], "--isolation"),
        (&["run", "--isolation", "chroot"][..], "container"),
        (&["run", "--policy", "lax", "--", "true"][..], "security"),
        (&["run", "--trust", "trusted", "--", "true"][..], "untrusted"),
        (&["kernel"][..], "install"),
    ] {
        let seen = Moat::new(args)?.run()?;
        seen.status(2)?.stdout("")?.stderr_has(told)?;
    }
    let seen = Moat::new(["run", "--isolation", "chroot"])?.run()?;
    seen.refused(2, "usage")?.stderr_has("'chroot'")?.stderr_has("container")?;
    let json = Moat::new(["rum", "--format", "json"])?.run()?.json_error()?;
    ensure!(json["code"] == "usage" && json["status"] == 2, "{json}");
    ensure!(json["hint"].as_str().is_some_and(|hint| hint.contains("'run'")), "{json}");
    Ok(())
}

#[test]
fn help_is_a_result() -> Result<()> {
    for args in [&["--help"][..], &["run", "--help"], &["help", "explain"], &["--version"]] {
        let seen = Moat::new(args)?.run()?;
        seen.status(0)?.stdout_has("moat")?;
        ensure!(seen.stderr.is_empty(), "{}", seen.shown());
    }
    Ok(())
}

#[test]
fn arguments_that_are_no_text_are_refused() -> Result<()> {
    let bytes = OsStr::from_bytes(b"caf\xe9");
    let args = ["run", "--", "echo"].map(OsStr::new).into_iter().chain([bytes]);
    Moat::new(args)?.run()?.status(2)?.stderr_lacks("panicked")?;
    Ok(())
}

#[test]
fn a_terminal_that_is_not_there_is_not_made_up() -> Result<()> {
    let space = Workspace::new(Some("container"))?;
    space.spec("tty = true")?;
    space.sh("tty")?.refused(2, "usage")?.stderr_has("tty")?;
    let mut terminal = Terminal::start(space.moat(&["tty"])?, 80, 24)?;
    let (status, screen) = terminal.finish()?;
    ensure!(status == 0 && screen.contains("/dev/pts/0"), "status {status}: {screen}");
    Ok(())
}

#[test]
fn a_spec_on_stdin_is_not_supported() -> Result<()> {
    let space = Workspace::new(None)?;
    let text = "[workload.case]\nimage = \"host\"\ncommand = [\"true\"]\n";
    let seen = space.verb(&["run", "-"])?.stdin(text).run()?;
    seen.stdout("")?.stderr_lacks("panicked")?;
    ensure!(matches!(seen.status, 2 | 3), "{}", seen.shown());
    Ok(())
}
