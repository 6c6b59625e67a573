//! Guest kernels: those that are there, and a distribution's package of one, without a network.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::moat::Moat;
use crate::rootfs;

/// A bundle, by `moat kernel ls`.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// `acpi` or `cmdline`.
    pub discovery: String,
    /// Whether it is the default one.
    pub is_default: bool,
}

/// The bundles of whoever runs the tests that can be used.
///
/// # Errors
/// When `moat kernel ls` fails, or lists something else.
pub fn bundles() -> Result<Vec<Bundle>> {
    let listed = Moat::new(["kernel", "ls", "--format", "json"])?.run()?;
    let rows = listed.status(0)?.json()?;
    let rows = rows.as_array().context("moat kernel ls is no list")?;
    let whole = rows.iter().filter(|row| row.get("broken").is_none());
    whole.map(|row| bundle(row).with_context(|| format!("no bundle: {row}"))).collect()
}

fn bundle(row: &Value) -> Option<Bundle> {
    Some(Bundle {
        name: row["name"].as_str()?.to_owned(),
        dir: row["dir"].as_str()?.into(),
        discovery: row.pointer("/manifest/discovery")?.as_str()?.to_owned(),
        is_default: row["default"].as_bool()?,
    })
}

/// The default bundle of whoever runs the tests.
///
/// # Errors
/// When there is none that can be used.
pub fn default_bundle() -> Result<Bundle> {
    let found = bundles()?.into_iter().find(|bundle| bundle.is_default);
    found.context("there is no default guest kernel: `cargo xtask setup` installs one")
}

/// The modules that a guest needs, where its kernel has them not built in.
const NEEDED: [&str; 4] = ["virtio_mmio", "virtiofs", "overlay", "vmw_vsock_virtio_transport"];

/// The kernel's release in the package, and so the bundle's name.
pub const RELEASE: &str = "9.9-test";

/// Answers as apt-cache(8) does. A small package depends on the kernel's, as Debian has it.
const APT_CACHE: &str = r#"#!/bin/sh
here=$(dirname "$0")
size=$(stat -c %s "$here/package.deb")
case $3 in
linux-image-cloud-amd64)
  printf 'Package: %s\nVersion: 9.9-1\nDepends: linux-image-9.9-test (= 9.9-1)\nSize: 1\n' "$3";;
linux-image-9.9-test)
  printf 'Package: %s\nVersion: 9.9-1\nDepends: kmod\nSize: %s\n' "$3" "$size";;
*)
  printf 'N: Unable to locate package %s\nE: No packages found\n' "$3" >&2
  exit 100;;
esac
"#;

/// Downloads as apt-get(8) does, into the current directory: all of it; or, by what `MIRROR` says,
/// a half, and then nothing happens any more; or nothing, as without a network.
const APT_GET: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/calls"
case $MIRROR in
hangs)
  head -c 100000 "$here/package.deb" > linux-image-9.9-test_9.9-1_amd64.deb
  echo $$ > "$here/hanging.new" && mv "$here/hanging.new" "$here/hanging"
  exec sleep 1000;;
slow)
  sleep 1;;
away)
  echo "E: Failed to fetch http://mirror/linux.deb  Temporary failure resolving 'mirror'" >&2
  exit 100;;
esac
cp "$here/package.deb" linux-image-9.9-test_9.9-1_amd64.deb
"#;

/// Programs named as apt's, which hand out one kernel package. What unpacks it is the real
/// dpkg-deb.
#[derive(Debug)]
pub struct Mirror {
    dir: PathBuf,
}

impl Mirror {
    /// One that hands out this bundle's kernel, in the new directory `dir`.
    ///
    /// # Errors
    /// When the package can't be made.
    pub fn of_bundle(dir: &Path, bundle: &Bundle) -> Result<Self> {
        let tree = dir.join("tree");
        let modules = tree.join("lib/modules").join(RELEASE);
        fs::create_dir_all(modules.join("kernel"))?;
        let mut there = Vec::new();
        for file in fs::read_dir(bundle.dir.join("modules")).into_iter().flatten() {
            let file = file?;
            fs::copy(file.path(), modules.join("kernel").join(file.file_name()))?;
            there.push(file.file_name());
        }
        let is_there = |name: &&str| there.contains(&OsString::from(format!("{name}.ko")));
        let builtin = NEEDED.iter().filter(|name| !is_there(name));
        let builtin: String = builtin.map(|name| format!("kernel/{name}.ko\n")).collect();
        fs::write(modules.join("modules.builtin"), builtin)?;
        let kernel = ["vmlinux", "bzImage"].map(|name| bundle.dir.join(name));
        let kernel = kernel.iter().find(|path| path.exists()).context("a bundle of nothing")?;
        Self::new(dir, &fs::read(kernel)?)
    }

    /// One that hands out what moat takes for a kernel, but no machine would, in the new directory
    /// `dir`.
    ///
    /// # Errors
    /// When the package can't be made.
    pub fn of_nothing(dir: &Path) -> Result<Self> {
        let modules = dir.join("tree/lib/modules").join(RELEASE);
        fs::create_dir_all(&modules)?;
        let builtin = NEEDED.map(|name| format!("kernel/{name}.ko\n")).concat();
        fs::write(modules.join("modules.builtin"), builtin)?;
        // An ELF image, and somewhere in it what every Linux says of itself.
        let mut kernel = fs::read(rootfs::BUSYBOX).context("busybox-static is not installed")?;
        kernel.extend(format!("\0Linux version {RELEASE} (nobody)\0").into_bytes());
        Self::new(dir, &kernel)
    }

    fn new(dir: &Path, kernel: &[u8]) -> Result<Self> {
        let tree = dir.join("tree");
        for sub in ["boot", "DEBIAN"] {
            fs::create_dir_all(tree.join(sub))?;
        }
        fs::write(tree.join("boot").join(format!("vmlinuz-{RELEASE}")), kernel)?;
        let control = "Package: linux-image-9.9-test\nVersion: 9.9-1\nArchitecture: amd64\n\
                       Maintainer: nobody <nobody@localhost>\nDescription: a kernel\n";
        fs::write(tree.join("DEBIAN/control"), control)?;
        let mut build = Command::new("dpkg-deb");
        build.args(["--root-owner-group", "-Znone", "--build"]);
        let built = build.arg(&tree).arg(dir.join("package.deb")).output().context("dpkg-deb")?;
        ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        fs::remove_dir_all(&tree)?;
        for (name, text) in [("apt-cache", APT_CACHE), ("apt-get", APT_GET)] {
            fs::write(dir.join(name), text)?;
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// moat that finds these programs before the real ones, and keeps its data there.
    #[must_use]
    pub fn serve(&self, moat: Moat, data: &Path) -> Moat {
        let mut path = OsString::from(&self.dir);
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        moat.env("PATH", path).env("XDG_DATA_HOME", data)
    }

    /// How often something was downloaded.
    pub fn downloads(&self) -> usize {
        fs::read_to_string(self.dir.join("calls")).unwrap_or_default().lines().count()
    }

    /// Whether a download hangs, since the last time that one was asked for.
    pub fn hangs(&self) -> bool {
        fs::remove_file(self.dir.join("hanging")).is_ok()
    }
}
