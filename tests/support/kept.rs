//! Workloads in the background, for tests that act on them by name.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::moat::Moat;
use crate::running::in_own_dir;
use crate::seen::Seen;
use crate::workspace::Workspace;

/// The workloads that a test keeps, in runtime and data directories of the workspace's own. Those
/// that it leaves are ended.
#[derive(Debug)]
pub struct Kept<'s> {
    space: &'s Workspace,
    data: PathBuf,
}

impl<'s> Kept<'s> {
    /// None so far.
    ///
    /// # Errors
    /// When the directories can't be made.
    pub fn new(space: &'s Workspace) -> Result<Self> {
        Ok(Self { space, data: space.data_home()? })
    }

    /// moat with these arguments.
    ///
    /// # Errors
    /// When moat is not built.
    pub fn verb(&self, args: &[&str]) -> Result<Moat> {
        Ok(in_own_dir(self.space, self.space.verb(args)?)?.env("XDG_DATA_HOME", &self.data))
    }

    /// Runs moat with these arguments.
    ///
    /// # Errors
    /// When it can't be started, or does not end.
    pub fn ask(&self, args: &[&str]) -> Result<Seen> {
        self.verb(args)?.run()
    }

    /// moat, about to run the spec's workload in the background, with these options and this line of
    /// shell.
    ///
    /// # Errors
    /// When moat is not built.
    pub fn moat(&self, options: &[&str], script: &str) -> Result<Moat> {
        let mut args = self.space.run_args(&["sh", "-c", script]);
        args.splice(1..1, ["-d"].into_iter().chain(options.iter().copied()));
        self.verb(&args)
    }

    /// Starts the spec's workload in the background; gives its id.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&self, options: &[&str], script: &str) -> Result<String> {
        let seen = self.moat(options, script)?.run()?;
        seen.status(0)?.stderr("")?;
        Ok(seen.out().trim_end().to_owned())
    }

    /// What `moat inspect` tells.
    ///
    /// # Errors
    /// When it tells nothing.
    pub fn inspect(&self, name: &str) -> Result<Value> {
        self.ask(&["inspect", name])?.status(0)?.json()
    }

    /// The pid of its monitor.
    ///
    /// # Errors
    /// When it has none.
    pub fn monitor(&self, name: &str) -> Result<i32> {
        let pid = self.inspect(name)?["monitor"].as_i64().context("it has no monitor")?;
        Ok(i32::try_from(pid)?)
    }

    /// The directories of those that are kept.
    pub fn dirs(&self) -> Vec<PathBuf> {
        let entries =
            fs::read_dir(self.data.join("moat/instances")).into_iter().flatten().flatten();
        let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.map(|entry| entry.path()).collect()
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        for dir in self.dirs() {
            if let Some(id) = dir.file_name().and_then(|name| name.to_str()) {
                // Best effort: the test may have failed because this does.
                let _ = self.ask(&["rm", "--force", id]);
            }
        }
    }
}
