//! Volumes: where their files are on this host, and the directories of those that moat keeps.
//!
//! ```text
//! DATA/volumes/NAME   a volume that moat keeps; user 0 of its workloads is who runs moat
//! DATA/volumes/.new   one being made
//! ```
//! A directory appears under its name whole, with its owner and mode, so that whoever finds it can
//! use it. Makers wait for each other by a lock on `volumes`, which ends with them: one that was
//! killed leaves at most an empty `.new`, for the next to go on with.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use moat_core::diagnose::{Code, Fault};
use moat_core::spec::{self, Name, Propagation, VolumeSource};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};

use crate::dirs::{self, Dirs};
use crate::{mountinfo, source};

/// Below the data directory.
const DIRECTORY: &str = "volumes";

/// Can't be a volume's name, which has no dots.
const NEW: &str = ".new";

/// As `/var` and all in it that is everybody's to look at: others of the workload's users may.
const MODE: u32 = 0o755;

/// Opens nothing but a directory.
const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Where a volume's files are on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    path: PathBuf,
    kept: Option<Kept>,
}

/// A volume that moat keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    name: Name,
    /// Whether it has yet to be made.
    is_new: bool,
}

impl Volume {
    /// Finds it; makes nothing.
    ///
    /// # Errors
    /// When the user's file or directory is not there or this user can't look at it, or nothing
    /// reaches it that is mounted later and that is asked for; when there is something else than
    /// a directory in the place of one that moat keeps.
    pub fn find(volume: &spec::Volume) -> Result<Self, Fault> {
        match &volume.source {
            VolumeSource::Bind(path) => {
                source::volume(path)?;
                if volume.propagation == Propagation::Slave {
                    must_be_reached(path)?;
                }
                Ok(Self { path: path.clone(), kept: None })
            }
            VolumeSource::Named(name) => {
                let path = Dirs::locate()?.data.join(DIRECTORY).join(name.as_str());
                let is_new = match fs::symlink_metadata(&path) {
                    Ok(found) if found.is_dir() => false,
                    Ok(_) => return Err(not_a_directory(name, &path)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                    Err(error) => return Err(fault(name, "can't be looked at", error)),
                };
                Ok(Self { path, kept: Some(Kept { name: name.clone(), is_new }) })
            }
        }
    }

    /// The file or directory, absolute. One that moat keeps may have yet to be made.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is on the same filesystem and is there: itself, or where it will be made.
    pub fn existing(&self) -> &Path {
        let mut there = self.path.ancestors().filter(|path| path.exists());
        there.next().unwrap_or(Path::new("/"))
    }

    /// Whether it has yet to be made.
    pub fn is_new(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.is_new)
    }

    /// Makes it, where it is one that moat keeps and not there yet.
    ///
    /// # Errors
    /// When it can't be made, or there is something else by now.
    pub fn make(&self) -> Result<(), Fault> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let Some(directory) = self.path.parent() else { return Ok(()) };
        let failed = |error: io::Error| fault(&kept.name, "can't be made", error);
        dirs::make_private(directory).map_err(|error| {
            Fault::new(Code::State, format!("volume {} can't be made", kept.name))
                .hint(format!("see that {} is a directory of your own", directory.display()))
                .because(error)
        })?;
        let directory = File::from(
            open(directory, FOLDER, Mode::empty()).map_err(|errno| failed(errno.into()))?,
        );
        if is_there(&directory, &kept.name).map_err(failed)? {
            return Ok(());
        }
        directory.lock().map_err(failed)?;
        make_in(&directory, &kept.name).map_err(failed)
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.kept {
            None => write!(f, "{path}"),
            Some(Kept { name, is_new: false }) => write!(f, "volume {name}, {path}"),
            Some(Kept { name, is_new: true }) => {
                write!(f, "volume {name}, {path}, which is made on first use")
            }
        }
    }
}

