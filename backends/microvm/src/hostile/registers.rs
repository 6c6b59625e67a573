//! Registers and configuration spaces by every width at every offset, and ports likewise.

use std::io;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::boot::layout;
use crate::devices::bus::{Bus, Request};
use crate::devices::serial::{Com1, Line};
use crate::devices::virtio::Device;
use crate::devices::virtio::balloon::Balloon;
use crate::devices::virtio::blk::{Disk, DiskOptions};
use crate::devices::virtio::console::Console;
use crate::devices::virtio::mmio::Transport;
use crate::devices::virtio::net::{Net, NetOptions, Tap};
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::vsock::Vsock;
use crate::fuzzing::driver::{Driver, memory, register};
use crate::fuzzing::files::scratch;
use crate::fuzzing::fs::Surroundings;

/// Every device that a machine can have.
pub(super) fn devices(around: &Surroundings) -> Vec<Box<dyn Device>> {
    let (agent, _) = UnixStream::pair().unwrap();
    let (tap, _) = UnixDatagram::pair().unwrap();
    let disk = Disk::new(scratch(&[0; 4096]), &DiskOptions::default()).unwrap();
    let net = Net::new(Tap::fake(tap), &NetOptions::default()).unwrap();
    vec![
        Box::new(around.device()),
        Box::new(Vsock::new(agent.into()).unwrap()),
        Box::new(disk),
        Box::new(net),
        Box::new(Rng),
        Box::new(Console::new(Box::new(io::sink()), None).unwrap()),
        Box::new(Balloon::new().unwrap()),
    ]
}

/// Where a device's page is looked at: registers, configuration space, and its last bytes.
fn offsets() -> impl Iterator<Item = u64> {
    (0..0x240).chain(0xff0..0x1000)
}

/// What can't change by any write: magic, version, device, vendor.
fn identity(driver: &Driver) -> [u32; 4] {
    [0, 4, 8, 12].map(|offset| driver.read(offset))
}

#[test]
fn reads_of_every_width_stay_in_their_bytes() {
    let around = Surroundings::new();
    for device in devices(&around) {
        let driver = Driver::new(device);
        for offset in offsets() {
            for width in 0..=8 {
                let mut bytes = [0x5a; 10];
                driver.transport.read(offset, &mut bytes[1..=width]);
                assert_eq!((bytes[0], bytes[width + 1]), (0x5a, 0x5a), "{width} at {offset:#x}");
                // All registers are four bytes wide and aligned (4.2.2.2).
                if offset < 0x100 && (width != 4 || offset % 4 != 0) {
                    assert!(bytes[1..=width].iter().all(|byte| *byte == 0), "{width}, {offset:#x}");
                }
            }
        }
        assert_eq!(identity(&driver)[..2], [0x7472_6976, 2]);
    }
}

#[test]
fn writes_of_every_width_leave_a_device_that_resets() {
    let around = Surroundings::new();
    for device in devices(&around) {
        let mut driver = Driver::new(device);
        let before = identity(&driver);
        for value in [0x00, 0x01, 0x0f, 0xff] {
            for offset in offsets() {
                for width in 0..=8 {
                    driver.transport.write(offset, &[value; 8][..width]);
                    let narrow = width != 4 && offset <= register::STATUS + 4;
                    let status = driver.status();
                    driver.transport.write(offset, &[value; 8][..width]);
                    assert!(!narrow || driver.status() == status, "{width} at {offset:#x}");
                }
            }
            assert_eq!(identity(&driver), before);
            driver.reset();
            driver.start(0);
            assert_eq!(driver.status(), 15, "after {value:#x}");
        }
    }
}

#[test]
fn a_machine_answers_at_every_address_and_port() {
    let around = Surroundings::new();
    let line = || EventFd::new(EFD_NONBLOCK).unwrap();
    let transports: Vec<_> = devices(&around)
        .into_iter()
        .map(|device| Transport::new(device, memory(), line(), crate::jail::leave_free).unwrap())
        .collect();
    let pages = u64::try_from(transports.len()).unwrap();
    let com1 = Com1::new(Line(line()), Box::new(io::sink())).unwrap();
    let bus = Bus::new(Some(Arc::new(Mutex::new(com1))), transports);
    let end = layout::VIRTIO_MMIO + pages * layout::VIRTIO_MMIO_SIZE;
    let around_pages = [0, layout::VIRTIO_MMIO - 8, end, end + 0x1000, u64::MAX];
    let pages = (0..pages).map(|page| layout::VIRTIO_MMIO + page * layout::VIRTIO_MMIO_SIZE);
    for address in pages.flat_map(|page| offsets().map(move |at| page + at)).chain(around_pages) {
        for width in [1, 2, 4, 8] {
            let mut bytes = [0; 8];
            bus.mmio_read(address, &mut bytes[..width]);
            bus.mmio_write(address, &[0xff; 8][..width]);
            if !(layout::VIRTIO_MMIO..end).contains(&address) {
                assert!(bytes[..width].iter().all(|byte| *byte == 0xff), "{address:#x}");
            }
        }
    }
    for port in 0..=u16::MAX {
        for width in [1, 2, 4, 4096] {
            bus.port_read(port, &mut vec![0; width]);
            assert_eq!(bus.port_write(port, &vec![0; width]), Request::None, "{port:#x}");
        }
    }
    // The serial port in loopback takes what it has room for.
    bus.port_write(layout::COM1_PORT + 4, &[0x10]);
    bus.port_write(layout::COM1_PORT, &[b'x'; 4096]);
    assert_eq!(bus.port_write(layout::RESET_PORT, &[layout::RESET_VALUE]), Request::Reset);
    assert_eq!(bus.port_write(layout::SLEEP_PORT, &[layout::SLEEP_S5]), Request::PowerOff);
    bus.stop();
}
