//! A bundle on disk, and its manifest.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Error;
use crate::boot::{Discovery, KernelFormat};

pub(super) const MANIFEST: &str = "manifest.toml";
pub(super) const MODULES: &str = "modules";

/// What `manifest.toml` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The bundle's name, which is its directory's.
    pub name: String,
    /// The kernel's release, as `uname -r` says it in the guest.
    pub version: String,
    /// How the kernel file is laid out.
    pub format: KernelFormat,
    /// How the kernel finds its devices.
    pub discovery: Discovery,
    /// The kernel file's size in bytes.
    pub size: u64,
    /// The kernel file's SHA-256, in hexadecimal.
    pub sha256: String,
    /// File names in `modules/`, each after those it needs. Empty when all is built in.
    pub modules: Vec<String>,
    /// Where the kernel is from.
    pub source: Source,
}

/// Where a bundle's kernel is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum Source {
    /// The distribution's kernel package.
    Package {
        /// Its name.
        package: String,
        /// Its version, in the packager's counting.
        package_version: String,
    },
    /// A file of the user's.
    File {
        /// Where it was.
        path: PathBuf,
    },
    /// Built here with moat's configuration.
    Build {
        /// The package of the source.
        package: String,
        /// Its version, in the packager's counting.
        package_version: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Package { package, package_version } => write!(f, "{package} {package_version}"),
            Self::File { path } => write!(f, "{}", path.display()),
            Self::Build { package, package_version } => {
                write!(f, "a build of {package} {package_version}")
            }
        }
    }
}

/// A kernel bundle that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    dir: PathBuf,
    manifest: Manifest,
}

impl Bundle {
    /// Reads the manifest in `dir`, and sees that the files which it names are there. Their
    /// contents are not looked at: that would take longer than the guest's boot.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(MANIFEST);
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let manifest: Manifest = toml::from_str(&text)
            .map_err(|source| Error::Manifest { path: path.clone(), source })?;
        if dir.file_name() != Some(manifest.name.as_ref()) {
            return Err(Error::ManifestName { path, name: manifest.name });
        }
        let plain = |name: &&String| !name.is_empty() && !name.contains('/') && *name != "..";
        if let Some(module) = manifest.modules.iter().find(|name| !plain(name)) {
            return Err(Error::ManifestModule { path, module: module.clone() });
        }
        let bundle = Self { dir: dir.to_owned(), manifest };
        let size = bundle.size_of(bundle.kernel_path())?;
        if size != bundle.manifest.size {
            return Err(bundle.damaged(bundle.kernel_path(), "has another size than it had"));
        }
        for module in bundle.module_paths() {
            bundle.size_of(module)?;
        }
        Ok(bundle)
    }

    fn size_of(&self, path: PathBuf) -> Result<u64, Error> {
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() => Ok(meta.len()),
            Ok(_) => Err(self.damaged(path, "is no regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(self.damaged(path, "is missing"))
            }
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    fn damaged(&self, path: PathBuf, what: &'static str) -> Error {
        Error::Damaged { path, what, from: self.manifest.source.clone() }
    }

    /// Sees that the kernel file's contents are what was put there. Reads all of it.
    ///
    /// # Errors
    /// When they are not, or it can't be read.
    pub(crate) fn check_contents(&self) -> Result<(), Error> {
        let path = self.kernel_path();
        let sum = File::open(&path).and_then(digest).map_err(Error::io("read", &path))?;
        if sum == self.manifest.sha256 {
            Ok(())
        } else {
            Err(self.damaged(path, "is not what it was when the bundle was made"))
        }
    }

    /// The bundle's name.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// The bundle's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What its manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The kernel file.
    pub fn kernel_path(&self) -> PathBuf {
        self.dir.join(kernel_file(self.manifest.format))
    }

    /// The modules' files, in the order in which they are to be loaded.
    pub fn module_paths(&self) -> Vec<PathBuf> {
        let dir = self.dir.join(MODULES);
        self.manifest.modules.iter().map(|name| dir.join(name)).collect()
    }
}

fn digest(mut file: File) -> io::Result<String> {
    let mut sum = Sha256::new();
    let mut piece = vec![0; 256 << 10];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hexadecimal(&sum.finalize())),
            length => sum.update(piece.get(..length).unwrap_or_default()),
        }
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn kernel_file(format: KernelFormat) -> &'static str {
    match format {
        KernelFormat::Elf => "vmlinux",
        KernelFormat::BzImage => "bzImage",
    }
}
