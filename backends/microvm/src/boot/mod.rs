//! Puts a kernel, its initramfs and its command line into guest memory, and says where to begin.

mod cmdline;
mod initramfs;
mod kernel;
pub mod layout;
pub(crate) mod longmode;
mod map;
mod params;
mod populate;
mod program;
mod rewritten;

use std::fmt;
use std::fs::File;
use std::io;

use serde::{Deserialize, Serialize};
use vm_memory::{GuestMemoryError, GuestMemoryMmap};

use crate::hv::{Entry, LongMode};
use crate::memory::low_end;

pub use initramfs::Piece;

/// How a kernel file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelFormat {
    /// An uncompressed vmlinux. Entered by PVH where its note is there, else at its 64-bit entry.
    Elf,
    /// A bzImage, as distributions ship it. Entered by the 64-bit boot protocol.
    BzImage,
}

impl fmt::Display for KernelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elf => "elf",
            Self::BzImage => "bzimage",
        })
    }
}

/// How the kernel finds its devices and processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discovery {
    /// ACPI tables: what distributions' kernels need.
    Acpi,
    /// `virtio_mmio.device=` on the command line, and an MP table: moat's own kernel.
    Cmdline,
}

impl fmt::Display for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acpi => "acpi",
            Self::Cmdline => "cmdline",
        })
    }
}

/// What can go wrong before the guest's first instruction.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel file is not what its format says, or its parts don't fit.
    #[error("can't load the kernel as {format}")]
    Kernel {
        /// "an ELF image" or "a bzImage".
        format: &'static str,
        /// The loader's reason.
        source: linux_loader::loader::Error,
    },
    /// The kernel file can't be looked at.
    #[error("can't read the kernel")]
    ReadKernel(#[source] io::Error),
    /// A bzImage without the 64-bit entry.
    #[error("the kernel has no 64-bit entry point")]
    No64BitEntry,
    /// The kernel's own memory needs exceed the machine's.
    #[error("the kernel needs memory up to {end:#x}, and low memory ends at {low_end:#x}")]
    KernelTooLarge {
        /// The end of what it needs.
        end: u64,
        /// The end of the memory that it can use.
        low_end: u64,
    },
    /// The initramfs does not fit above the kernel.
    #[error("an initramfs of {size} bytes does not fit between {floor:#x} and {ceiling:#x}")]
    InitramfsTooLarge {
        /// Its bytes.
        size: u64,
        /// The end of the kernel.
        floor: u64,
        /// The end of usable memory.
        ceiling: u64,
    },
    /// A piece of the initramfs can't be read.
    #[error("can't read piece {index} of the initramfs")]
    ReadInitramfs {
        /// Which of the pieces, from 0.
        index: usize,
        /// The reason.
        source: io::Error,
    },
    /// A piece of the initramfs is shorter than it was when its size was taken.
    #[error("can't copy piece {index} of the initramfs into guest memory")]
    CopyInitramfs {
        /// Which of the pieces, from 0.
        index: usize,
        /// The reason.
        source: GuestMemoryError,
    },
    /// The command line is too long for Linux.
    #[error("the kernel command line has {length} bytes, and Linux takes {limit}")]
    CmdlineTooLong {
        /// Its length in bytes.
        length: usize,
        /// Linux's limit in bytes.
        limit: usize,
    },
    /// The command line has a byte that no command line can have.
    #[error("the kernel command line has a control character at byte {position}")]
    CmdlineByte {
        /// Position in the caller's part.
        position: usize,
    },
    /// Boot structures don't fit into guest memory.
    #[error("can't write boot data into guest memory")]
    Memory(#[from] GuestMemoryError),
}

/// What is to be booted.
#[derive(Debug)]
pub struct Boot<'a> {
    /// The kernel, read from its start.
    pub kernel: &'a mut File,
    /// Its layout.
    pub format: KernelFormat,
    /// Archives of the initramfs, in the order in which they are unpacked.
    pub initramfs: &'a [Piece],
    /// Added to moat's own parameters.
    pub cmdline: &'a str,
    /// How devices are found.
    pub discovery: Discovery,
    /// How many virtio-mmio devices there are.
    pub devices: u32,
    /// Whether there is COM1, which is the console then.
    pub serial: bool,
    /// Address of the ACPI root pointer; 0 for none.
    pub rsdp: u64,
}

/// A stretch of guest physical memory, `[start, start + size)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) size: u64,
}

/// Loads everything and returns where the first vCPU begins.
///
/// # Errors
/// When a file can't be read, is not what it is said to be, or does not fit.
pub fn load(memory: &GuestMemoryMmap, boot: Boot<'_>) -> Result<Entry, Error> {
    let kernel = kernel::load(memory, boot.kernel, boot.format)?;
    let initramfs = initramfs::load(memory, boot.initramfs, kernel.end, kernel.initramfs_max)?;
    cmdline::write(memory, &boot, kernel.cmdline_max)?;
    if boot.discovery == Discovery::Cmdline {
        for range in &kernel.rewritten {
            populate::populate(memory, range.clone());
        }
        let top = if initramfs.size > 0 { initramfs.start } else { low_end(memory) };
        populate::populate(memory, populate::page_books(memory, top));
    }
    match kernel.start {
        kernel::Start::Pvh { eip } => {
            params::write_start_info(memory, initramfs, boot.rsdp)?;
            let ebx = u32::try_from(layout::PVH_START_INFO).unwrap_or_default();
            Ok(Entry::Protected { eip, ebx })
        }
        kernel::Start::Long { rip, header } => {
            params::write_boot_params(memory, header, initramfs, boot.rsdp)?;
            let cr3 = longmode::write_tables(memory, longmode::Access::Kernel)?;
            let rsi = layout::BOOT_PARAMS;
            let gdt = (layout::GDT, longmode::GDT_LIMIT);
            // The stack grows down from the boot parameters; the kernel soon has its own.
            Ok(Entry::Long(LongMode {
                rip,
                rsp: layout::BOOT_PARAMS,
                rsi,
                cr3,
                gdt,
                user_with_syscall_at: None,
            }))
        }
    }
}
