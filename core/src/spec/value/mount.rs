//! Volumes and memory filesystems.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::word;
use super::{Bytes, GuestPath, HostPath, Name, ValueError};

/// Where a volume's files are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VolumeSource {
    /// A file or directory of the host, absolute.
    Bind(PathBuf),
    /// A volume that moat keeps, by name.
    Named(Name),
}

/// Whether a workload sees what the host mounts below a volume while it runs. What the workload
/// mounts the host never sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    /// `rprivate`: no.
    #[default]
    Private,
    /// `rslave`: yes.
    Slave,
}

/// One entry of `volumes`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Volume {
    /// Where its files are.
    pub source: VolumeSource,
    /// Where the workload sees them.
    pub target: GuestPath,
    /// Whether the workload may not write.
    pub read_only: bool,
    /// Whether it sees what the host mounts below it later.
    pub propagation: Propagation,
}

/// Where a volume's files are, as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WrittenSource {
    /// A path of the host: whatever has a slash, and `.`, `..` and `~`.
    Bind(HostPath),
    /// A volume that moat keeps: whatever has none.
    Named(Name),
}

/// One entry of `volumes` as written: `SOURCE:TARGET`, `SOURCE:TARGET:ro,rslave`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WrittenVolume {
    /// Where its files are.
    pub source: WrittenSource,
    /// Where the workload sees them.
    pub target: GuestPath,
    /// Whether the workload may not write.
    pub read_only: bool,
    /// Whether it sees what the host mounts below it later.
    pub propagation: Propagation,
}

/// One entry of `tmpfs`: `TARGET` or `TARGET:SIZE`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where it is mounted.
    pub target: GuestPath,
    /// Its size; by default half of the workload's memory.
    pub size: Option<Bytes>,
}

const VOLUME_HELP: &str = "write \"SOURCE:TARGET\" or \"SOURCE:TARGET:ro\", such as \"./src:/app/src:ro\"; \
    paths that hold a colon can't be mounted";

/// A page: the least that a tmpfs can hold.
const SMALLEST_TMPFS: Bytes = Bytes::kib(4);

impl WrittenVolume {
    /// The volume that is meant; see [`HostPath::resolve`].
    ///
    /// # Errors
    /// When the source starts with `~` and there is no home.
    pub fn resolve(&self, base: &Path, home: Option<&Path>) -> Result<Volume, ValueError> {
        let source = match &self.source {
            WrittenSource::Bind(path) => VolumeSource::Bind(path.resolve(base, home)?),
            WrittenSource::Named(name) => VolumeSource::Named(name.clone()),
        };
        let (target, read_only, propagation) =
            (self.target.clone(), self.read_only, self.propagation);
        Ok(Volume { source, target, read_only, propagation })
    }
}

impl FromStr for WrittenVolume {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let malformed = || ValueError::malformed(text, "a volume", VOLUME_HELP);
        let mut parts = text.split(':');
        let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
            return Err(malformed());
        };
        let options = parts.next();
        if parts.next().is_some() {
            return Err(malformed());
        }
        let (read_only, propagation) = volume_options(text, options)?;
        if source.is_empty() || target.is_empty() {
            return Err(malformed());
        }
        let bind = source.contains('/') || matches!(source, "." | ".." | "~");
        let source = if bind {
            WrittenSource::Bind(source.parse()?)
        } else {
            WrittenSource::Named(source.parse()?)
        };
        if let (WrittenSource::Named(_), Propagation::Slave) = (&source, propagation) {
            let help = "the host mounts nothing below a named volume; leave rslave out";
            return Err(ValueError::malformed(text, "a volume", help));
        }
        Ok(Self { source, target: mount_target(target)?, read_only, propagation })
    }
}

/// What the third part of a volume says.
#[derive(Clone, Copy)]
enum VolumeOption {
    ReadOnly(bool),
    Propagation(Propagation),
}

/// Whether it is read-only, and its propagation.
fn volume_options(text: &str, options: Option<&str>) -> Result<(bool, Propagation), ValueError> {
    const WORDS: [(&str, VolumeOption); 4] = [
        ("ro", VolumeOption::ReadOnly(true)),
        ("rw", VolumeOption::ReadOnly(false)),
        ("rprivate", VolumeOption::Propagation(Propagation::Private)),
        ("rslave", VolumeOption::Propagation(Propagation::Slave)),
    ];
    let (mut read_only, mut propagation) = (None, None);
    for option in options.into_iter().flat_map(|options| options.split(',')) {
        let again = match word("volume option", option, &WORDS)? {
            VolumeOption::ReadOnly(value) => read_only.replace(value).is_some(),
            VolumeOption::Propagation(value) => propagation.replace(value).is_some(),
        };
        if again {
            let help = "one of ro and rw, and one of rprivate and rslave, each at most once";
            return Err(ValueError::malformed(text, "a volume", help));
        }
    }
    Ok((read_only.unwrap_or_default(), propagation.unwrap_or_default()))
}

