//! On the host's own root, the host's sockets are not there: its services', and moat's own.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::Result;
use nix::errno::Errno;
use tempfile::TempDir;

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::{Field, told};
use crate::inside::{self, Tries, number};

pub(super) const CASE: Case = Case {
    behind: |field| run(field, false),
    open: |field| run(field, true),
    ..Case::new(
        "host_sockets",
        "looks for sockets below /run and /tmp, with `image = \"host\"`, and connects to them",
        attack,
    )
};

fn attack(tries: &Tries, arguments: &[&str]) {
    for path in arguments {
        let what = if path.starts_with("/tmp") { "in /tmp" } else { "in /run" };
        let kind = fs::symlink_metadata(path).map(|found| found.file_type().is_socket());
        let connected = kind.and_then(|_| UnixStream::connect(path)).map(|_| "connected");
        tries.of(what, connected.map_err(|error| number(&error)));
    }
}

/// Sockets where a host's services have theirs.
struct Sockets {
    all: Vec<(TempDir, UnixListener)>,
}

impl Sockets {
    fn new() -> Result<Self> {
        let mut all = Vec::new();
        for parent in ["/tmp", "/run"] {
            let dir = tempfile::Builder::new().prefix("moat-attack-").tempdir_in(parent)?;
            match UnixListener::bind(dir.path().join("socket")) {
                // A filesystem without sockets, as 9p.
                Err(error) if number(&error) == Errno::ENXIO => {}
                listener => all.push((dir, listener?)),
            }
        }
        Ok(Self { all })
    }

    fn dirs(&self) -> impl Iterator<Item = std::path::Display<'_>> {
        self.all.iter().map(|(dir, _)| dir.path().display())
    }
}

/// The attacker comes in by a volume, and so do the sockets in the open.
fn run(field: &Field<'_>, open: bool) -> Result<Vec<Evidence>> {
    let sockets = Sockets::new()?;
    let paths: Vec<String> = sockets.dirs().map(|dir| format!("{dir}/socket")).collect();
    let mut volumes = vec!["./root:/mnt:ro".to_owned()];
    let dirs = sockets.dirs().map(|dir| format!("{dir}:{dir}"));
    volumes.extend(dirs.filter(|_| open));
    field.space.host_spec(&format!("volumes = {volumes:?}"))?;
    let mut command = vec!["/mnt/attack", inside::ASKED, CASE.name];
    command.extend(paths.iter().map(String::as_str));
    told(&field.space.run(&command)?)
}
