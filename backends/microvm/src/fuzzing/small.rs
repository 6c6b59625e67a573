//! The devices with little in them: entropy, console, balloon.

use vm_memory::{Bytes, GuestAddress};

use super::driver::{Descriptor, Driver, NEXT, Settled, WRITE};
use super::input::Input;
use crate::devices::virtio::Device;
use crate::devices::virtio::balloon::Balloon;
use crate::devices::virtio::console::Console;
use crate::devices::virtio::rng::Rng;

/// The most chains of a run.
const CHAINS: usize = 16;
/// Where the configuration space begins.
const CONFIG: u64 = 0x100;

/// Chains for any queue of one of them, and writes to its configuration space. Queues whose buffers
/// the device keeps are not waited for.
pub fn small(data: &[u8]) {
    let mut input = Input::new(data);
    let which = input.u8();
    let (device, kept): (Box<dyn Device>, &[usize]) = match which % 3 {
        0 => (Box::new(Rng), &[]),
        1 => (Box::new(Console::new(Box::new(std::io::sink()), None).unwrap()), &[0]),
        _ => (Box::new(Balloon::new().unwrap()), &[2, 3]),
    };
    let mut driver = Driver::new(device);
    let features = driver.offered() & input.u32();
    driver.start(features);
    for _ in 0..CHAINS {
        if input.is_empty() {
            break;
        }
        let what = input.u8();
        if what & 0x80 != 0 {
            driver.transport.write(CONFIG + u64::from(what & 15), input.bytes(4));
            continue;
        }
        let queue = usize::from(what) % driver.queues();
        let chain = chain(&mut driver, what, &mut input);
        driver.push(queue, &chain);
        driver.kick(queue);
        if !kept.contains(&queue) && driver.settle(queue) == Settled::NeedsReset {
            break;
        }
    }
    driver.reset();
}

fn chain(driver: &mut Driver, what: u8, input: &mut Input<'_>) -> Vec<Descriptor> {
    let shape = input.u8();
    let bytes = input.bytes(usize::from(shape & 63));
    let at = driver.buffer(0x1000);
    driver.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    let length = if shape & 64 == 0 { u32::from(shape & 63) } else { input.u32() };
    let address = if what & 64 == 0 { at } else { input.u64() };
    let flags = if shape & 0x80 == 0 { 0 } else { WRITE };
    let first = (at, u32::from(shape & 15), NEXT | flags, 0);
    if what & 32 == 0 {
        vec![(address, length, flags, 0)]
    } else {
        vec![first, (address, length, flags, 0)]
    }
}
