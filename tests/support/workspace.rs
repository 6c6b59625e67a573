//! A directory with a spec and a small root.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::host;
use crate::moat::{BED, Moat};
use crate::rootfs;
use crate::seen::Seen;

/// A directory with a spec and a small root.
#[derive(Debug)]
pub struct Workspace {
    isolation: Option<&'static str>,
    dir: TempDir,
}

impl Workspace {
    /// One whose runs have this `--isolation`.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new(isolation: Option<&'static str>) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("moat-case-");
        let dir = if host::is_bed() { builder.tempdir_in(BED) } else { builder.tempdir() };
        let space = Self { isolation, dir: dir.context("no directory for a test can be made")? };
        // A plain user, too, may look into it.
        fs::set_permissions(space.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        fs::create_dir(space.root())?;
        rootfs::busybox(&space.root())?;
        Ok(space)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The small root in it.
    pub fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    /// A data home of this workspace's own, for `XDG_DATA_HOME`: what moat keeps is this test's
    /// alone, but for the guest kernels, which are those of whoever runs the tests.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn data_home(&self) -> Result<PathBuf> {
        let home = self.path().join("share");
        let kernels = home.join("moat/kernels");
        fs::create_dir_all(home.join("moat"))?;
        if !kernels.is_symlink() {
            std::os::unix::fs::symlink(host::data_home()?.join("moat/kernels"), kernels)?;
        }
        Ok(home)
    }

    /// Writes a spec with one workload `case` on the small root, with these further lines, and
    /// with the command `true` if they have none.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn spec(&self, lines: &str) -> Result<()> {
        self.whole_spec(with_root("rootfs = \"./root\"", lines))
    }

    /// Writes a spec with one workload `case` on this machine's own root.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn host_spec(&self, lines: &str) -> Result<()> {
        self.whole_spec(with_root("image = \"host\"", lines))
    }

    /// Writes a spec.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn whole_spec(&self, text: impl AsRef<[u8]>) -> Result<()> {
        self.write("moat.toml", text)
    }

    /// Writes a file, and the directories on the way to it.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text).with_context(|| format!("{} can't be written", path.display()))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.path().join(name);
        fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))
    }

    /// moat with these arguments, in this directory.
    ///
    /// # Errors
    /// When moat is not built.
    pub fn verb(&self, args: &[&str]) -> Result<Moat> {
        Ok(Moat::new(args)?.dir(self.path()))
    }

    /// As [`verb`](Self::verb), started by a command that runs what follows it.
    ///
    /// # Errors
    /// When moat is not built.
    pub fn through(&self, starter: &[&str], args: &[&str]) -> Result<Moat> {
        Ok(Moat::through(starter, args)?.dir(self.path()))
    }

    /// The arguments that run the spec's workload with this command, or its own when that is
    /// empty.
    pub fn run_args<'a>(&self, command: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["run", "moat.toml", "case"];
        if let Some(isolation) = self.isolation {
            args.extend(["--isolation", isolation]);
        }
        if !command.is_empty() {
            args.push("--");
            args.extend(command);
        }
        args
    }

    /// moat, about to run the spec's workload with this command.
    ///
    /// # Errors
    /// When moat is not built.
    pub fn moat(&self, command: &[&str]) -> Result<Moat> {
        self.verb(&self.run_args(command))
    }

    /// Runs the spec's workload with this command.
    ///
    /// # Errors
    /// When it can't be started, or does not end.
    pub fn run(&self, command: &[&str]) -> Result<Seen> {
        self.moat(command)?.run()
    }

    /// Runs a line of shell.
    ///
    /// # Errors
    /// When it can't be started, or does not end.
    pub fn sh(&self, script: &str) -> Result<Seen> {
        self.run(&["sh", "-c", script])
    }
}

fn with_root(root: &str, lines: &str) -> String {
    let has_command = lines.lines().any(|line| line.starts_with("command = "));
    let command = if has_command { "" } else { "command = [\"true\"]\n" };
    // The further lines come last: they may open tables of their own.
    format!("[workload.case]\n{root}\n{command}{lines}\n")
}
