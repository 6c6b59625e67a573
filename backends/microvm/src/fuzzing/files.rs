//! Kernel files and modules: what a user imports, and what a machine boots.

use std::fs::File;
use std::io::Write;

use crate::boot::{self, Boot, Discovery, KernelFormat, Piece};
use crate::{kernel, memory};

/// Guest memory in bytes.
const MEMORY: u64 = 64 << 20;

/// A kernel file, loaded as a machine does it: the first byte says how.
pub fn kernel(data: &[u8]) {
    let Some((&how, bytes)) = data.split_first() else { return };
    let format = if how & 1 == 0 { KernelFormat::Elf } else { KernelFormat::BzImage };
    let discovery = if how & 2 == 0 { Discovery::Acpi } else { Discovery::Cmdline };
    let initramfs = [Piece::Bytes(vec![7; usize::from(how)])];
    let memory = memory::create(MEMORY).unwrap();
    let mut file = scratch(bytes);
    let boot = Boot {
        kernel: &mut file,
        format,
        initramfs: &initramfs,
        cmdline: "quiet",
        discovery,
        devices: 3,
        rsdp: 0,
        serial: how & 4 != 0,
    };
    // Any entry is the guest's own: it faults inside.
    let _ = boot::load(&memory, boot);
}

/// A file in memory.
pub(crate) fn scratch(bytes: &[u8]) -> File {
    let fd = nix::sys::memfd::memfd_create(c"kernel", nix::sys::memfd::MFdFlags::empty()).unwrap();
    let mut file = File::from(fd);
    file.write_all(bytes).unwrap();
    file
}

/// What goes into a bundle: a kernel image, packed or not, or a module.
pub fn bundle(data: &[u8]) {
    kernel::fuzzing::parse_any(data);
}
