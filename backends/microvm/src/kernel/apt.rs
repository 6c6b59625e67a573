//! Debian packages by apt and dpkg, without root: looked up, downloaded and unpacked, never
//! installed.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Error, Progress, Report, step, tell, tool};

/// What `apt-cache show` says of a package is a few kilobytes, and all that matters is early.
const LISTING_MAX: u64 = 64 << 10;

/// What apt knows of a package (deb-control(5)).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// The package file's bytes.
    pub(super) size: u64,
    /// The names of the packages it depends on; of alternatives the first.
    pub(super) depends: Vec<String>,
}

/// The first of the packages that apt knows.
pub(super) fn first_known(names: &[&str], report: Report<'_>) -> Result<Package, Error> {
    for name in names {
        if let Some(package) = lookup(name, report)? {
            return Ok(package);
        }
    }
    Err(Error::NoPackage { names: names.iter().map(|&name| name.to_owned()).collect() })
}

fn lookup(name: &str, report: Report<'_>) -> Result<Option<Package>, Error> {
    let mut command = Command::new("apt-cache");
    command.args(["show", "--no-all-versions", name]);
    let look = |_| step(report, "asking apt for the kernel's package");
    let answer = tool::finish(&mut command, look).map_err(without_apt)?;
    if !answer.status.success() && answer.errors().contains("No packages found") {
        return Ok(None);
    }
    let text = answer.output(LISTING_MAX).unwrap_or_default();
    answer.success()?;
    Ok(parse(&text).filter(|package| package.name == name))
}

fn without_apt(error: Error) -> Error {
    match error {
        Error::Run { program, source } if source.kind() == ErrorKind::NotFound => {
            Error::NoApt { program }
        }
        other => other,
    }
}

/// The first paragraph of `apt-cache show`.
fn parse(text: &str) -> Option<Package> {
    let mut package = Package::default();
    for line in text.lines().take_while(|line| !line.is_empty()) {
        match line.split_once(": ") {
            Some(("Package", name)) => name.clone_into(&mut package.name),
            Some(("Version", version)) => version.clone_into(&mut package.version),
            Some(("Size", size)) => package.size = size.trim().parse().ok()?,
            Some(("Depends", list)) => {
                package.depends = list.split(',').filter_map(first).collect();
            }
            _ => {}
        }
    }
    (!package.name.is_empty()).then_some(package)
}

/// `linux-image-6.1 (= 6.1.1) | other` is `linux-image-6.1`.
fn first(alternatives: &str) -> Option<String> {
    alternatives.split_whitespace().next().map(str::to_owned)
}

/// Downloads the package into `dir`, an empty directory. apt checks its signature and sum.
pub(super) fn download(
    package: &Package,
    dir: &Path,
    report: Report<'_>,
) -> Result<PathBuf, Error> {
    let step = format!("downloading {} {}", package.name, package.version);
    let mut command = Command::new("apt-get");
    command.args(["download", "-qq"]);
    // As root apt would download as user _apt, who may not write here.
    command.args(["-o", "APT::Sandbox::User=root"]);
    command.arg(format!("{}={}", package.name, package.version)).current_dir(dir);
    let look =
        |_| tell(report, Progress { step: &step, done: Some((bytes_in(dir), package.size)) });
    tool::run(&mut command, look).map_err(without_apt)?;
    let lacks = || Error::PackageLacks { package: package.name.clone(), what: "package file" };
    files_in(dir).find(|path| path.extension() == Some(OsStr::new("deb"))).ok_or_else(lacks)
}

/// Unpacks the package file into the new directory `to`.
pub(super) fn unpack(
    package: &Package,
    deb: &Path,
    to: &Path,
    report: Report<'_>,
) -> Result<(), Error> {
    let unpacking = format!("unpacking {}", package.name);
    let mut command = Command::new("dpkg-deb");
    command.arg("-x").arg(deb).arg(to);
    tool::run(&mut command, |_| step(report, &unpacking)).map_err(without_apt)
}

fn bytes_in(dir: &Path) -> u64 {
    files_in(dir).filter_map(|path| fs::metadata(path).ok()).map(|meta| meta.len()).sum()
}

fn files_in(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_that_matter_are_read() {
        let text = "Package: linux-image-cloud-amd64\nSource: linux-signed-amd64 (6.1.192+2)\n\
                    Version: 6.1.192-2\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), \
                    kmod | busybox\nSize: 1476\nDescription: a\n b: c\n\nPackage: other\n";
        let expected = Package {
            name: "linux-image-cloud-amd64".to_owned(),
            version: "6.1.192-2".to_owned(),
            size: 1476,
            depends: vec!["linux-image-6.1.0-56-cloud-amd64".to_owned(), "kmod".to_owned()],
        };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse(""), None);
        assert_eq!(parse("Size: many\n"), None);
    }
}
