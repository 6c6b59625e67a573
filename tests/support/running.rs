//! A workload that runs, for tests that act on it by its name.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::live::Live;
use crate::moat::{self, Moat};
use crate::seen::Seen;
use crate::workspace::Workspace;

/// The workload `case` of a workspace's spec, running `cat`, in a runtime directory of its own:
/// that of all tests has many of that name.
#[derive(Debug)]
pub struct Running<'s> {
    space: &'s Workspace,
    live: Live,
}

impl<'s> Running<'s> {
    /// Starts it, and waits until it runs.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(space: &'s Workspace) -> Result<Self> {
        Self::start_with(space, "")
    }

    /// Starts it with these words of shell before it waits for the end of its stdin.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_with(space: &'s Workspace, script: &str) -> Result<Self> {
        let script = format!("{script}\necho ready; cat; echo ended");
        let moat = space.moat(&["sh", "-c", &script])?;
        let live = in_own_dir(space, moat)?.stdin_open().start()?;
        Self::wait(space, live)
    }

    /// Waits until a moat, started in [`in_own_dir`] with a stdin that is open, says `ready`.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait(space: &'s Workspace, mut live: Live) -> Result<Self> {
        live.wait_for("ready\n")?;
        Ok(Self { space, live })
    }

    /// moat, about to act on what runs.
    ///
    /// # Errors
    /// When moat is not built.
    pub fn verb(&self, args: &[&str]) -> Result<Moat> {
        in_own_dir(self.space, self.space.verb(args)?)
    }

    /// Runs a command in the workload.
    ///
    /// # Errors
    /// When moat can't be started, or does not end.
    pub fn exec(&self, command: &[&str]) -> Result<Seen> {
        self.verb(&[&["exec", "case", "--"], command].concat())?.run()
    }

    /// Runs a line of shell in the workload.
    ///
    /// # Errors
    /// When moat can't be started, or does not end.
    pub fn sh(&self, script: &str) -> Result<Seen> {
        self.exec(&["sh", "-c", script])
    }

    /// The moat that runs it.
    pub fn live(&mut self) -> &mut Live {
        &mut self.live
    }

    /// Lets it come to its end.
    ///
    /// # Errors
    /// When it does not.
    pub fn finish(mut self) -> Result<Seen> {
        self.live.close_stdin();
        self.live.finish()
    }
}

/// moat with the workspace's own runtime directory, in which is known what was found out about this
/// machine: to try that anew takes long, and more than a busy emulated one may give.
///
/// # Errors
/// When that can't be made.
pub fn in_own_dir(space: &Workspace, moat: Moat) -> Result<Moat> {
    let dir = runtime_dir(space);
    if !dir.exists() {
        let (own, shared) = (dir.join("moat"), moat::runtime_dir().join("moat"));
        fs::create_dir_all(&own)?;
        for made in [&dir, &own] {
            fs::set_permissions(made, fs::Permissions::from_mode(0o700)).context("chmod")?;
        }
        for probe in ["probe-container.json", "probe-microvm.json"] {
            // What nobody has found out yet, this one does.
            let _ = fs::copy(shared.join(probe), own.join(probe));
        }
    }
    Ok(moat.env("XDG_RUNTIME_DIR", dir))
}

fn runtime_dir(space: &Workspace) -> PathBuf {
    space.path().join("runtime")
}
