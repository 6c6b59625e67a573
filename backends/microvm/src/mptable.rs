//! The MP table (Intel MultiProcessor Specification 1.4), from which a kernel without ACPI learns
//! its processors and how the legacy interrupts reach the I/O APIC.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::boot::layout;

const SPEC_REVISION: u8 = 4;
const LOCAL_APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x11;
/// Entry types (section 4.3).
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC: u8 = 2;
const INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;
/// Processor flags: usable, and the one that boots.
const ENABLED: u8 = 1;
const BOOT_PROCESSOR: u8 = 2;
/// Interrupt kinds (table 4-11).
const VECTORED: u8 = 0;
const NMI: u8 = 1;
const EXTERNAL: u8 = 3;
/// "Conforms to the bus": for ISA, edge-triggered and active high, as our interrupts are.
const BUS_DEFAULT: u16 = 0;
const ISA_BUS: u8 = 0;
const ALL_APICS: u8 = 0xff;
/// Inputs of KVM's I/O APIC.
const IO_APIC_PINS: u8 = 24;
const FLOATING_POINTER: u64 = 16;
const HEADER: usize = 44;

/// Writes the table for `vcpus` processors.
///
/// # Errors
/// When guest memory does not reach so far.
pub fn write(memory: &GuestMemoryMmap, vcpus: u8) -> Result<(), GuestMemoryError> {
    let table = table(vcpus);
    let at = layout::MP_TABLE + FLOATING_POINTER;
    debug_assert!(at + table.len() as u64 <= layout::BASE_MEMORY_END);
    memory.write_slice(&pointer(at), GuestAddress(layout::MP_TABLE))?;
    memory.write_slice(&table, GuestAddress(at))
}

/// The byte that makes all of `bytes` sum to zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// The floating pointer structure (section 4.1).
fn pointer(table: u64) -> Vec<u8> {
    let mut bytes = b"_MP_".to_vec();
    bytes.extend(u32::try_from(table).unwrap_or_default().to_le_bytes());
    bytes.extend([1, SPEC_REVISION, 0, 0, 0, 0, 0, 0]);
    bytes[10] = checksum(&bytes);
    bytes
}

/// The configuration table (section 4.2) with its entries.
fn table(vcpus: u8) -> Vec<u8> {
    let (entries, count) = entries(vcpus);
    let length = u16::try_from(HEADER + entries.len()).unwrap_or(u16::MAX);
    let mut bytes = b"PCMP".to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend([SPEC_REVISION, 0]);
    bytes.extend(b"MOAT    ");
    bytes.extend(b"MICROVM     ");
    bytes.extend([0; 6]);
    bytes.extend(count.to_le_bytes());
    bytes.extend(layout::LOCAL_APIC.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(entries);
    bytes[7] = checksum(&bytes);
    bytes
}

fn entries(vcpus: u8) -> (Vec<u8>, u16) {
    let io_apic = vcpus;
    let mut bytes = Vec::new();
    for id in 0..vcpus {
        let flags = ENABLED | if id == 0 { BOOT_PROCESSOR } else { 0 };
        bytes.extend([PROCESSOR, id, LOCAL_APIC_VERSION, flags]);
        // Signature and feature flags: the kernel asks CPUID.
        bytes.extend([0; 16]);
    }
    bytes.extend([BUS, ISA_BUS]);
    bytes.extend(b"ISA   ");
    bytes.extend([IO_APIC, io_apic, IO_APIC_VERSION, ENABLED]);
    bytes.extend(layout::IO_APIC.to_le_bytes());
    let mut line = |entry: u8, kind: u8, irq: u8, apic: u8, pin: u8| {
        bytes.extend([entry, kind]);
        bytes.extend(BUS_DEFAULT.to_le_bytes());
        bytes.extend([ISA_BUS, irq, apic, pin]);
    };
    for irq in 0..IO_APIC_PINS {
        line(INTERRUPT, VECTORED, irq, io_apic, irq);
    }
    line(LOCAL_INTERRUPT, EXTERNAL, 0, 0, 0);
    line(LOCAL_INTERRUPT, NMI, 0, ALL_APICS, 1);
    (bytes, u16::from(vcpus) + 2 + u16::from(IO_APIC_PINS) + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointer_and_table_sum_to_zero_and_the_largest_fits() {
        for vcpus in [1, 2, 32] {
            let table = table(vcpus);
            assert_eq!(checksum(&table), 0);
            assert_eq!(checksum(&pointer(layout::MP_TABLE + FLOATING_POINTER)), 0);
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
            let end = layout::MP_TABLE + FLOATING_POINTER + table.len() as u64;
            assert!(end <= layout::BASE_MEMORY_END, "{vcpus} vCPUs end at {end:#x}");
        }
    }

    #[test]
    fn the_first_processor_boots_and_all_are_enabled() {
        let table = table(2);
        assert_eq!(table[HEADER..HEADER + 4], [PROCESSOR, 0, LOCAL_APIC_VERSION, 3]);
        assert_eq!(table[HEADER + 20..HEADER + 24], [PROCESSOR, 1, LOCAL_APIC_VERSION, 1]);
    }
}
