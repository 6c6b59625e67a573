//! This machine's own root as a workload's: which filesystems make it up, and what of it no
//! workload is shown.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use moat_core::spec::GuestPath;

use crate::dirs::Dirs;
use crate::mountinfo::{self, MountPoint};

/// Filesystems that hold data. Mounts of all other types (proc, tmpfs, cgroup2, devpts, ...) are
/// the machine's own business, and their mount points are empty directories to a workload.
const DATA: [&str; 20] = [
    "9p", "bcachefs", "btrfs", "ceph", "cifs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs",
    "fuseblk", "jfs", "nfs", "nfs4", "overlay", "virtiofs", "xfs", "zfs", "vfat",
];

/// Directories in which only the machine itself has business: nothing below is shown.
const RUNTIME: [&str; 10] = [
    "/run",
    "/var/run",
    "/tmp",
    "/var/tmp",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/kubelet",
    "/var/lib/incus",
    "/var/lib/moat",
];

/// The machine's own secrets.
const SECRETS: [&str; 9] = [
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/krb5.keytab",
    "/etc/ssl/private",
    "/etc/NetworkManager/system-connections",
    "/etc/wireguard",
    "/var/lib/sss",
];

/// Where users keep what opens other doors, below each home.
const HOME_SECRETS: [&str; 37] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".netrc",
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".pypirc",
    ".pgpass",
    ".my.cnf",
    ".git-credentials",
    ".password-store",
    ".mozilla",
    ".thunderbird",
    ".bash_history",
    ".zsh_history",
    ".python_history",
    ".psql_history",
    ".terraform.d",
    ".terraformrc",
    ".vault-token",
    ".secrets",
    ".claude",
    ".claude.json",
    ".codex",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/gcloud",
    ".config/gh",
    ".config/containers",
    ".config/google-chrome",
    ".config/chromium",
    ".config/rclone",
    ".local/share/keyrings",
];

/// Directories of programs and settings (file-hierarchy(7)).
const SYSTEM: [&str; 10] =
    ["/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr/bin", "/usr/lib", "/usr/sbin"];

/// Kernel filesystems: never part of a workload's root, which has its own.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// This machine's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Where filesystems that hold data are mounted: `/` first, parents before children.
    pub lowers: Vec<GuestPath>,
    /// Paths that no workload is shown, as they are: where one leads over symbolic links is in
    /// the list too.
    pub hidden: Vec<GuestPath>,
}

impl Host {
    /// Looks at what is mounted and what is there.
    ///
    /// # Errors
    /// When `/proc/self/mountinfo` can't be read.
    pub fn look() -> io::Result<Self> {
        let hidden = hidden();
        let lowers = data_mounts(mountinfo::read()?, &hidden);
        let lowers = lowers.into_iter().filter(|path| Path::new(path.as_str()).is_dir()).collect();
        Ok(Self { lowers, hidden })
    }
}

/// The mount points of data below and at the root that are not hidden.
fn data_mounts(mounts: Vec<MountPoint>, hidden: &[GuestPath]) -> Vec<GuestPath> {
    let kernel: Vec<GuestPath> = KERNEL.iter().filter_map(|path| path.parse().ok()).collect();
    let shown = |path: &GuestPath| !hidden.iter().chain(&kernel).any(|hide| path.is_within(hide));
    let data = mounts.into_iter().filter(|mount| DATA.contains(&mount.kind.as_str()));
    let mut found = BTreeSet::from([GuestPath::root()]);
    found.extend(
        data.filter_map(|mount| GuestPath::try_from(mount.at.as_path()).ok()).filter(shown),
    );
    // A parent is a prefix of its children, so it sorts before them.
    found.into_iter().collect()
}

/// What of that which `image = "host"` hides a mount of `path` would show: what is in it, and what
/// it is in, but for the runtime directories, in which people do keep projects (`/tmp`).
pub fn exposed(path: &Path) -> Vec<PathBuf> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let within = RUNTIME.iter().map(PathBuf::from).filter(|hidden| hidden.starts_with(&path));
    let around = secrets(&path).filter(|secret| are_related(secret, &path));
    within.chain(around).filter(|hidden| fs::symlink_metadata(hidden).is_ok()).collect()
}

