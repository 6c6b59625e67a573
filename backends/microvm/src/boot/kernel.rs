//! Brings a kernel file into guest memory: mapped where that can be done, else read.

use std::fs::File;
use std::ops::Range;

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::{Address, GuestAddress, GuestMemoryMmap};

use super::map::PageSource;
use super::{Error, KernelFormat, layout, rewritten};
use crate::memory::low_end;

/// `xloadflags`: there is a 64-bit entry 0x200 into the protected-mode kernel (Linux
/// Documentation/arch/x86/boot.rst).
const XLF_KERNEL_64: u16 = 1;
const ENTRY_64_OFFSET: u64 = 0x200;
/// Before protocol 2.03 kernels took an initramfs below this; ELF kernels have no header to ask.
const INITRAMFS_MAX: u64 = 0x7fff_ffff;

/// A kernel in guest memory.
pub(super) struct Kernel {
    pub(super) start: Start,
    /// The end of the memory that it takes before it can look at its memory map.
    pub(super) end: u64,
    /// The last address that an initramfs may take.
    pub(super) initramfs_max: u64,
    /// The longest command line it takes, without the terminating zero.
    pub(super) cmdline_max: usize,
    /// What of it a Linux kernel writes to before its first process.
    pub(super) rewritten: Vec<Range<u64>>,
}

/// How it is entered.
pub(super) enum Start {
    /// 32-bit, with the PVH start info.
    Pvh { eip: u32 },
    /// 64-bit, with boot parameters made of the file's setup header, where it has one.
    Long { rip: u64, header: Option<setup_header> },
}

pub(super) fn load(
    memory: &GuestMemoryMmap,
    file: &mut File,
    format: KernelFormat,
) -> Result<Kernel, Error> {
    let kernel = match format {
        KernelFormat::Elf => {
            load_elf(memory, &mut PageSource::new(file).map_err(Error::ReadKernel)?)?
        }
        KernelFormat::BzImage => load_bzimage(memory, file)?,
    };
    let low_end = low_end(memory);
    if kernel.end > low_end {
        return Err(Error::KernelTooLarge { end: kernel.end, low_end });
    }
    Ok(kernel)
}

fn load_elf(memory: &GuestMemoryMmap, file: &mut PageSource<'_>) -> Result<Kernel, Error> {
    let lowest = Some(GuestAddress(layout::HIGH_MEMORY));
    let loaded = Elf::load(memory, None, file, lowest)
        .map_err(|source| Error::Kernel { format: "an ELF image", source })?;
    let start = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => match u32::try_from(entry.raw_value()) {
            Ok(eip) => Start::Pvh { eip },
            Err(_) => return Err(Error::No64BitEntry),
        },
        _ => Start::Long { rip: loaded.kernel_load.raw_value(), header: None },
    };
    Ok(Kernel {
        start,
        end: loaded.kernel_end,
        initramfs_max: INITRAMFS_MAX,
        cmdline_max: layout::CMDLINE_MAX - 1,
        rewritten: rewritten::ranges(file.file()),
    })
}

fn load_bzimage(memory: &GuestMemoryMmap, file: &mut File) -> Result<Kernel, Error> {
    let lowest = Some(GuestAddress(layout::HIGH_MEMORY));
    let loaded = BzImage::load(memory, None, file, lowest)
        .map_err(|source| Error::Kernel { format: "a bzImage", source })?;
    let header = loaded.setup_header.ok_or(Error::No64BitEntry)?;
    // Protocol 2.12 has xloadflags.
    if header.version < 0x20c || header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(Error::No64BitEntry);
    }
    let load = loaded.kernel_load.raw_value();
    let rip = load.checked_add(ENTRY_64_OFFSET).ok_or(Error::No64BitEntry)?;
    // It unpacks itself at its preferred address, or where it was loaded if that is higher.
    let unpacked = header.pref_address.max(load).saturating_add(u64::from(header.init_size));
    let cmdline_max = usize::try_from(header.cmdline_size).unwrap_or(layout::CMDLINE_MAX);
    Ok(Kernel {
        start: Start::Long { rip, header: Some(header) },
        end: loaded.kernel_end.max(unpacked),
        initramfs_max: u64::from(header.initrd_addr_max),
        cmdline_max: cmdline_max.min(layout::CMDLINE_MAX - 1),
        rewritten: Vec::new(),
    })
}
