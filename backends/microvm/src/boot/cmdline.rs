//! The kernel's command line: what the machine needs the kernel to know, then the caller's words.

use std::fmt::Write;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Discovery, Error, layout};

/// True of every machine that moat makes: a serial console, reset through the keyboard
/// controller, a panic ends the machine, no keyboard or mouse, randomness from the processor is
/// trusted, and no self-tests of the kernel's ciphers: those took two thirds of a distribution
/// kernel's way to its init (docs/performance.md).
const BASE: &str = "console=ttyS0 reboot=k panic=-1 i8042.noaux i8042.nokbd 8250.nr_uarts=1 \
                    random.trust_cpu=on cryptomgr.notests";

pub(super) fn write(
    memory: &GuestMemoryMmap,
    discovery: Discovery,
    devices: u32,
    extra: &str,
    limit: usize,
) -> Result<(), Error> {
    let mut line = compose(discovery, devices, extra)?;
    if line.len() > limit {
        return Err(Error::CmdlineTooLong { length: line.len(), limit });
    }
    line.push('\0');
    Ok(memory.write_slice(line.as_bytes(), GuestAddress(layout::CMDLINE))?)
}

fn compose(discovery: Discovery, devices: u32, extra: &str) -> Result<String, Error> {
    if let Some(position) = extra.bytes().position(|byte| byte.is_ascii_control()) {
        return Err(Error::CmdlineByte { position });
    }
    let mut line = BASE.to_owned();
    if discovery == Discovery::Cmdline {
        for index in 0..devices {
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

    #[test]
    fn devices_are_named_only_where_the_kernel_finds_them_so() {
        let line = compose(Discovery::Cmdline, 2, "quiet").unwrap();
        let end = " virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6 quiet";
        assert!(line.ends_with(end), "{line}");
        assert!(!compose(Discovery::Acpi, 2, "").unwrap().contains("virtio_mmio"));
    }

    #[test]
    fn too_long_or_broken_lines_are_refused() {
        let memory = crate::memory::create(32 << 20).unwrap();
        let long = "x".repeat(2048);
        let result = write(&memory, Discovery::Acpi, 0, &long, 2047);
        assert!(matches!(result, Err(Error::CmdlineTooLong { .. })));
        let result = write(&memory, Discovery::Acpi, 0, "a\0b", 2047);
        assert!(matches!(result, Err(Error::CmdlineByte { position: 1 })));
    }
}
