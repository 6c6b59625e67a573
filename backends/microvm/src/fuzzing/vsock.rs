//! vsock packets that lie, and a host that reads and writes in between.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use vm_memory::{Bytes, GuestAddress};

use super::driver::{Driver, NEXT, Settled, WRITE};
use super::input::Input;
use crate::devices::virtio::vsock::{AGENT_PORT, Vsock};

/// The queues (virtio 1.2, 5.10.2).
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Steps of a run: no more than a queue has room for.
const STEPS: usize = 24;

/// Packets from the guest, buffers for it, and what the host does: a byte says which.
pub fn vsock(data: &[u8]) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut driver = Driver::new(Box::new(Vsock::new(theirs.into()).unwrap()));
    driver.start(0);
    let mut input = Input::new(data);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        if !step(&mut driver, &ours, &mut input) {
            break;
        }
    }
    driver.kick(TRANSMIT);
    driver.settle(TRANSMIT);
    driver.reset();
}

/// False if the device asked for a reset.
fn step(driver: &mut Driver, mut host: &UnixStream, input: &mut Input<'_>) -> bool {
    let what = input.u8();
    match what & 7 {
        0..=3 => packet(driver, input, what),
        4 => {
            let room = u32::from(input.u16());
            let at = driver.buffer(u64::from(room));
            driver.push(RECEIVE, &[(at, room, WRITE, 0)]);
            driver.kick(RECEIVE);
        }
        5 => {
            let _ = host.write(input.bytes(usize::from(what >> 3)));
        }
        6 => {
            let _ = host.read(&mut [0; 4096]);
        }
        _ if what & 0x78 == 0 => {
            let _ = host.shutdown(if what & 0x80 == 0 { Shutdown::Read } else { Shutdown::Write });
        }
        _ => {
            driver.kick(TRANSMIT);
            return driver.settle(TRANSMIT) == Settled::Used;
        }
    }
    true
}

fn packet(driver: &mut Driver, input: &mut Input<'_>, what: u8) {
    let port = if what & 0x10 == 0 { AGENT_PORT } else { input.u32() };
    let length = usize::from(input.u8());
    let (operation, flags) = (u16::from(input.u8()), u32::from(input.u8()));
    let (allocated, forwarded) = (input.u32(), input.u32());
    let payload = input.bytes(length);
    let said = if what & 0x20 == 0 { u32::try_from(payload.len()).unwrap() } else { input.u32() };
    let mut bytes = Vec::new();
    bytes.extend(if what & 0x40 == 0 { 3u64 } else { input.u64() }.to_le_bytes());
    bytes.extend(2u64.to_le_bytes());
    bytes.extend((u32::from(what & 8) + 1000).to_le_bytes());
    bytes.extend(port.to_le_bytes());
    bytes.extend(said.to_le_bytes());
    bytes.extend(if what & 0x80 == 0 { 1u16 } else { input.u16() }.to_le_bytes());
    bytes.extend(operation.to_le_bytes());
    for field in [flags, allocated, forwarded] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(payload);
    let at = driver.buffer(0x200);
    driver.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    let size = u32::try_from(bytes.len()).unwrap();
    let split = size.min(u32::from(what & 7) * 22);
    driver.push(TRANSMIT, &[(at, split, NEXT, 0), (at + u64::from(split), size - split, 0, 0)]);
}