/// The options of a volume as written; none for what holds by default.
fn write_options(
    f: &mut fmt::Formatter<'_>,
    read_only: bool,
    propagation: Propagation,
) -> fmt::Result {
    f.write_str(match (read_only, propagation) {
        (false, Propagation::Private) => "",
        (true, Propagation::Private) => ":ro",
        (false, Propagation::Slave) => ":rslave",
        (true, Propagation::Slave) => ":ro,rslave",
    })
}

impl fmt::Display for WrittenVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            WrittenSource::Bind(path) => write!(f, "{path}")?,
            WrittenSource::Named(name) => write!(f, "{name}")?,
        }
        write!(f, ":{}", self.target)?;
        write_options(f, self.read_only, self.propagation)
    }
}

impl fmt::Display for VolumeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(path) => write!(f, "{}", path.display()),
            Self::Named(name) => write!(f, "{name}"),
        }
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.target)?;
        write_options(f, self.read_only, self.propagation)
    }
}

impl FromStr for Tmpfs {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (target, size) = match text.split_once(':') {
            Some((target, size)) => (target, Some(size.parse::<Bytes>()?)),
            None => (text, None),
        };
        if let Some(size) = size.filter(|size| *size < SMALLEST_TMPFS) {
            return Err(ValueError::range(&size, format!("at least {SMALLEST_TMPFS}")));
        }
        Ok(Self { target: mount_target(target)?, size })
    }
}

impl fmt::Display for Tmpfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.size {
            Some(size) => write!(f, "{}:{size}", self.target),
            None => write!(f, "{}", self.target),
        }
    }
}

/// A place over which something may be mounted: not the root, and nothing of the kernel's own
/// filesystems, whose masks a mount would lift.
pub(crate) fn mount_target(text: &str) -> Result<GuestPath, ValueError> {
    const WHAT: &str = "a place for a mount";
    let target: GuestPath = text.parse()?;
    let components: Vec<&str> = target.components().collect();
    let help = match components.as_slice() {
        [] => "it would hide the whole root; name a directory below /",
        ["proc" | "sys", ..] | ["dev"] => "/proc, /sys and /dev are moat's own; name another",
        _ => return Ok(target),
    };
    Err(ValueError::malformed(text, WHAT, help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let volume = |text: &str| {
            let written: WrittenVolume = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            let volume = written.resolve(Path::new("/repo"), Some(Path::new("/home/me")));
            volume.unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
        };
        for (text, meant) in [
            ("./src:/app/src:ro", "/repo/src:/app/src:ro"),
            ("./src:/app/src:rw", "/repo/src:/app/src"),
            ("cache:/var/cache", "cache:/var/cache"),
            (".:/app", "/repo:/app"),
            ("..:/app", "/:/app"),
            ("~:/h", "/home/me:/h"),
            ("~/.npmrc:/root/.npmrc:ro", "/home/me/.npmrc:/root/.npmrc:ro"),
            ("src/:/app/", "/repo/src:/app"),
            ("/dev/kvm:/dev/kvm", "/dev/kvm:/dev/kvm"),
            ("/media:/media:rslave", "/media:/media:rslave"),
            ("/media:/media:rslave,ro", "/media:/media:ro,rslave"),
            ("/media:/media:rprivate,rw", "/media:/media"),
            ("cache:/var/cache:ro,rprivate", "cache:/var/cache:ro"),
        ] {
            assert_eq!(volume(text), meant);
        }
        for text in [
            "",
            "/app",
            ":/app",
            "./src:",
            "./src:app",
            "./src:/app:rx",
            "./a:/b:ro:z",
            "./a:/b:",
            "./a:/b:ro,",
            "./a:/b:ro,ro",
            "./a:/b:rslave,rprivate",
            "cache:/b:rslave",
            "./a:/..",
            "./a:/",
            "./a:/proc",
            "./a:/proc/sys",
            "./a:/sys/fs/cgroup",
            "./a:/dev",
            "A_b:/x",
            "~me/x:/x",
        ] {
            assert!(text.parse::<WrittenVolume>().is_err(), "{text}");
        }
    }

    #[test]
    fn memory_filesystems() {
        for (text, target, size) in [
            ("/tmp:64MiB", "/tmp", Some(Bytes::mib(64))),
            ("/tmp", "/tmp", None),
            ("/dev/shm:1GiB", "/dev/shm", Some(Bytes::gib(1))),
        ] {
            let tmpfs: Tmpfs = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((tmpfs.target.as_str(), tmpfs.size), (target, size));
            assert_eq!(tmpfs.to_string(), text);
        }
        for text in ["", "tmp", "/", "/tmp:", "/tmp:64", "/tmp:0B", "/tmp:4095B", "/tmp:1MiB:ro"] {
            assert!(text.parse::<Tmpfs>().is_err(), "{text}");
        }
    }
}
