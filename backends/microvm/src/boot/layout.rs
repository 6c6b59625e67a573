//! Where things lie in the guest's physical address space.
//!
//! ```text
//! 0x0000_0500  segment descriptors          0x0000_6000  PVH start info, module, memory map
//! 0x0000_7000  Linux boot parameters        0x0000_9000  page tables for a 64-bit entry
//! 0x0000_8000  setup data (a seed)          0x0009_fc00  MP table (end of base memory)
//! 0x0002_0000  command line
//! 0x000e_0000  ACPI tables                  0x0010_0000  kernel; initramfs at the end of low memory
//! 0xc000_0000  device hole: virtio-mmio at 0xd000_0000, I/O APIC, local APIC, KVM's own pages
//! 0x1_0000_0000 the rest of memory
//! ```

/// Segment descriptor table for a 64-bit entry.
pub const GDT: u64 = 0x500;
/// PVH start info, followed by its one module and the memory map.
pub const PVH_START_INFO: u64 = 0x6000;
/// The PVH module that describes the initramfs.
pub const PVH_MODULES: u64 = 0x6040;
/// PVH's memory map.
pub const PVH_MEMMAP: u64 = 0x6080;
/// Linux's boot parameters ("zero page"), 4 KiB.
pub const BOOT_PARAMS: u64 = 0x7000;
/// Setup data that the boot parameters point to: a seed.
pub const SETUP_DATA: u64 = 0x8000;
/// Page tables: one page each of PML4 and PDPT, four of page directories.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel's command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Linux's COMMAND_LINE_SIZE on x86, with the terminating zero (arch/x86/include/asm/setup.h).
pub const CMDLINE_MAX: usize = 2048;
/// End of usable base memory. The last KiB below 640 KiB is where Linux looks for an MP table
/// (Intel MultiProcessor Specification 1.4, section 4).
pub const MP_TABLE: u64 = 0x9_fc00;
/// End of base memory.
pub const BASE_MEMORY_END: u64 = 0xa_0000;
/// ACPI tables, in the BIOS area where a kernel without a pointer searches for them (ACPI 6.5,
/// 5.2.5.1).
pub const ACPI: u64 = 0xe_0000;
/// Kernels are loaded here and above.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// The hole below 4 GiB that no memory fills: 1 GiB from 3 GiB.
pub const HOLE: u64 = 0xc000_0000;
/// The hole's size.
pub const HOLE_SIZE: u64 = 0x4000_0000;
/// virtio-mmio devices, one page each.
pub const VIRTIO_MMIO: u64 = 0xd000_0000;
/// Bytes of each virtio-mmio device.
pub const VIRTIO_MMIO_SIZE: u64 = 0x1000;
/// First interrupt of virtio-mmio devices: 5, past timer, keyboard, cascade and serial ports.
pub const VIRTIO_MMIO_IRQ: u32 = 5;
/// I/O APIC (where KVM's in-kernel one is).
pub const IO_APIC: u32 = 0xfec0_0000;
/// Local APIC.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages that KVM needs on Intel, where no BIOS is here to be overlaid.
pub const KVM_TSS: usize = 0xfffb_d000;
/// Memory from 4 GiB on.
pub const HIGH_RAM: u64 = 0x1_0000_0000;
/// COM1.
pub const COM1_PORT: u16 = 0x3f8;
/// COM1's interrupt.
pub const COM1_IRQ: u32 = 4;
/// The keyboard controller's command port, whose pulse resets the machine.
pub const RESET_PORT: u16 = 0x64;
/// "Pulse output line 0", the processor's reset.
pub const RESET_VALUE: u8 = 0xfe;
/// ACPI sleep control (this port) and status (the next).
pub const SLEEP_PORT: u16 = 0x600;
/// SLP_TYP 5 and SLP_EN in the sleep control register (ACPI 6.5, 4.8.3.7).
pub const SLEEP_S5: u8 = (5 << 2) | 0x20;
