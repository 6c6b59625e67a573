//! Packets of any shape, in both directions.

use std::os::unix::net::UnixDatagram;

use vm_memory::{Bytes, GuestAddress};

use super::driver::{Driver, NEXT, Settled, WRITE};
use super::input::Input;
use crate::devices::virtio::net::{Net, NetOptions, Tap};

/// The queues (virtio 1.2, 5.1.2).
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Steps of a run.
const STEPS: usize = 24;

/// Packets from the guest, buffers for it, and packets from the host: a byte says which.
pub fn net(data: &[u8]) {
    let mut input = Input::new(data);
    let (host, tap) = UnixDatagram::pair().unwrap();
    host.set_nonblocking(true).unwrap();
    let mtu = (input.u8() & 1 == 0).then_some(1500);
    let options = NetOptions { mac: Some([2, 0, 0, 0, 0, 1]), mtu, ..NetOptions::default() };
    let mut driver = Driver::new(Box::new(Net::new(Tap::fake(tap), &options).unwrap()));
    let features = driver.offered() & input.u32();
    driver.start(features);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        if !step(&mut driver, &host, &mut input) {
            break;
        }
    }
    driver.kick(TRANSMIT);
    driver.settle(TRANSMIT);
    driver.reset();
}

/// False if the device asked for a reset.
fn step(driver: &mut Driver, host: &UnixDatagram, input: &mut Input<'_>) -> bool {
    let what = input.u8();
    match what & 3 {
        0 => {
            let length = usize::from(input.u8());
            let bytes = input.bytes(length);
            let at = driver.buffer(0x400);
            driver.memory.write_slice(bytes, GuestAddress(at)).unwrap();
            let said = if what & 4 == 0 { u32::try_from(length).unwrap() } else { input.u32() };
            let split = said.min(u32::from(what >> 3));
            let second =
                (at + u64::from(split), said - split, u16::from(what & 0x80 != 0) * WRITE, 0);
            driver.push(TRANSMIT, &[(at, split, NEXT, 0), second]);
        }
        1 => {
            let room = u32::from(input.u16());
            let at = driver.buffer(u64::from(room));
            driver
                .push(RECEIVE, &[(at, room / 2, NEXT | WRITE, 0), (at, room - room / 2, WRITE, 0)]);
            driver.kick(RECEIVE);
        }
        2 => {
            let length = usize::from(input.u8());
            let packet = [&[0; 12], input.bytes(length)].concat();
            let _ = host.send(&packet);
            let _ = host.recv(&mut [0; 4096]);
        }
        _ => {
            driver.kick(TRANSMIT);
            return driver.settle(TRANSMIT) == Settled::Used;
        }
    }
    true
}
