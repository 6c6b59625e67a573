//! What can go wrong with kernel bundles, and what a user can do about each.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use moat_core::diagnose::{Code, Fault};

use super::bundle::Source;

/// Why a kernel bundle can't be used or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name can't be a directory of its own.
    #[error("{name:?} can't name a kernel bundle")]
    Name {
        /// As it was given.
        name: String,
    },
    /// There is no such bundle.
    #[error("no kernel bundle {name:?} in {}", dir.display())]
    NoSuchBundle {
        /// The bundle asked for.
        name: String,
        /// Where the bundles are.
        dir: PathBuf,
    },
    /// No bundle is the default one.
    #[error("no default kernel bundle in {}", dir.display())]
    NoDefault {
        /// Where the bundles are.
        dir: PathBuf,
        /// The names of those that are there.
        others: Vec<String>,
    },
    /// A bundle's manifest is not TOML, or lacks keys.
    #[error("{} is not a kernel bundle's manifest", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The parser's reason.
        source: toml::de::Error,
    },
    /// A bundle's manifest names a file outside its bundle.
    #[error("{} names a module {module:?}, which is no plain file name", path.display())]
    ManifestModule {
        /// The manifest.
        path: PathBuf,
        /// The module's name in it.
        module: String,
    },
    /// A bundle's manifest gives it another name than its directory has.
    #[error("{} is the manifest of a bundle {name:?}", path.display())]
    ManifestName {
        /// The manifest.
        path: PathBuf,
        /// The name in it.
        name: String,
    },
    /// A file of a bundle is not what was put there.
    #[error("{} {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// "is missing".
        what: &'static str,
        /// Where the bundle is from.
        from: Source,
    },
    /// A manifest could not be put into TOML.
    #[error("the manifest of kernel bundle {name:?} can't be written")]
    WriteManifest {
        /// The bundle.
        name: String,
        /// The writer's reason.
        source: toml::ser::Error,
    },
    /// The file is no kernel that a micro-VM can boot.
    #[error("not a kernel: {}: {why}", path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        why: &'static str,
    },
    /// The file is larger than any kernel or module is.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read, in bytes.
        limit: u64,
    },
    /// Neither built in nor there as a module.
    #[error("module {name} is neither in {} nor built in", dir.display())]
    NoModule {
        /// The module.
        name: String,
        /// The directory of modules.
        dir: PathBuf,
    },
    /// A module's file can't be read as one.
    #[error("not a kernel module: {}: {why}", path.display())]
    NotAModule {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A module was built for another kernel.
    #[error("module {} is for Linux {found}, and the kernel is {release}", path.display())]
    OtherKernel {
        /// The module's file.
        path: PathBuf,
        /// The release that it was built for.
        found: String,
        /// The kernel's release.
        release: String,
    },
    /// apt is not there.
    #[error("{program} is not there: kernels can be fetched on Debian and Ubuntu only")]
    NoApt {
        /// apt-get, apt-cache or dpkg-deb.
        program: String,
    },
    /// apt does not know any of the packages.
    #[error("apt knows no package {}", names.join(" or "))]
    NoPackage {
        /// The packages, in the order they were looked for.
        names: Vec<String>,
    },
    /// A package does not hold what it should.
    #[error("package {package} holds no {what}")]
    PackageLacks {
        /// The package.
        package: String,
        /// What was looked for.
        what: &'static str,
    },
    /// What the build needs is not installed.
    #[error("building a kernel needs {}", packages.join(", "))]
    NoTools {
        /// Debian packages.
        packages: Vec<&'static str>,
    },
    /// Options of moat's configuration that this kernel source does not take.
    #[error("the kernel source does not take {}", options.join(", "))]
    Configuration {
        /// The lines that were lost.
        options: Vec<String>,
    },
    /// A program can't be started.
    #[error("{program} can't be run")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last of what it wrote.
        output: String,
    },
    /// A program found no room for what it writes.
    #[error("{program} has no space left on the device")]
    NoSpace {
        /// The program.
        program: String,
    },
    /// The user wants no more of it.
    #[error("interrupted")]
    Interrupted,
    /// A file or directory can't be used.
    #[error("can't {doing} {}", path.display())]
    Io {
        /// What was tried: "read", "write".
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err` after an operation on `path`.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// The next thing to do about it, where there is one.
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Name { .. } => {
                "use letters, digits, `.`, `_`, `+` and `-`, 64 at most, a letter or digit first"
            }
            Self::NoSuchBundle { .. } => "`moat kernel ls` lists those that are there",
            Self::NoDefault { others, .. } => match others.first() {
                Some(name) => return Some(format!("moat kernel default {name}")),
                None => "moat kernel install",
            },
            Self::Manifest { path, .. }
            | Self::ManifestModule { path, .. }
            | Self::ManifestName { path, .. } => {
                let dir = path.parent().and_then(Path::file_name).unwrap_or_default();
                let name = dir.to_string_lossy();
                return Some(format!("`moat kernel rm {name}`, and make the bundle again"));
            }
            Self::Damaged { from, .. } => return Some(again(from)),
            Self::NotAKernel { .. } => "give an uncompressed x86-64 vmlinux or a bzImage of Linux",
            Self::NoModule { .. } | Self::OtherKernel { .. } => {
                "give the kernel's own /lib/modules/VERSION with --modules"
            }
            Self::NoApt { .. } => {
                "moat kernel import /boot/vmlinuz-VERSION --modules /lib/modules/VERSION"
            }
            Self::NoPackage { .. } => "run `apt-get update` as root, then this again",
            Self::NoTools { packages } => {
                return Some(format!("apt-get install -y {}", packages.join(" ")));
            }
            Self::Configuration { .. } => "use linux-source-6.12, or `moat kernel install`",
            Self::TooLarge { .. } | Self::NotAModule { .. } => "see that it is the right file",
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => "see that the path is right",
                io::ErrorKind::PermissionDenied => "see that this user may use it",
                io::ErrorKind::IsADirectory => "name the file in it",
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ROOM,
                _ => "see that it can be used on this host",
            },
            Self::NoSpace { .. } => ROOM,
            Self::Failed { program, output, .. } if program == "apt-get" => fetch_hint(output),
            Self::Failed { program, .. } => match program.as_str() {
                "apt-cache" => "mend apt's sources: `apt-get update` says what is wrong with them",
                "make" => "`moat kernel install` needs no compiler",
                _ => "try again: nothing is left of it",
            },
            Self::Run { .. } => "see that it is installed, and that this user may run it",
            Self::PackageLacks { .. } => "`moat kernel import FILE` takes any kernel",
            Self::WriteManifest { .. } | Self::Interrupted => return None,
        };
        Some(hint.to_owned())
    }
}

const ROOM: &str = "free some disk space: while it is made, the distribution's kernel takes about \
    200 MB below the data directory, and moat's own 2 GB";

/// The command that makes the same bundle again.
fn again(from: &Source) -> String {
    match from {
        Source::Package { .. } => "`moat kernel install` makes it again".to_owned(),
        Source::Build { .. } => "`moat kernel build` makes it again".to_owned(),
        Source::File { path } => format!("import {} again", path.display()),
    }
}

/// What apt says where the mirror has a newer package than apt knows of, or none can be reached.
fn fetch_hint(output: &str) -> &'static str {
    if output.contains("404 ") || output.contains("was not found") {
        "run `apt-get update` as root, then this again"
    } else {
        "see that this machine reaches apt's mirror; `moat kernel import FILE` needs no network"
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let what = match &error {
            Error::Interrupted => "no guest kernel was made",
            Error::NoSuchBundle { .. } | Error::NoDefault { .. } => "there is no such guest kernel",
            Error::Manifest { .. }
            | Error::ManifestModule { .. }
            | Error::ManifestName { .. }
            | Error::Damaged { .. } => "a guest kernel can't be used",
            _ => "a guest kernel can't be made ready",
        };
        let fault = Self::new(Code::Kernel, what);
        let fault = match error.hint() {
            Some(hint) => fault.hint(hint),
            None => fault,
        };
        fault.because(error)
    }
}
