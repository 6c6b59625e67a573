//! The kernel's command line: what the machine needs the kernel to know, then the caller's words.

use std::fmt::Write;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Boot, Discovery, Error, layout};

/// True of every machine that moat makes: reset through the keyboard controller, a panic ends the
/// machine, no keyboard or mouse, randomness from the processor is trusted, and no self-tests of
/// the kernel's ciphers: those took two thirds of a distribution kernel's way to its init
/// (docs/performance.md).
const BASE: &str =
    "reboot=k panic=-1 i8042.noaux i8042.nokbd random.trust_cpu=on cryptomgr.notests";

/// The one serial port is the console; or there is none, and the driver need not look for any.
const SERIAL: &str = "console=ttyS0 8250.nr_uarts=1";
const NO_SERIAL: &str = "8250.nr_uarts=0";

/// What spares moat's own kernel pages of memory at its start (docs/guest-kernel.md): per-processor
/// data page by page instead of in a zeroed 2 MiB, and lock prefixes left as they are instead of
/// being taken out of 8,000 places in the code when there is one processor.
const LEAN: &str = " percpu_alloc=page noreplace-smp";

pub(super) fn write(
    memory: &GuestMemoryMmap,
    machine: &Boot<'_>,
    limit: usize,
) -> Result<(), Error> {
    let mut line = compose(machine)?;
    if line.len() > limit {
        return Err(Error::CmdlineTooLong { length: line.len(), limit });
    }
    line.push('\0');
    Ok(memory.write_slice(line.as_bytes(), GuestAddress(layout::CMDLINE))?)
}

fn compose(machine: &Boot<'_>) -> Result<String, Error> {
    let extra = machine.cmdline;
    if let Some(position) = extra.bytes().position(|byte| byte.is_ascii_control()) {
        return Err(Error::CmdlineByte { position });
    }
    let mut line = format!("{} {BASE}", if machine.serial { SERIAL } else { NO_SERIAL });
    if machine.discovery == Discovery::Cmdline {
        line.push_str(LEAN);
        for index in 0..machine.devices {
            let address = layout::VIRTIO_MMIO + u64::from(index) * layout::VIRTIO_MMIO_SIZE;
            let irq = layout::VIRTIO_MMIO_IRQ + index;
            // Writing to a String can't fail.
            let _ = write!(line, " virtio_mmio.device=4K@{address:#x}:{irq}");
        }
    }
    // Last, so that the caller's word counts where both say something.
    if !extra.is_empty() {
        line.push(' ');
        line.push_str(extra);
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::KernelFormat;

    /// A machine with this much to say about it.
    fn with<T>(
        discovery: Discovery,
        devices: u32,
        cmdline: &str,
        test: impl FnOnce(&Boot<'_>) -> T,
    ) -> T {
        test(&Boot {
            kernel: &mut std::fs::File::open("/dev/null").unwrap(),
            format: KernelFormat::Elf,
            initramfs: &[],
            cmdline,
            discovery,
            devices,
            serial: devices == 0,
            rsdp: 0,
        })
    }

    #[test]
    fn devices_are_named_only_where_the_kernel_finds_them_so() {
        let line = with(Discovery::Cmdline, 2, "quiet", compose).unwrap();
        let end = " virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6 quiet";
        assert!(line.ends_with(end), "{line}");
        let line = with(Discovery::Acpi, 2, "", compose).unwrap();
        assert!(!line.contains("virtio_mmio"), "{line}");
    }

    #[test]
    fn the_serial_port_is_the_console_where_there_is_one() {
        assert!(with(Discovery::Cmdline, 0, "", compose).unwrap().starts_with("console=ttyS0 "));
        assert!(!with(Discovery::Cmdline, 1, "", compose).unwrap().contains("ttyS0"));
    }

    #[test]
    fn too_long_or_broken_lines_are_refused() {
        let memory = crate::memory::create(32 << 20).unwrap();
        let long = "x".repeat(2048);
        let result = with(Discovery::Acpi, 0, &long, |boot| write(&memory, boot, 2047));
        assert!(matches!(result, Err(Error::CmdlineTooLong { .. })));
        let result = with(Discovery::Acpi, 0, "a\0b", |boot| write(&memory, boot, 2047));
        assert!(matches!(result, Err(Error::CmdlineByte { position: 1 })));
    }
}