/// Whether this is, is in, or holds a directory of the system's own programs and settings.
pub fn is_system(path: &Path) -> bool {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    SYSTEM.iter().any(|dir| are_related(Path::new(dir), &path))
}

/// Where secrets may be, whether or not they are there: all that `path` is in, or that are in it,
/// and perhaps others.
fn secrets(path: &Path) -> impl Iterator<Item = PathBuf> {
    let in_homes = homes()
        .into_iter()
        .filter(|home| are_related(home, path))
        .flat_map(|home| HOME_SECRETS.iter().map(move |secret| home.join(secret)));
    let host_keys = are_related(Path::new(SSH), path).then(host_keys).into_iter().flatten();
    let own = Dirs::locate().map(|dirs| [dirs.data, dirs.runtime]).into_iter().flatten();
    SECRETS.iter().map(PathBuf::from).chain(in_homes).chain(host_keys).chain(own)
}

/// Whether one of them is in the other.
fn are_related(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Every path to hide that is there.
fn hidden() -> Vec<GuestPath> {
    let mut found = BTreeSet::new();
    for path in RUNTIME.iter().map(PathBuf::from).chain(secrets(Path::new("/"))) {
        if fs::symlink_metadata(&path).is_err() {
            continue;
        }
        // Where it leads is hidden as well: the same secret lies there.
        let real = fs::canonicalize(&path).ok();
        let both = [Some(path), real].into_iter().flatten();
        found.extend(both.filter_map(|path| GuestPath::try_from(path.as_path()).ok()));
    }
    found.into_iter().filter(|path| !path.is_root()).collect()
}

/// sshd's directory.
const SSH: &str = "/etc/ssh";

/// sshd's private keys.
fn host_keys() -> Vec<PathBuf> {
    let entries = fs::read_dir(SSH).into_iter().flatten().flatten();
    let is_private = |name: &OsString| {
        name.to_str().is_some_and(|name| name.starts_with("ssh_host_") && name.ends_with("_key"))
    };
    entries.filter(|entry| is_private(&entry.file_name())).map(|entry| entry.path()).collect()
}

/// The home directories of this machine's users, and `$HOME`.
fn homes() -> BTreeSet<PathBuf> {
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    let fields = passwd
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b':').nth(5));
    let listed = fields.map(|home| PathBuf::from(OsString::from_vec(home.to_vec())));
    listed
        .chain(env::var_os("HOME").map(PathBuf::from))
        .filter(|home| home.is_absolute() && home.parent().is_some())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> Vec<GuestPath> {
        paths.iter().map(|path| path.parse().unwrap()).collect()
    }

    #[test]
    fn what_would_be_exposed_is_what_is_there() {
        assert!(exposed(Path::new("/etc")).contains(&"/etc/shadow".into()));
        assert!(exposed(Path::new("/")).contains(&"/run".into()));
        assert_eq!(exposed(Path::new("/etc/shadow")), [PathBuf::from("/etc/shadow")]);
        let project = tempfile::tempdir().unwrap();
        assert_eq!(exposed(project.path()), [] as [PathBuf; 0]);
        assert!(is_system(Path::new("/usr")) && is_system(Path::new("/etc/ssh")));
        assert!(!is_system(project.path()));
    }

    #[test]
    fn only_data_that_is_shown_is_part_of_the_root() {
        let mounts = [
            ("/", "ext4"),
            ("/proc", "proc"),
            ("/home/ann", "xfs"),
            ("/home", "btrfs"),
            ("/run/media/usb", "vfat"),
            ("/dev/shm", "tmpfs"),
            ("/sys/x", "ext4"),
        ];
        let mounts = mounts.map(|(at, kind)| MountPoint {
            at: at.into(),
            kind: kind.to_owned(),
            options: String::new(),
            follows: false,
        });
        let found = data_mounts(mounts.to_vec(), &paths(&["/run"]));
        assert_eq!(found, paths(&["/", "/home", "/home/ann"]));
    }

    #[test]
    fn this_machine_has_a_root_and_its_runtime_directory_is_hidden() {
        let host = Host::look().unwrap();
        assert_eq!(host.lowers[0], GuestPath::root());
        assert!(host.hidden.contains(&"/run".parse().unwrap()), "{:?}", host.hidden);
        assert!(!host.hidden.iter().any(GuestPath::is_root));
    }
}
