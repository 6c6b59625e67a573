//! `Store::install`: a bundle from the distribution's own kernel package.

use std::fs;
use std::path::{Path, PathBuf};

use super::apt::{self, Package};
use super::bundle::{Bundle, Source};
use super::store::{Ingredients, Store};
use super::{Error, Report, step};
use crate::boot::Discovery;

/// Packages that depend on the newest kernel for virtual machines: Debian's, then Ubuntu's, then
/// those for any machine.
const META_PACKAGES: [&str; 5] = [
    "linux-image-cloud-amd64",
    "linux-image-virtual",
    "linux-image-kvm",
    "linux-image-amd64",
    "linux-image-generic",
];

impl Store {
    /// Makes a bundle of the distribution's newest kernel for virtual machines, by apt, without
    /// root. One that is there already, and whole, is given back without a download.
    ///
    /// # Errors
    /// When apt is not there, does not know or can't get the package, or the bundle can't be
    /// written.
    pub fn install(&self, report: Report<'_>) -> Result<Bundle, Error> {
        let draft = self.draft(report)?;
        let package = image_package(report)?;
        let name = bundle_name(&package.name).to_owned();
        let source = Source::Package {
            package: package.name.clone(),
            package_version: package.version.clone(),
        };
        if let Ok(bundle) = self.find(&name)
            && bundle.manifest().source == source
            && bundle.check_contents().is_ok()
        {
            step(report, "it is there already")?;
            draft.default_if_none(&name)?;
            return Ok(bundle);
        }
        let unpacked = draft.room().join("unpacked");
        fetch(&package, draft.room(), &unpacked, report)?;
        let kernel = kernel_in(&unpacked)
            .ok_or(Error::PackageLacks { package: package.name, what: "boot/vmlinuz" })?;
        let modules = modules_in(&unpacked);
        let what = Ingredients {
            name: &name,
            kernel: &kernel,
            modules: modules.as_deref(),
            discovery: Some(Discovery::Acpi),
            source,
        };
        draft.finish(what, report)
    }
}

/// The package that holds the kernel, found by what depends on it.
fn image_package(report: Report<'_>) -> Result<Package, Error> {
    let meta = apt::first_known(&META_PACKAGES, report)?;
    let image = meta.depends.iter().find(|name| name.starts_with("linux-image-"));
    let image =
        image.ok_or(Error::PackageLacks { package: meta.name, what: "kernel to depend on" })?;
    apt::first_known(&[image], report)
}

/// Downloads and unpacks the package, and the packages of modules that it depends on.
fn fetch(package: &Package, room: &Path, to: &Path, report: Report<'_>) -> Result<(), Error> {
    let mut packages = vec![package.clone()];
    for name in package.depends.iter().filter(|name| name.starts_with("linux-modules-")) {
        packages.push(apt::first_known(&[name], report)?);
    }
    for (number, package) in packages.iter().enumerate() {
        let dir = room.join(format!("download-{number}"));
        fs::create_dir(&dir).map_err(Error::io("make", &dir))?;
        let deb = apt::download(package, &dir, report)?;
        apt::unpack(package, &deb, to, report)?;
        fs::remove_file(&deb).map_err(Error::io("remove", &deb))?;
    }
    Ok(())
}

/// `linux-image-6.8.0-31-generic` and `linux-image-unsigned-6.8.0-31-generic` are
/// `6.8.0-31-generic`.
fn bundle_name(package: &str) -> &str {
    let name = package.strip_prefix("linux-image-").unwrap_or(package);
    name.strip_prefix("unsigned-").unwrap_or(name)
}

fn kernel_in(unpacked: &Path) -> Option<PathBuf> {
    entries(&unpacked.join("boot")).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
    })
}

/// Newer packages have `/usr/lib/modules`, with `/lib` a symbolic link that no package holds.
fn modules_in(unpacked: &Path) -> Option<PathBuf> {
    ["lib/modules", "usr/lib/modules"].iter().find_map(|dir| entries(&unpacked.join(dir)).next())
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::super::Progress;
    use super::*;
    use crate::boot::KernelFormat;

    #[test]
    fn a_bundle_has_the_kernels_own_name() {
        assert_eq!(bundle_name("linux-image-6.1.0-56-cloud-amd64"), "6.1.0-56-cloud-amd64");
        assert_eq!(bundle_name("linux-image-unsigned-6.8.0-31-generic"), "6.8.0-31-generic");
    }

    fn note(steps: &mut Vec<String>) -> impl FnMut(Progress<'_>) -> ControlFlow<()> {
        |progress| {
            steps.push(progress.step.to_owned());
            ControlFlow::Continue(())
        }
    }

    /// The real thing, where the package can be had.
    #[test]
    fn the_distributions_kernel_becomes_a_bundle() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::in_data_dir(data.path());
        let mut steps = Vec::new();
        let bundle = match store.install(&mut note(&mut steps)) {
            Ok(bundle) => bundle,
            Err(error @ (Error::NoApt { .. } | Error::NoPackage { .. } | Error::Failed { .. })) => {
                println!("skipped: no kernel package can be had: {error}");
                return;
            }
            Err(error) => panic!("{error:?}"),
        };
        let manifest = bundle.manifest();
        assert_eq!(manifest.format, KernelFormat::Elf);
        assert_eq!(manifest.version, bundle.name());
        let position = |name: &str| manifest.modules.iter().position(|module| module == name);
        if let (Some(fuse), Some(virtiofs)) = (position("fuse.ko"), position("virtiofs.ko")) {
            assert!(fuse < virtiofs);
        }
        assert!(bundle.kernel_path().is_file());
        assert!(bundle.module_paths().iter().all(|path| path.is_file()));
        assert_eq!(store.find("default").unwrap(), bundle);
        assert!(steps.iter().any(|step| step.starts_with("downloading ")), "{steps:?}");

        steps.clear();
        let again = store.install(&mut note(&mut steps)).unwrap();
        assert_eq!(again, bundle);
        assert!(!steps.iter().any(|step| step.starts_with("downloading ")), "{steps:?}");
        assert_eq!(fs::read_dir(data.path().join("kernels")).unwrap().count(), 3);
    }
}