/// Makes the directory of a volume, with the lock held.
fn make_in(directory: &File, name: &Name) -> io::Result<()> {
    if is_there(directory, name)? {
        return Ok(());
    }
    match mkdirat(directory, NEW, Mode::S_IRWXU) {
        // A maker was killed. Nobody but makers puts anything in it.
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let new = File::from(openat(directory, NEW, FOLDER, Mode::empty())?);
    // The umask is the caller's.
    new.set_permissions(Permissions::from_mode(MODE))?;
    renameat(directory, NEW, directory, name.as_str())?;
    is_there(directory, name).map(drop)
}

/// Whether the volume's directory is there.
///
/// # Errors
/// Also when something else is.
fn is_there(directory: &File, name: &Name) -> io::Result<bool> {
    // It may be one that only its workload's users may read.
    let look = FOLDER.union(OFlag::O_PATH);
    match openat(directory, name.as_str(), look, Mode::empty()) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Refuses a source that what is mounted later would not reach.
fn must_be_reached(path: &Path) -> Result<(), Fault> {
    let reached = fs::canonicalize(path).and_then(|path| mountinfo::is_followed(&path));
    match reached {
        Ok(true) => Ok(()),
        Ok(false) => Err(Fault::new(
            Code::Spec,
            format!(
                "volume source {} is on a private mount, so that rslave would show nothing new",
                path.display()
            ),
        )
        .hint("make its mount shared with `mount --make-rshared`, or leave rslave out")),
        Err(error) => Err(Fault::new(
            Code::Spec,
            format!("can't tell whether mounts reach volume source {}", path.display()),
        )
        .because(error)),
    }
}

fn not_a_directory(name: &Name, path: &Path) -> Fault {
    Fault::new(
        Code::State,
        format!("volume {name} can't be used: {} is not a directory", path.display()),
    )
    .hint(format!("move {} away, or name the volume otherwise", path.display()))
}

fn fault(name: &Name, what: &str, error: io::Error) -> Fault {
    Fault::new(Code::State, format!("volume {name} {what}"))
        .hint("see that moat's data directory, $XDG_DATA_HOME or ~/.local/share, can be used")
        .because(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::sync::Barrier;
    use std::thread;

    use nix::unistd::{getegid, geteuid};

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn kept(data: &Path, text: &str) -> Volume {
        let path = data.join(DIRECTORY).join(text);
        Volume { path, kept: Some(Kept { name: name(text), is_new: true }) }
    }

    #[test]
    fn a_volume_is_made_once_and_belongs_to_whom_moat_runs_as() {
        let data = tempfile::tempdir().unwrap();
        let volume = kept(data.path(), "cache");
        volume.make().unwrap();
        let found = fs::symlink_metadata(volume.path()).unwrap();
        assert_eq!(found.mode() & 0o7777, MODE);
        assert_eq!((found.uid(), found.gid()), (geteuid().as_raw(), getegid().as_raw()));
        let around = fs::metadata(data.path().join(DIRECTORY)).unwrap();
        assert_eq!(around.mode() & 0o777, 0o700, "nobody else on this host gets at it");
        fs::write(volume.path().join("file"), "kept").unwrap();
        volume.make().unwrap();
        assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "kept");
    }

    /// Whoever comes to use it finds it whole, and all find the same.
    #[test]
    fn many_make_one_at_once() {
        let data = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let volume = kept(data.path(), &format!("v{round}"));
            let start = Barrier::new(8);
            thread::scope(|scope| {
                for maker in 0..8 {
                    let (volume, start) = (&volume, &start);
                    scope.spawn(move || {
                        start.wait();
                        volume.make().unwrap();
                        let found = fs::symlink_metadata(volume.path()).unwrap();
                        assert_eq!(found.mode() & 0o7777, MODE);
                        fs::write(volume.path().join(maker.to_string()), "").unwrap();
                    });
                }
            });
            assert_eq!(fs::read_dir(volume.path()).unwrap().count(), 8, "round {round}");
        }
        assert!(!data.path().join(DIRECTORY).join(NEW).exists());
    }

    #[test]
    fn what_a_killed_maker_left_is_used() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir_all(data.path().join(DIRECTORY).join(NEW)).unwrap();
        fs::set_permissions(data.path().join(DIRECTORY), Permissions::from_mode(0o700)).unwrap();
        kept(data.path(), "cache").make().unwrap();
        assert!(!data.path().join(DIRECTORY).join(NEW).exists());
        assert!(data.path().join(DIRECTORY).join("cache").is_dir());
    }

    #[test]
    fn nothing_else_is_taken_for_a_volume() {
        let data = tempfile::tempdir().unwrap();
        let target = data.path().join("elsewhere");
        fs::create_dir(&target).unwrap();
        kept(data.path(), "first").make().unwrap();
        let link = kept(data.path(), "link");
        symlink(&target, link.path()).unwrap();
        let file = kept(data.path(), "file");
        fs::write(file.path(), "").unwrap();
        for volume in [link, file] {
            volume.make().unwrap_err();
        }
        fs::remove_dir_all(data.path().join(DIRECTORY)).unwrap();
        symlink(&target, data.path().join(DIRECTORY)).unwrap();
        kept(data.path(), "cache").make().unwrap_err();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "a symlink was followed");
    }

    #[test]
    fn what_exists_of_a_new_volume_is_where_it_will_be() {
        let data = tempfile::tempdir().unwrap();
        let volume = kept(data.path(), "cache");
        assert_eq!(volume.existing(), data.path());
        volume.make().unwrap();
        assert_eq!(volume.existing(), volume.path());
    }
}
