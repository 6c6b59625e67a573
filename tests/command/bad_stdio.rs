//! What moat can't give to a workload as its stdin, stdout and stderr.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Result, ensure};
use moat_tests::workspace::Workspace;
use nix::fcntl::OFlag;

#[test]
fn a_directory_is_no_stdin_stdout_or_stderr() -> Result<()> {
    for isolation in ["container", "vm"] {
        let space = Workspace::new(Some(isolation))?;
        space.spec("")?;
        let script = "for fd in 0 1 2; do echo escaped > /proc/self/fd/$fd/../escaped; done";
        let moat = || space.moat(&["sh", "-c", script]);
        let dir = space.root();

        let seen = moat()?.stdin_is(File::open(&dir)?).run()?;
        seen.refused(2, "usage")?.stderr_has("stdin is a directory")?.stderr_has("volume")?;
        let seen = moat()?.stdin_is(place(&dir)?).run()?;
        seen.refused(2, "usage")?.stderr_has("stdin is a directory")?;
        let seen = moat()?.stdin_is(place(&space.path().join("moat.toml"))?).run()?;
        seen.refused(2, "usage")?.stderr_has("O_PATH")?;

        let output = moat()?.into_command().stdout(File::open(&dir)?).output()?;
        ensure!(output.status.code() == Some(2), "{output:?}");
        let err = String::from_utf8_lossy(&output.stderr);
        ensure!(err.contains("stdout is a directory"), "{err}");
        let output = moat()?.into_command().stderr(File::open(&dir)?).output()?;
        ensure!(output.status.code() == Some(2), "{output:?}");
        ensure!(!space.path().join("escaped").exists(), "a file was made outside");
    }
    Ok(())
}

fn place(path: &Path) -> Result<File> {
    Ok(OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(path)?)
}
