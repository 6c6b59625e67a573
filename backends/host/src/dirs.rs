//! Where moat keeps things: one runtime directory (gone at reboot) and one data directory.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use moat_core::diagnose::{Code, Fault};
use nix::unistd::Uid;

/// moat's directories for the user that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// State of what runs: `$XDG_RUNTIME_DIR/moat`, else `/run/moat` for root and `/tmp/moat-UID`
    /// for a plain user.
    pub runtime: PathBuf,
    /// What lasts: `$XDG_DATA_HOME/moat`, else `~/.local/share/moat` (XDG base directories 0.8).
    pub data: PathBuf,
}

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DirsError {
    /// Neither `XDG_DATA_HOME` nor `HOME` is set, and the user has no home by /etc/passwd.
    #[error("neither XDG_DATA_HOME nor HOME is set to an absolute path, and /etc/passwd has none")]
    NoHome,
    /// It could not be made.
    #[error("{} can't be made", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else: a file, a symbolic link.
    #[error("{} is not a directory", path.display())]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// Someone else could change what is in it.
    #[error("{} is owned by user {owner} or writable by others", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
}

impl From<DirsError> for Fault {
    fn from(error: DirsError) -> Self {
        let hint = match &error {
            DirsError::NoHome => "set HOME".to_owned(),
            DirsError::Make { path, .. } => format!("see that {} can be written", path.display()),
            DirsError::NotOurs { path, .. } | DirsError::NoDirectory { path } => {
                format!(
                    "remove {}, or set XDG_RUNTIME_DIR to a directory of your own",
                    path.display()
                )
            }
        };
        Self::new(Code::State, "moat's directories can't be used").hint(hint).because(error)
    }
}

impl Dirs {
    /// The directories for this user and environment; makes none.
    ///
    /// # Errors
    /// When there is no home directory to go by.
    pub fn locate() -> Result<Self, DirsError> {
        let uid = Uid::effective();
        let runtime = match absolute(env::var_os("XDG_RUNTIME_DIR")) {
            Some(dir) => dir.join("moat"),
            None if uid.is_root() => PathBuf::from("/run/moat"),
            None => PathBuf::from(format!("/tmp/moat-{uid}")),
        };
        // Services and cron jobs have no HOME.
        let home = || absolute(env::var_os("HOME")).or_else(|| home_of(uid));
        let data = absolute(env::var_os("XDG_DATA_HOME"))
            .or_else(|| home().map(|home| home.join(".local/share")))
            .ok_or(DirsError::NoHome)?
            .join("moat");
        Ok(Self { runtime, data })
    }

    /// Makes the runtime directory, if need be, for this user alone.
    ///
    /// # Errors
    /// When it can't be made, or is not this user's own.
    pub fn make_runtime(&self) -> Result<(), DirsError> {
        make_private(&self.runtime)
    }
}

/// A user's home by /etc/passwd (passwd(5)).
fn home_of(uid: Uid) -> Option<PathBuf> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let mut users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let own =
        users.find(|fields| fields.get(2).and_then(|id| id.parse().ok()) == Some(uid.as_raw()))?;
    absolute(own.get(5).map(OsString::from))
}

fn absolute(value: Option<OsString>) -> Option<PathBuf> {
    value.map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Makes a directory with mode 0700, and its parents as the umask has it; refuses one that
/// another user could have put there, as may be in `/tmp`.
pub(crate) fn make_private(path: &Path) -> Result<(), DirsError> {
    let failed = |source| DirsError::Make { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => return result.map_err(failed),
    }
    let found = fs::symlink_metadata(path).map_err(failed)?;
    if !found.is_dir() {
        return Err(DirsError::NoDirectory { path: path.to_owned() });
    }
    let ours = found.uid() == Uid::effective().as_raw() && found.mode() & 0o022 == 0;
    if ours {
        Ok(())
    } else {
        Err(DirsError::NotOurs { path: path.to_owned(), owner: found.uid() })
    }
}
