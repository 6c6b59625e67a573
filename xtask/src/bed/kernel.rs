//! The bed's kernel: Debian's generic one, fetched with apt and kept in the user's cache.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package whose only dependency is the newest generic kernel. The cloud flavour has no 9p.
const META_PACKAGE: &str = "linux-image-amd64";

/// An unpacked kernel package: `boot/vmlinuz-*` and `lib/modules/VERSION`.
pub(super) struct Kernel {
    root: PathBuf,
    version: String,
}

impl Kernel {
    /// The cached kernel, downloaded first when there is none.
    pub(super) fn cached() -> Result<Self> {
        let cache = cache_dir()?;
        let root = cache.join("kernel");
        if !root.exists() {
            download(&cache, &root)?;
        }
        let modules = root.join("lib/modules");
        let version = std::fs::read_dir(&modules)
            .with_context(|| modules.display().to_string())?
            .next()
            .with_context(|| format!("{} is empty: remove {}", modules.display(), root.display()))??
            .file_name()
            .into_string()
            .ok()
            .context("kernel version is not text")?;
        Ok(Self { root, version })
    }

    pub(super) fn image(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.version))
    }

    pub(super) fn modules_dir(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.version)
    }

    /// The named modules' files, in the order given.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut found = BTreeMap::new();
        collect_modules(&self.modules_dir().join("kernel"), &mut found)?;
        names
            .iter()
            .map(|name| {
                found.remove(*name).with_context(|| format!("{}: no module {name}", self.version))
            })
            .collect()
    }
}

fn collect_modules(dir: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect_modules(&path, found)?;
        } else if path.extension() == Some(OsStr::new("ko"))
            && let Some(name) = path.file_stem().and_then(OsStr::to_str)
        {
            found.insert(name.to_owned(), path);
        }
    }
    Ok(())
}

fn cache_dir() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let dir = base.join("moat-bed");
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

/// Downloads and unpacks beside `root`, then renames: another bed never sees half a kernel.
fn download(cache: &Path, root: &Path) -> Result<()> {
    eprintln!("bed: downloading Debian's kernel into {}", root.display());
    let work = tempfile::Builder::new().prefix("download.").tempdir_in(cache)?;
    let package = kernel_package()?;
    run(Command::new("apt-get")
        .args(["download", "-q", "-o", "APT::Sandbox::User=root", &package])
        .current_dir(work.path()))
    .context("hint: apt-get update")?;
    let deb = std::fs::read_dir(work.path())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension() == Some(OsStr::new("deb")))
        .context("apt-get download left no package")?;
    let unpacked = work.path().join("unpacked");
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&unpacked))?;
    match std::fs::rename(&unpacked, root) {
        // Another bed was quicker: its kernel is as good.
        Err(_) if root.exists() => Ok(()),
        renamed => renamed.with_context(|| root.display().to_string()),
    }
}

fn kernel_package() -> Result<String> {
    let answer = Command::new("apt-cache")
        .args(["depends", "--no-recommends", "--no-suggests", META_PACKAGE])
        .output()
        .context("apt-cache")?;
    let text = String::from_utf8_lossy(&answer.stdout);
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Depends: ").map(str::to_owned))
        .with_context(|| format!("apt knows no package {META_PACKAGE}; hint: apt-get update"))
}

/// Runs a helper quietly; its output is shown only when it fails.
fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let answer = command.output().with_context(|| name.clone())?;
    if !answer.status.success() {
        bail!("{name}: {}: {}", answer.status, String::from_utf8_lossy(&answer.stderr).trim());
    }
    ensure!(answer.status.success(), "{name}");
    Ok(())
}
