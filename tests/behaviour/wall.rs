//! The two walls, and how a case runs something behind one.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use moat_tests::moat::{Moat, Seen};
use moat_tests::rootfs;
use tempfile::TempDir;

/// A wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wall {
    /// Linux namespaces.
    Container,
    /// A micro-VM.
    Vm,
}

impl Wall {
    /// Weakest first.
    pub const ALL: [Self; 2] = [Self::Container, Self::Vm];

    /// As `--isolation` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Vm => "vm",
        }
    }

    /// What this machine lacks for it, by moat's own word.
    pub fn lacks(self) -> Option<String> {
        let asked = Moat::new(["explain", "--format", "json", "--isolation", self.name(), "--", "true"])
            .and_then(Moat::run);
        match asked {
            Ok(seen) if seen.status == 0 => None,
            Ok(seen) => Some(reason(&seen)),
            Err(error) => Some(format!("{error:#}")),
        }
    }

    /// A workspace: a directory with a spec and a small root.
    pub fn workspace(self) -> Result<Workspace> {
        let dir = tempfile::Builder::new().prefix("moat-case-").tempdir()?;
        let root = dir.path().join("root");
        fs::create_dir(&root)?;
        rootfs::busybox(&root)?;
        Ok(Workspace { wall: self, dir })
    }
}

fn reason(seen: &Seen) -> String {
    let value: Option<serde_json::Value> = serde_json::from_slice(&seen.stdout).ok();
    let message = value.as_ref().and_then(|value| value.pointer("/0/message")?.as_str());
    message.map_or_else(|| seen.shown(), str::to_owned)
}

/// A directory with a spec and a small root, and the wall that it is run behind.
#[derive(Debug)]
pub struct Workspace {
    wall: Wall,
    dir: TempDir,
}

impl Workspace {
    /// Its directory; the root is in `root`.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a spec with one workload `case` on the small root, with these further lines.
    pub fn spec(&self, lines: &str) -> Result<()> {
        // Keys first: lines may open tables of their own.
        let text = format!("[workload.case]\nrootfs = \"./root\"\n{lines}\n");
        fs::write(self.dir.path().join("moat.toml"), text).context("the spec can't be written")
    }

    /// moat, about to run the spec's workload with this command.
    pub fn moat(&self, command: &[&str]) -> Result<Moat> {
        let mut args = vec!["run", "moat.toml", "case", "--isolation", self.wall.name()];
        if !command.is_empty() {
            args.push("--");
            args.extend(command);
        }
        Ok(Moat::new(args)?.dir(self.dir.path()))
    }

    /// Runs the spec's workload with this command.
    pub fn run(&self, command: &[&str]) -> Result<Seen> {
        self.moat(command)?.run()
    }

    /// Runs a line of shell.
    pub fn sh(&self, script: &str) -> Result<Seen> {
        self.run(&["sh", "-c", script])
    }
}
