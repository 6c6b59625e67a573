//! A program's file capabilities give a plain user nothing.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use anyhow::Result;

use crate::call::{
    Arg::{B, N, S},
    call,
};
use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::{Field, told};
use crate::inside::{self, Tries, read};

pub(super) const CASE: Case = Case {
    behind: |field| run(field, ""),
    open: |field| run(field, "[workload.case.security]\nno_new_privileges = false"),
    ..Case::new(
        "file_capabilities",
        "runs a program of the image that has CAP_CHOWN and CAP_SETUID as file capabilities, as user 1000",
        attack,
    )
};

/// linux/capability.h, `VFS_CAP_REVISION_2` with the effective flag.
const REVISION: u32 = 0x0200_0001;
/// CAP_CHOWN is bit 0, CAP_SETUID is bit 7.
const PERMITTED: u32 = 0x81;

fn attack(tries: &Tries, _: &[&str]) {
    let status = read("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    let effective = effective.unwrap_or("nothing");
    let what = "gain capabilities";
    if effective.chars().all(|digit| digit == '0') {
        tries.refused(what, effective);
    } else {
        tries.got(what, effective);
    }
}

fn run(field: &Field<'_>, more: &str) -> Result<Vec<Evidence>> {
    let path = field.place_attacker("raise", 0o755)?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let words = [REVISION, PERMITTED, 0, 0, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    call(libc::SYS_setxattr, [S(&path), S(c"security.capability"), B(&value), N(20), N(0)])?;
    field.space.spec(&format!("user = \"1000\"\n{more}"))?;
    told(&field.space.run(&["/raise", inside::ASKED, CASE.name])?)
}
