//! The label that a process has for a security module of the kernel: AppArmor's profile, SELinux's
//! label. It comes into force with the next program.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use moat_core::sandbox::{Label, StartError};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::fstat;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::error::Step;

/// The number of the directory that a procfs has as its root (kernel `PROC_ROOT_INO`).
const PROC_ROOT: u64 = 1;

/// Asks for the label of the next program that the calling thread becomes. Must be after the last
/// change of user and capabilities: the kernel takes the word only of who opened the file.
///
/// # Errors
/// When the module is not there, or does not take it.
pub(crate) fn ask_for(label: &Label) -> Result<(), StartError> {
    let (files, text, step) = match label {
        Label::None => return Ok(()),
        Label::AppArmor(profile) => (
            // The second is that of kernels before 5.8, whose first module it is.
            &["thread-self/attr/apparmor/exec", "thread-self/attr/exec"][..],
            format!("exec {profile}"),
            format!("use AppArmor profile {profile}"),
        ),
        Label::Selinux(label) => {
            (&["thread-self/attr/exec"][..], label.clone(), format!("use SELinux label {label}"))
        }
    };
    write(files, &text).step(|| step)
}

fn write(files: &[&str], text: &str) -> io::Result<()> {
    let proc = proc()?;
    let mut refused = io::Error::from(Errno::ENOENT);
    for file in files {
        match open(&proc, file, OFlag::O_WRONLY) {
            Ok(file) => return File::from(file).write_all(text.as_bytes()),
            Err(errno) => refused = errno.into(),
        }
    }
    Err(refused)
}

/// The procfs that moat mounted at /proc. It is the workload's to mount over where it has the
/// right, so that a process that comes later sees whether it still is one: what is written to a
/// file in its place would be lost, and the label with it (the class of CVE-2019-16884).
fn proc() -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let proc = openat2(AT_FDCWD, "/proc", how)?;
    let is_proc = fstatfs(&proc)?.filesystem_type() == PROC_SUPER_MAGIC;
    if is_proc && fstat(&proc)?.st_ino == PROC_ROOT {
        Ok(proc)
    } else {
        Err(io::Error::other("/proc is not procfs"))
    }
}

/// Opens a file of procfs itself, not one that is mounted over it.
fn open(proc: &OwnedFd, file: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_XDEV
        | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(proc, file, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procfs_is_told_from_what_is_not() {
        let proc = proc().unwrap();
        let status = open(&proc, "thread-self/status", OFlag::O_RDONLY).unwrap();
        assert_eq!(fstatfs(&status).unwrap().filesystem_type(), PROC_SUPER_MAGIC);
        // A magic link, and a way out.
        assert!(open(&proc, "thread-self/root/etc/passwd", OFlag::O_RDONLY).is_err());
        assert!(open(&proc, "../etc/passwd", OFlag::O_RDONLY).is_err());
    }

    #[test]
    fn a_label_that_no_module_takes_is_refused() {
        assert_eq!(ask_for(&Label::None), Ok(()));
        for label in ["no-such-profile-of-moat", "x:y:z"] {
            let error = ask_for(&Label::AppArmor(label.to_owned())).unwrap_err().to_string();
            assert!(error.starts_with(&format!("use AppArmor profile {label}: ")), "{error}");
        }
    }
}
