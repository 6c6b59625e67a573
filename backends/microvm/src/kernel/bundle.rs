//! A bundle on disk, and its manifest.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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
    /// Reads the manifest in `dir`; the kernel file itself is not looked at.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(MANIFEST);
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let manifest: Manifest = toml::from_str(&text)
            .map_err(|source| Error::Manifest { path: path.clone(), source })?;
        let plain = |name: &&String| !name.is_empty() && !name.contains('/') && *name != "..";
        if let Some(module) = manifest.modules.iter().find(|name| !plain(name)) {
            return Err(Error::ManifestModule { path, module: module.clone() });
        }
        Ok(Self { dir: dir.to_owned(), manifest })
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

pub(super) fn kernel_file(format: KernelFormat) -> &'static str {
    match format {
        KernelFormat::Elf => "vmlinux",
        KernelFormat::BzImage => "bzImage",
    }
}
