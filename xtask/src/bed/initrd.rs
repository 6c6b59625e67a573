//! The bed's initramfs: a static busybox, the modules, the two init scripts and the task.

use super::cpio::Archive;
use super::kernel::Kernel;
use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

const BUSYBOX: &str = "/bin/busybox";

/// In the order they are loaded: each after what it needs.
const MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_console",
    "netfs",
    "fscache",
    "9pnet",
    "9pnet_virtio",
    "9p",
    "irqbypass",
    "ccp",
    "kvm",
    "kvm-amd",
    "overlay",
    "fuse",
    "tun",
    "veth",
    "llc",
    "stp",
    "bridge",
    // Disks to be limited.
    "loop",
    "bfq",
    "crc32c_generic",
    "crc16",
    "mbcache",
    "jbd2",
    "ext4",
];

/// What the scripts call; everything else is the host's own.
const APPLETS: &[&str] = &[
    "cat",
    "cp",
    "env",
    "hostname",
    "ifconfig",
    "insmod",
    "kill",
    "ln",
    "mkdir",
    "mkfifo",
    "mount",
    "poweroff",
    "rm",
    "sh",
    "sleep",
    "switch_root",
    "sync",
    "umount",
    "uname",
    "usleep",
];

/// Variables of the caller that the command gets.
const PASSED: &[&str] =
    &["PATH", "HOME", "TERM", "USER", "LANG", "XDG_CACHE_HOME", "XDG_DATA_HOME"];
const PASSED_PREFIXES: &[&str] = &["CARGO", "RUST", "MOAT_"];

/// What the machine is to run.
pub(super) struct Task {
    pub(super) directory: PathBuf,
    /// Each `KEY=VALUE`.
    pub(super) env: Vec<OsString>,
    pub(super) argv: Vec<OsString>,
    /// Standard output and error are one file outside: keep their order.
    pub(super) merged: bool,
}

/// The caller's variables that make sense in the machine, then `extra`, each `KEY=VALUE`.
pub(super) fn environment(extra: &[OsString]) -> Vec<OsString> {
    let passed = |name: &OsStr| {
        name.to_str().is_some_and(|name| {
            PASSED.contains(&name) || PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        })
    };
    std::env::vars_os()
        .filter(|(name, _)| passed(name))
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        })
        .chain(extra.iter().cloned())
        .collect()
}

/// The initramfs for `task`, in a file that lives in memory only: nothing to clean up.
pub(super) fn build(kernel: &Kernel, task: &Task) -> Result<File> {
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "proc", "root", "modules"] {
        archive.directory(dir)?;
    }
    let busybox = std::fs::read(BUSYBOX)
        .with_context(|| format!("{BUSYBOX}; hint: apt-get install busybox-static"))?;
    archive.file("bin/busybox", &busybox)?;
    for applet in APPLETS {
        archive.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    for (name, file) in MODULES.iter().zip(kernel.modules(MODULES)?) {
        let data = std::fs::read(&file).with_context(|| file.display().to_string())?;
        archive.file(&format!("modules/{name}.ko"), &data)?;
    }
    archive.file("modules/order", MODULES.join("\n").as_bytes())?;
    archive.file("modules/path", kernel.modules_dir().as_os_str().as_bytes())?;
    archive.file("init", include_bytes!("init.sh"))?;
    archive.file("bin/stage2", include_bytes!("stage2.sh"))?;
    archive.file("bin/task", &script(task))?;
    let memory = memfd_create("moat-bed-initrd", MFdFlags::empty()).context("memfd_create")?;
    let mut file = File::from(memory);
    file.write_all(&archive.finish()?).context("write the initramfs")?;
    Ok(file)
}

/// The command as a shell script, with every word quoted.
fn script(task: &Task) -> Vec<u8> {
    let mut script = b"#!/bin/sh\n".to_vec();
    if task.merged {
        script.extend_from_slice(b"exec 2>&1\n");
    }
    script.extend_from_slice(b"cd ");
    script.extend(quoted(task.directory.as_os_str()));
    script.extend_from_slice(b" || exit 125\nexec env -i");
    for word in task.env.iter().chain(&task.argv) {
        script.push(b' ');
        script.extend(quoted(word));
    }
    script.push(b'\n');
    script
}

/// One word as sh reads it back unchanged.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut out = vec![b'\''];
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => out.extend_from_slice(b"'\\''"),
            other => out.push(other),
        }
    }
    out.push(b'\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn sh_reads_quoted_words_back_unchanged() {
        for word in ["", "two words", "it's", "$HOME `id` \"x\" \\", "line\nline", "ünïcode"] {
            let mut line = b"printf %s ".to_vec();
            line.extend(quoted(OsStr::new(word)));
            let line = OsString::from_vec(line);
            let out = std::process::Command::new("sh").arg("-c").arg(line).output().unwrap();
            assert_eq!(out.stdout, word.as_bytes());
        }
    }
}
