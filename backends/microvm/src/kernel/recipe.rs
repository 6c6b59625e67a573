//! `Store::build`: moat's own small guest kernel, from the distribution's kernel source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::available_parallelism;

use super::bundle::{Bundle, Source};
use super::store::{Ingredients, Store};
use super::{Error, Progress, Report, apt, step, tell, tool};
use crate::boot::Discovery;

/// What is switched on above tinyconfig.
const CONFIGURATION: &str = include_str!("../../kernel/moat.config");

/// The configuration is written for this version.
const SOURCE_PACKAGE: &str = "linux-source-6.12";

/// The lines that `make vmlinux` writes: counted once for 6.12.117. Only the progress hangs on it.
const MAKE_LINES: u64 = 1780;

/// Variables of the user's that would make another kernel, or make it elsewhere (Linux
/// Documentation/kbuild/kbuild.rst).
const ENVIRONMENT: [&str; 9] = [
    "MAKEFLAGS",
    "ARCH",
    "CROSS_COMPILE",
    "KBUILD_OUTPUT",
    "KBUILD_VERBOSE",
    "KCFLAGS",
    "KCONFIG_ALLCONFIG",
    "KCONFIG_CONFIG",
    "LLVM",
];

/// A program or a header that the build needs, and its Debian package.
const PROGRAMS: [(&str, &str); 9] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
];

impl Store {
    /// Builds moat's own kernel with the distribution's compiler, in place of a bundle of the same
    /// name. It takes minutes, and 2 GiB below the data directory while it runs.
    ///
    /// # Errors
    /// When the source or the tools are not there, the build fails, or the bundle can't be written.
    pub fn build(&self, name: &str, report: Report<'_>) -> Result<Bundle, Error> {
        self.place(name)?;
        let packages = missing_tools();
        if !packages.is_empty() {
            return Err(Error::NoTools { packages });
        }
        let draft = self.draft(report)?;
        let package = apt::first_known(&[SOURCE_PACKAGE], report)?;
        let tree = unpack_source(&package, draft.room(), report)?;
        configure(&tree, report)?;
        compile(&tree, report)?;
        let kernel = draft.room().join("vmlinux.stripped");
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&kernel).arg(tree.join("vmlinux"));
        tool::run(&mut strip, |_| step(report, "stripping the kernel"))?;
        let what = Ingredients {
            name,
            kernel: &kernel,
            modules: None,
            discovery: Some(Discovery::Cmdline),
            source: Source::Build { package: package.name, package_version: package.version },
        };
        draft.finish(what, report)
    }
}

/// The Debian packages without which the build would fail.
fn missing_tools() -> Vec<&'static str> {
    let succeeds = |command: &mut Command| {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    let mut missing: Vec<_> = PROGRAMS
        .into_iter()
        .filter(|(program, _)| !succeeds(Command::new(program).arg("--version")))
        .map(|(_, package)| package)
        .collect();
    // objtool, which the build makes first, reads object files with it.
    let mut compile = Command::new("gcc");
    compile.args(["-fsyntax-only", "-include", "gelf.h", "-x", "c", "/dev/null"]);
    if !missing.contains(&"gcc") && !succeeds(&mut compile) {
        missing.push("libelf-dev");
    }
    missing
}

/// The directory of the unpacked source, in `room`.
fn unpack_source(
    package: &apt::Package,
    room: &Path,
    report: Report<'_>,
) -> Result<PathBuf, Error> {
    let dir = room.join("download");
    fs::create_dir(&dir).map_err(Error::io("make", &dir))?;
    let deb = apt::download(package, &dir, report)?;
    let unpacked = room.join("unpacked");
    apt::unpack(package, &deb, &unpacked, report)?;
    let archive = unpacked.join("usr/src").join(format!("{}.tar.xz", package.name));
    let tree = room.join("source");
    fs::create_dir(&tree).map_err(Error::io("make", &tree))?;
    let mut tar = Command::new("tar");
    tar.arg("-xJf").arg(&archive).arg("-C").arg(&tree).arg("--strip-components=1");
    tool::run(&mut tar, |_| step(report, "unpacking the kernel source"))?;
    for done in [dir, unpacked] {
        fs::remove_dir_all(&done).map_err(Error::io("remove", &done))?;
    }
    Ok(tree)
}

fn make(tree: &Path) -> Command {
    let mut make = Command::new("make");
    // The same source gives the same kernel, whoever builds it, and when.
    make.env("KBUILD_BUILD_USER", "moat").env("KBUILD_BUILD_HOST", "moat");
    make.env("KBUILD_BUILD_TIMESTAMP", "1970-01-01");
    for variable in ENVIRONMENT {
        make.env_remove(variable);
    }
    make.current_dir(tree);
    make
}

/// tinyconfig with moat's lines after it, where the last word on an option counts.
fn configure(tree: &Path, report: Report<'_>) -> Result<(), Error> {
    let mut look = |_| step(report, "configuring the kernel");
    tool::run(make(tree).arg("tinyconfig"), &mut look)?;
    let path = tree.join(".config");
    let mut text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    text.push_str(CONFIGURATION);
    fs::write(&path, text).map_err(Error::io("write", &path))?;
    tool::run(make(tree).arg("olddefconfig"), &mut look)?;
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let options = lost(CONFIGURATION, &text);
    if options.is_empty() { Ok(()) } else { Err(Error::Configuration { options }) }
}

/// The lines of `wanted` that kconfig dropped for want of what they depend on, or by a new name.
fn lost(wanted: &str, config: &str) -> Vec<String> {
    let has = |line: &str| config.lines().any(|other| other == line);
    let set = |option: &str| {
        config
            .lines()
            .any(|line| line.strip_prefix(option).is_some_and(|rest| rest.starts_with('=')))
    };
    let kept = |line: &str| match line.strip_prefix("# ").and_then(|rest| rest.split_once(' ')) {
        Some((option, "is not set")) => !set(option),
        _ => line.starts_with('#') || line.is_empty() || has(line),
    };
    wanted.lines().filter(|line| !kept(line)).map(str::to_owned).collect()
}

fn compile(tree: &Path, report: Report<'_>) -> Result<(), Error> {
    let jobs = available_parallelism().map_or(1, usize::from);
    let mut command = make(tree);
    command.arg(format!("-j{jobs}")).arg("vmlinux");
    tool::run(&mut command, |lines| {
        let done = Some((MAKE_LINES.min(lines), MAKE_LINES));
        tell(report, Progress { step: "compiling the kernel", done })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_did_not_survive_are_found() {
        let wanted = "# why\n\nCONFIG_A=y\nCONFIG_B=\"x\"\n# CONFIG_C is not set\nCONFIG_D=16\n";
        let good = "CONFIG_A=y\nCONFIG_B=\"x\"\nCONFIG_CC=y\nCONFIG_D=16\n";
        assert!(lost(wanted, good).is_empty());
        let bad = "CONFIG_A=m\nCONFIG_B=\"x\"\nCONFIG_C=y\nCONFIG_D=17\n";
        assert_eq!(lost(wanted, bad), ["CONFIG_A=y", "# CONFIG_C is not set", "CONFIG_D=16"]);
    }

    #[test]
    fn every_line_of_the_configuration_is_a_comment_or_an_option() {
        for line in CONFIGURATION.lines().filter(|line| !line.is_empty()) {
            let plain = line.starts_with("# ") || line.starts_with("CONFIG_") && line.contains('=');
            assert!(plain, "{line}");
        }
    }
}
