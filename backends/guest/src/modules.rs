//! The kernel modules that the host put into the initramfs.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

/// Where the initramfs has them.
const DIRECTORY: &str = "/modules";

/// The file with their names, one in a line, each after those that it needs.
const ORDER: &str = "/modules/order";

/// Why a module could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The list can't be read.
    #[error("can't read {}", .path.display())]
    Order {
        /// The list.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A module file can't be opened.
    #[error("can't open module {}", .path.display())]
    Open {
        /// The module's file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel refuses a module.
    #[error("the kernel refuses module {}", .path.display())]
    Load {
        /// The module's file.
        path: PathBuf,
        /// The kernel's reason.
        source: Errno,
    },
}

/// Loads every module of the list, in order, and removes its file, whose memory the workload can
/// use better. A kernel that has all it needs built in comes without a list.
pub(crate) fn load_all() -> Result<(), ModuleError> {
    let order = match fs::read_to_string(ORDER) {
        Ok(order) => order,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ModuleError::Order { path: ORDER.into(), source }),
    };
    for name in order.lines().filter(|line| !line.is_empty()) {
        let path = Path::new(DIRECTORY).join(name);
        load(&path)?;
        // The worst that comes of a file that stays is some memory less.
        let _ = fs::remove_file(&path);
    }
    Ok(())
}

fn load(path: &Path) -> Result<(), ModuleError> {
    let file =
        File::open(path).map_err(|source| ModuleError::Open { path: path.to_owned(), source })?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        // Built in, or pulled in by another.
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(source) => Err(ModuleError::Load { path: path.to_owned(), source }),
    }
}
