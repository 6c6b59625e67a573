//! The guest kernel that every contender of `bench vm` boots.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// moat's own is preferred: the smallest, so the one on which a VMM's own share is seen best.
const OWN: &str = "moat";
const CMDLINE: &str = "cmdline";

/// A guest kernel, and where it is from.
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// How it finds its devices, as `moat kernel import --discovery` says it.
    pub(super) discovery: String,
    /// For the report.
    pub(super) said: String,
    source: Source,
}

enum Source {
    File,
    /// A bundle of moat's store: its name and directory.
    Bundle(String, PathBuf),
}

impl Kernel {
    /// An ELF file with `virtio_mmio.device=` on its command line, as moat's own kernel.
    pub(super) fn file(image: &Path) -> Self {
        Self {
            image: image.to_owned(),
            discovery: CMDLINE.to_owned(),
            said: format!("guest kernel {}", image.display()),
            source: Source::File,
        }
    }

    /// This file, or the one of moat's store where none is named.
    pub(super) fn chosen(file: Option<&Path>, moat: &Path) -> Result<Self> {
        file.map_or_else(|| Self::of_store(moat), |file| Ok(Self::file(file)))
    }

    /// The one that `moat kernel build` keeps, else moat's default one.
    fn of_store(moat: &Path) -> Result<Self> {
        let output = Command::new(moat)
            .args(["kernel", "ls", "--format", "json"])
            .stderr(Stdio::inherit())
            .output()
            .context("moat kernel ls")?;
        let bundles: Value = serde_json::from_slice(&output.stdout).context("moat kernel ls")?;
        choose(&bundles)
    }

    /// Makes it moat's default one in the data directory `data`.
    pub(super) fn install(&self, moat: &Path, data: &Path) -> Result<()> {
        match &self.source {
            Source::File => self.import(moat, data),
            Source::Bundle(name, directory) => {
                let store = data.join("moat/kernels");
                std::fs::create_dir_all(&store)?;
                let (from, to) = (directory, store.join(name));
                let status = Command::new("cp").arg("-a").arg(from).arg(&to).status();
                ensure!(status.context("cp")?.success(), "{} could not be copied", from.display());
                symlink(name, store.join("default")).context("default kernel")
            }
        }
    }

    fn import(&self, moat: &Path, data: &Path) -> Result<()> {
        let output = Command::new(moat)
            .args(["kernel", "import"])
            .arg(&self.image)
            .args(["--discovery", &self.discovery])
            .env("XDG_DATA_HOME", data)
            .output()
            .context("moat kernel import")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("without a word");
        ensure!(output.status.success(), "moat kernel import: {said}");
        Ok(())
    }
}

fn choose(bundles: &Value) -> Result<Kernel> {
    let bundles = bundles.as_array().map(Vec::as_slice).unwrap_or_default();
    let own = bundles.iter().find(|bundle| bundle["manifest"]["name"] == OWN);
    let bundle = own
        .or_else(|| bundles.iter().find(|bundle| bundle["default"] == true))
        .context("no guest kernel: run `moat kernel install`, or say which with --kernel")?;
    let word = |value: &Value| value.as_str().map(str::to_owned).context("moat kernel ls");
    let manifest = &bundle["manifest"];
    let (name, directory) = (word(&manifest["name"])?, PathBuf::from(word(&bundle["dir"])?));
    let (version, discovery) = (word(&manifest["version"])?, word(&manifest["discovery"])?);
    Ok(Kernel {
        // As `backends/microvm/src/kernel/bundle.rs` names it.
        image: directory.join(if manifest["format"] == "elf" { "vmlinux" } else { "bzImage" }),
        said: format!("guest kernel {version} (bundle {name}, devices by {discovery})"),
        discovery,
        source: Source::Bundle(name, directory),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bundle(name: &str, default: bool) -> Value {
        let manifest =
            json!({"name": name, "version": "6.1", "discovery": "acpi", "format": "elf"});
        json!({"default": default, "dir": format!("/kernels/{name}"), "manifest": manifest})
    }

    #[test]
    fn moats_own_kernel_is_preferred_to_the_default_one() {
        let image = |bundles: Value| choose(&bundles).map(|kernel| kernel.image);
        let debian = bundle("debian", true);
        let both = json!([debian, bundle("moat", false)]);
        assert_eq!(image(both).unwrap(), Path::new("/kernels/moat/vmlinux"));
        assert_eq!(image(json!([debian])).unwrap(), Path::new("/kernels/debian/vmlinux"));
        assert!(image(json!([bundle("other", false)])).is_err());
        assert!(image(json!({"error": {}})).is_err());
    }
}
