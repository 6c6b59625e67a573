//! newuidmap(1) and newgidmap(1): they give a plain user's namespaces the ids that are set aside
//! for that user.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::Pid;

use crate::idmap::{self, Map, Ranges};

/// Where they are looked for: directories that root alone can write. The last is NixOS's.
const DIRECTORIES: [&str; 5] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/wrappers/bin"];

/// The attribute that holds a file's capabilities (capabilities(7)).
const CAPABILITY: &str = "security.capability";

/// The two programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helpers {
    users: PathBuf,
    groups: PathBuf,
}

/// Why they can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// One is not there.
    #[error("{program} is not installed")]
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// One can't do what it is for.
    #[error("{} can't give ids: {reason}", program.display())]
    Broken {
        /// Its path.
        program: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Helpers {
    /// Finds them, and sees that they would have the rights they need.
    ///
    /// # Errors
    /// Why they can't be used.
    pub fn find() -> Result<Self, Unusable> {
        Ok(Self { users: find("newuidmap")?, groups: find("newgidmap")? })
    }

    /// Gives a process's new user namespace this map, whose first user and group are the caller's
    /// own. Where a program refuses, the namespace gets the caller's own id alone. Gives the map
    /// that is in force then, and what was said about what it lacks.
    ///
    /// # Errors
    /// When even that is refused.
    pub fn give(&self, map: &Map, pid: Pid) -> io::Result<(Map, Vec<String>)> {
        // Each takes milliseconds: both at the same time.
        let users = start(&self.users, pid, &map.users);
        let groups = start(&self.groups, pid, &map.groups);
        let mut given = map.clone();
        let mut refusals = Vec::new();
        if let Err(refusal) = end(&self.users, users) {
            given.users = Ranges::single(map.users.first());
            idmap::give_users(pid, &given.users)?;
            refusals.push(refusal);
        }
        if let Err(refusal) = end(&self.groups, groups) {
            given.groups = Ranges::single(map.groups.first());
            idmap::give_own_group(pid, &given.groups)?;
            refusals.push(refusal);
        }
        Ok((given, refusals))
    }
}

fn find(program: &'static str) -> Result<PathBuf, Unusable> {
    let mut places = DIRECTORIES.iter().map(|dir| Path::new(dir).join(program));
    let path = places.find(|path| path.is_file()).ok_or(Unusable::Missing { program })?;
    match obstacle(&path) {
        None => Ok(path),
        Some(reason) => Err(Unusable::Broken { program: path, reason }),
    }
}

/// What would keep the program from having more rights than its caller.
fn obstacle(path: &Path) -> Option<String> {
    let Ok(metadata) = fs::metadata(path) else {
        return Some("it can't be looked at".to_owned());
    };
    let set_user = metadata.permissions().mode() & 0o4000 != 0 && metadata.uid() == 0;
    let has_capabilities =
        rustix::fs::getxattr(path, CAPABILITY, &mut [0u8; 64]).is_ok_and(|length| length > 0);
    if !set_user && !has_capabilities {
        return Some("it is neither setuid root nor has file capabilities".to_owned());
    }
    if statvfs(path).is_ok_and(|mount| mount.flags().contains(FsFlags::ST_NOSUID)) {
        return Some("it is on a filesystem mounted nosuid".to_owned());
    }
    if nix::sys::prctl::get_no_new_privs().unwrap_or(false) {
        return Some("moat was started with no_new_privs".to_owned());
    }
    None
}

/// Starts `PROGRAM PID INSIDE OUTSIDE COUNT...`, with an empty environment.
fn start(program: &Path, pid: Pid, ranges: &Ranges) -> io::Result<Child> {
    let numbers = ranges.as_slice().iter().flat_map(|range| {
        [range.inside, range.outside, range.count].map(|number| number.to_string())
    });
    Command::new(program)
        .arg(pid.to_string())
        .args(numbers)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// Waits for its end.
fn end(program: &Path, child: io::Result<Child>) -> Result<(), String> {
    let output = child.and_then(Child::wait_with_output);
    let reason = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().next().unwrap_or_default().trim();
            // It names itself.
            let line = line.split_once("map: ").map_or(line, |(_, rest)| rest);
            if line.is_empty() { output.status.to_string() } else { line.to_owned() }
        }
        Err(error) => error.to_string(),
    };
    Err(format!("{} gave no ids: {reason}", program.display()))
}
