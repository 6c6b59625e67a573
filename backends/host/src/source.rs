//! What a workload takes from this host, looked at before anything is made: one function for both
//! walls, so that both refuse the same in the same words.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use moat_core::diagnose::{Code, Fault};
use nix::errno::Errno;

/// The directory that holds a root filesystem.
///
/// # Errors
/// When it is not there, is no directory, or this user can't look at it.
pub fn rootfs(dir: &Path) -> Result<(), Fault> {
    let what = format!("rootfs {}", dir.display());
    let hint = "name a directory that holds a root filesystem, or write `image = \"host\"`";
    if !look(&what, dir, hint)?.is_dir() {
        return Err(Fault::new(Code::Spec, format!("{what} is not a directory")).hint(hint));
    }
    fs::read_dir(dir).map(drop).map_err(|error| unreadable(&what, error))
}

/// The file or directory that a volume shows.
///
/// # Errors
/// When it is not there, or this user can't look at it.
pub(crate) fn volume(path: &Path) -> Result<(), Fault> {
    let hint = format!("if it is to be a directory, `mkdir -p {}`", path.display());
    look(&format!("volume source {}", path.display()), path, &hint).map(drop)
}

/// `absent` is the hint where nothing is there.
fn look(what: &str, path: &Path, absent: &str) -> Result<Metadata, Fault> {
    fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Fault::new(Code::Spec, format!("{what} does not exist")).hint(absent)
        }
        _ => unreadable(what, error),
    })
}

fn unreadable(what: &str, error: io::Error) -> Fault {
    let hint = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES | Errno::EPERM) => "see that this user may read it",
        Some(Errno::ELOOP) => "its symbolic links lead round in a circle: break it",
        Some(Errno::ENOTDIR) => "something on the way to it is no directory",
        _ => "see that it can be read on this host",
    };
    Fault::new(Code::Spec, format!("{what} can't be read")).hint(hint).because(error)
}
