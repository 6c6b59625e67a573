//! Disk requests of any shape.

use std::os::unix::fs::FileExt;

use vm_memory::{Bytes, GuestAddress};

use super::driver::{Driver, NEXT, WRITE};
use super::files::scratch;
use super::input::Input;
use crate::devices::virtio::blk::{Disk, DiskOptions};

/// Bytes of the disk: its last sector is not whole.
const SIZE: usize = 16 * 512 - 100;
/// The most requests of a run.
const REQUESTS: usize = 12;

/// Up to 12 requests of which each says kind, sector and how its buffers lie. The file grows by no
/// more than its last sector, and not at all where the guest may only read.
pub fn blk(data: &[u8]) {
    let mut input = Input::new(data);
    let choices = input.u8();
    let read_only = choices & 1 != 0;
    let options = DiskOptions { read_only, id: "disk".to_owned(), ..DiskOptions::default() };
    let contents: Vec<u8> = (0..=255u8).cycle().take(SIZE).collect();
    let file = scratch(&contents);
    let disk = Disk::new(file.try_clone().unwrap(), &options).unwrap();
    let mut driver = Driver::new(Box::new(disk));
    let features = driver.offered() & input.u32();
    driver.start(features);
    for _ in 0..REQUESTS {
        if input.is_empty() {
            break;
        }
        ask(&mut driver, &mut input);
    }
    driver.kick(0);
    driver.settle(0);
    driver.transport.stop();
    let after = file.metadata().unwrap().len();
    assert!(after <= u64::try_from(SIZE.next_multiple_of(512)).unwrap(), "{after}");
    if read_only {
        let mut now = vec![0; SIZE];
        file.read_exact_at(&mut now, 0).unwrap();
        assert!(now == contents && after == u64::try_from(SIZE).unwrap(), "it may only be read");
    }
}

fn ask(driver: &mut Driver, input: &mut Input<'_>) {
    let choices = input.u8();
    let mut header = u32::from(input.u8()).to_le_bytes().to_vec();
    header.extend(input.bytes(4));
    let sector = if choices & 1 == 0 { input.u8().into() } else { input.u64() };
    header.extend(sector.to_le_bytes());
    let body = input.bytes(usize::from(input.clone().u8()));
    let at = driver.buffer(0x1000);
    driver.memory.write_slice(&header, GuestAddress(at)).unwrap();
    driver.memory.write_slice(body, GuestAddress(at + 0x100)).unwrap();
    let length = [512, u32::from(input.u16()), 1024, 0][usize::from(choices >> 1 & 3)];
    let said = if choices & 8 == 0 { 16 } else { u32::try_from(header.len()).unwrap() };
    let data = if choices & 16 == 0 { 0 } else { WRITE };
    let chain = [
        (at, said, NEXT, 0),
        (at + 0x100, length, NEXT | data, 0),
        (at + 0x200, length / 2, NEXT | data, 0),
        (at + 0xff0, u32::from(choices & 32 == 0), WRITE, 0),
    ];
    // None of them is missing in a quarter of the requests, else one of the last three.
    let missing = usize::from(choices >> 6);
    let kept = chain.into_iter().enumerate().filter(|(nth, _)| missing == 0 || *nth != missing);
    let kept: Vec<_> = kept.map(|(_, descriptor)| descriptor).collect();
    driver.push(0, &kept);
}
