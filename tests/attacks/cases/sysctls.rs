//! The kernel's settings can't be written.

use anyhow::Result;
use nix::fcntl::OFlag;

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::Field;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    cve: Some("CVE-2022-0811"),
    behind,
    ..Case::new(
        "sysctls",
        "opens core_pattern, modprobe, panic, ip_forward and sysrq-trigger for writing; with CAP_SYS_ADMIN added, too",
        attack,
    )
};

const FILES: [&str; 8] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/fs/file-max",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sysrq-trigger",
];

/// Opened and closed: nothing is written, since this machine must stay as it is.
fn attack(tries: &Tries, _: &[&str]) {
    for path in FILES {
        tries.opens(path, OFlag::O_WRONLY);
    }
}

fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    let mut found = field.moat("")?;
    found.extend(field.moat_as_admin()?.unwrap_or_default());
    Ok(found)
}
