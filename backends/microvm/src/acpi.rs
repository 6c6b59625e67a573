//! ACPI tables for distributions' kernels, which find virtio-mmio devices in no other way.
//!
//! Hardware-reduced ACPI 6.5: no fixed hardware but reset and sleep registers. Processors and the
//! I/O APIC in the MADT, devices in the DSDT.

use acpi_tables::aml::{
    self, Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::boot::layout;

const OEM: [u8; 6] = *b"MOAT  ";
const OEM_TABLE: [u8; 8] = *b"MOATVM  ";
const OEM_REVISION: u32 = 1;

/// IA-PC boot flags (ACPI 6.5, table 5.11): no VGA, no CMOS clock; and, by not being set, no
/// keyboard controller to be probed.
const BOOT_NO_VGA: u16 = 1 << 2;
const BOOT_NO_RTC: u16 = 1 << 5;

/// Tables begin at multiples of this.
const ALIGN: u64 = 16;

/// Writes tables for `vcpus` processors, `devices` virtio-mmio devices and, with `serial`, COM1,
/// and returns the address of the root pointer.
///
/// # Errors
/// When they don't fit into guest memory.
pub fn write(
    memory: &GuestMemoryMmap,
    vcpus: u8,
    devices: u32,
    serial: bool,
) -> Result<u64, GuestMemoryError> {
    let root = layout::ACPI;
    let mut next = root + ALIGN * 4;
    let mut place = |table: &dyn Aml| -> Result<u64, GuestMemoryError> {
        let bytes = Bytestream::of(table);
        let at = next;
        memory.write_slice(&bytes, GuestAddress(at))?;
        next = (at + bytes.len() as u64).next_multiple_of(ALIGN);
        Ok(at)
    };
    let dsdt = place(&dsdt(devices, serial))?;
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(place(&fadt(dsdt).finalize())?);
    xsdt.add_entry(place(&madt(vcpus))?);
    let xsdt = place(&xsdt)?;
    memory.write_slice(&Bytestream::of(&Rsdp::new(OEM, xsdt)), GuestAddress(root))?;
    Ok(root)
}

/// A table's bytes.
#[derive(Default)]
struct Bytestream(Vec<u8>);

impl Bytestream {
    fn of(table: &dyn Aml) -> Vec<u8> {
        let mut stream = Self::default();
        table.to_aml_bytes(&mut stream);
        stream.0
    }
}

impl AmlSink for Bytestream {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

fn port(address: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(address))
}

fn fadt(dsdt: u64) -> FADTBuilder {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (BOOT_NO_VGA | BOOT_NO_RTC).into();
    fadt.reset_reg = port(layout::RESET_PORT);
    fadt.reset_value = layout::RESET_VALUE;
    fadt.sleep_control_reg = port(layout::SLEEP_PORT);
    fadt.sleep_status_reg = port(layout::SLEEP_PORT + 1);
    fadt
}

fn madt(vcpus: u8) -> MADT {
    let local = LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, local);
    // The I/O APIC's id follows the last processor's, as in the MP table.
    madt.add_structure(IoApic::new(vcpus, layout::IO_APIC, 0));
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt
}

fn dsdt(devices: u32, serial: bool) -> Sdt {
    // Sleep type 5 for soft off, as `layout::SLEEP_S5` reads it back.
    let s5 = Name::new("_S5_".into(), &Package::new(vec![&5u8]));
    let mut body = Bytestream::of(&s5);
    if serial {
        body.extend(Bytestream::of(&com1()));
    }
    for index in 0..devices {
        body.extend(virtio(index));
    }
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, OEM_REVISION);
    dsdt.append_slice(&body);
    dsdt
}

/// The serial port, which needs its interrupt told where no PIC is.
fn com1() -> impl Aml {
    struct Com1;
    impl Aml for Com1 {
        fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
            let hid = Name::new("_HID".into(), &EISAName::new("PNP0501"));
            let uid = Name::new("_UID".into(), &aml::ZERO);
            let ports = IO::new(layout::COM1_PORT, layout::COM1_PORT, 0, 8);
            let line = Interrupt::new(true, true, false, false, layout::COM1_IRQ);
            let crs = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports, &line]));
            let device = Device::new("COM1".into(), vec![&hid, &uid, &crs]);
            Scope::new("\\_SB_".into(), vec![&device]).to_aml_bytes(sink);
        }
    }
    Com1
}

/// One virtio-mmio device, by the identifier that Linux's virtio_mmio driver knows.
fn virtio(index: u32) -> Vec<u8> {
    let offset = index * 0x1000;
    let base = u32::try_from(layout::VIRTIO_MMIO).unwrap_or_default() + offset;
    let hid = Name::new("_HID".into(), &"LNRO0005");
    let uid = Name::new("_UID".into(), &index);
    let cca = Name::new("_CCA".into(), &aml::ONE);
    let window = Memory32Fixed::new(true, base, 0x1000);
    let line = Interrupt::new(true, true, false, false, layout::VIRTIO_MMIO_IRQ + index);
    let crs = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&window, &line]));
    let name = format!("V{index:03X}");
    let device = Device::new(name.as_str().into(), vec![&hid, &uid, &cca, &crs]);
    Bytestream::of(&Scope::new("\\_SB_".into(), vec![&device]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(memory: &GuestMemoryMmap, at: u64) -> Vec<u8> {
        let length: u32 = memory.read_obj(GuestAddress(at + 4)).unwrap();
        let mut bytes = vec![0; length as usize];
        memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn every_table_is_reached_from_the_root_and_sums_to_zero() {
        let memory = crate::memory::create(32 << 20).unwrap();
        let root = write(&memory, 4, 2, true).unwrap();
        let mut rsdp = [0u8; 36];
        memory.read_slice(&mut rsdp, GuestAddress(root)).unwrap();
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        assert_eq!((sum(&rsdp[..20]), sum(&rsdp)), (0, 0));
        let xsdt = table(&memory, u64::from_le_bytes(rsdp[24..32].try_into().unwrap()));
        assert_eq!((&xsdt[..4], sum(&xsdt)), (b"XSDT".as_slice(), 0));
        let entries: Vec<u64> = xsdt[36..]
            .chunks(8)
            .map(|entry| u64::from_le_bytes(entry.try_into().unwrap()))
            .collect();
        let fadt = table(&memory, entries[0]);
        let madt = table(&memory, entries[1]);
        assert_eq!((&fadt[..4], sum(&fadt)), (b"FACP".as_slice(), 0));
        assert_eq!((&madt[..4], sum(&madt)), (b"APIC".as_slice(), 0));
        // 44 bytes of header, 12 of I/O APIC, 8 for each processor.
        assert_eq!(madt.len(), 44 + 12 + 4 * 8);
        let dsdt = table(&memory, u64::from_le_bytes(fadt[140..148].try_into().unwrap()));
        assert_eq!((&dsdt[..4], sum(&dsdt)), (b"DSDT".as_slice(), 0));
        assert_eq!(dsdt.windows(8).filter(|window| *window == b"LNRO0005").count(), 2);
    }

    #[test]
    fn the_serial_port_is_told_of_only_where_there_is_one() {
        let has_com1 = |serial| {
            let body = Bytestream::of(&dsdt(1, serial));
            body.windows(4).any(|window| window == b"COM1")
        };
        assert!(has_com1(true));
        assert!(!has_com1(false));
    }
}
