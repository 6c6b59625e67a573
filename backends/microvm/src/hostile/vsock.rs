//! vsock headers that lie: wrong lengths, ids, ports, operations, and credit that nobody has.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use vm_memory::{Bytes, GuestAddress};

use super::ends;
use crate::devices::virtio::vsock::{AGENT_PORT, Vsock};
use crate::fuzzing::driver::{Driver, Settled, WRITE, memory};

/// The queues (virtio 1.2, 5.10.2).
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Operations (5.10.6).
const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const DATA: u16 = 5;
const CREDIT: u16 = 6;
/// Bytes of a header.
const HEADER: usize = 44;

/// A packet's header as the driver writes it.
#[derive(Debug, Clone, Copy)]
struct Header {
    from: u64,
    to: u64,
    port: u32,
    length: u32,
    kind: u16,
    operation: u16,
    allocated: u32,
    forwarded: u32,
}

impl Header {
    fn honest(operation: u16, length: u32) -> Self {
        let (from, to, kind, allocated, forwarded) = (3, 2, 1, 1 << 16, 0);
        Self { from, to, port: AGENT_PORT, length, kind, operation, allocated, forwarded }
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = [self.from.to_le_bytes(), self.to.to_le_bytes()].concat();
        for word in [1000, self.port, self.length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([self.kind.to_le_bytes(), self.operation.to_le_bytes()].concat());
        for word in [0, self.allocated, self.forwarded] {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }
}

/// A device whose driver has given it room for 32 packets, and the host's end of the agent.
fn device() -> (Driver, UnixStream, Vec<u64>) {
    let (host, agent) = UnixStream::pair().unwrap();
    host.set_nonblocking(true).unwrap();
    let mut driver = Driver::with_memory(Box::new(Vsock::new(agent.into()).unwrap()), memory());
    let rooms = start(&mut driver);
    (driver, host, rooms)
}

fn start(driver: &mut Driver) -> Vec<u64> {
    driver.start(0);
    (0..32)
        .map(|_| {
            let at = driver.buffer(0x1000);
            driver.push(RECEIVE, &[(at, 0x1000, WRITE, 0)]);
            at
        })
        .collect()
}

fn send(driver: &mut Driver, header: Header, payload: &[u8]) -> Settled {
    let bytes = [header.bytes(), payload.to_vec()].concat();
    let at = driver.buffer(u64::try_from(bytes.len()).unwrap());
    driver.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    driver.push(TRANSMIT, &[(at, u32::try_from(bytes.len()).unwrap(), 0, 0)]);
    driver.kick(TRANSMIT);
    driver.settle(TRANSMIT)
}

/// The operation of the packet that the guest gets as its `nth`, once it is there.
fn received(driver: &Driver, rooms: &[u64], nth: u16) -> u16 {
    let waits = std::time::Instant::now();
    while driver.used_index(RECEIVE) <= nth {
        assert!(waits.elapsed().as_secs() < 30, "packet {nth} does not come");
        std::thread::sleep(std::time::Duration::from_micros(100));
    }
    let at = rooms[usize::from(nth)];
    driver.memory.read_obj(GuestAddress(at + 30)).unwrap()
}

#[test]
fn packets_without_their_bytes_ask_for_a_reset() {
    for (length, payload) in [(1, 0), (100, 99), (1 << 16, 10), ((1 << 16) + 1, 10), (u32::MAX, 0)]
    {
        ends(move || {
            let (mut driver, ..) = device();
            let settled = send(&mut driver, Header::honest(DATA, length), &vec![0; payload]);
            assert_eq!(settled, Settled::NeedsReset, "{length} said, {payload} there");
            driver.reset();
            let rooms = start(&mut driver);
            assert_eq!(send(&mut driver, Header::honest(REQUEST, 0), &[]), Settled::Used);
            assert_eq!(received(&driver, &rooms, 0), RESPONSE);
        });
    }
}

#[test]
fn half_a_header_asks_for_a_reset() {
    for length in [0, 1, HEADER - 1] {
        ends(move || {
            let (mut driver, ..) = device();
            let at = driver.buffer(64);
            driver.push(TRANSMIT, &[(at, u32::try_from(length).unwrap(), 0, 0)]);
            driver.kick(TRANSMIT);
            assert_eq!(driver.settle(TRANSMIT), Settled::NeedsReset);
        });
    }
}

#[test]
fn packets_that_are_for_nobody_are_reset_and_resets_are_not() {
    ends(|| {
        let (mut driver, mut host, rooms) = device();
        let honest = Header::honest(REQUEST, 0);
        let wrong = [
            Header { from: 4, ..honest },
            Header { to: 3, ..honest },
            Header { to: u64::MAX, from: u64::MAX, ..honest },
            Header { port: 7, ..honest },
            Header { kind: 2, ..honest },
            Header { operation: 0, ..honest },
            Header { operation: 77, ..honest },
            Header { operation: DATA, ..honest },
            Header { operation: CREDIT, ..honest },
        ];
        for (nth, header) in (0u16..).zip(wrong) {
            assert_eq!(
                send(&mut driver, Header { operation: RESET, ..header }, &[]),
                Settled::Used
            );
            assert_eq!(send(&mut driver, header, &[]), Settled::Used);
            assert_eq!(received(&driver, &rooms, nth), RESET, "{header:?}");
        }
        assert!(host.read(&mut [0; 16]).is_err(), "nothing reached the host");
        // The honest one is still taken.
        assert_eq!(send(&mut driver, honest, &[]), Settled::Used);
        assert_eq!(received(&driver, &rooms, 9), RESPONSE);
    });
}

#[test]
fn bytes_beyond_the_credit_end_the_stream_and_not_the_device() {
    ends(|| {
        let (mut driver, host, rooms) = device();
        send(&mut driver, Header::honest(REQUEST, 0), &[]);
        assert_eq!(received(&driver, &rooms, 0), RESPONSE);
        // The host takes nothing: what the device keeps for it has an end.
        let payload = vec![0x77; 32 << 10];
        let mut reset = false;
        for _ in 0..64 {
            let header = Header::honest(DATA, 32 << 10);
            assert_eq!(send(&mut driver, header, &payload), Settled::Used);
            reset |= (1..driver.used_index(RECEIVE)).any(|n| received(&driver, &rooms, n) == RESET);
        }
        assert!(reset, "two megabytes against a buffer of a quarter");
        drop(host);
    });
}

#[test]
fn credit_that_nobody_has_gets_no_bytes() {
    ends(|| {
        let (mut driver, mut host, rooms) = device();
        // Ten bytes of room; then a claim to have taken more than was ever sent.
        let request = Header { allocated: 10, ..Header::honest(REQUEST, 0) };
        send(&mut driver, request, &[]);
        assert_eq!(received(&driver, &rooms, 0), RESPONSE);
        host.write_all(&[1; 5000]).unwrap();
        assert_eq!(received(&driver, &rooms, 1), DATA);
        let length: u32 = driver.memory.read_obj(GuestAddress(rooms[1] + 24)).unwrap();
        assert_eq!(length, 10);
        for (allocated, forwarded) in [(10, 0), (0, u32::MAX), (10, 1 << 31)] {
            let header = Header { allocated, forwarded, ..Header::honest(CREDIT, 0) };
            assert_eq!(send(&mut driver, header, &[]), Settled::Used);
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(driver.used_index(RECEIVE), 2, "bytes that there is no room for");
    });
}

#[test]
fn a_room_too_small_for_a_header_asks_for_a_reset() {
    for room in [0, 1, 43] {
        ends(move || {
            let (_host, agent) = UnixStream::pair().unwrap();
            let mut driver =
                Driver::with_memory(Box::new(Vsock::new(agent.into()).unwrap()), memory());
            driver.start(0);
            driver.push(RECEIVE, &[(0x8000, room, WRITE, 0)]);
            driver.kick(RECEIVE);
            send(&mut driver, Header::honest(REQUEST, 0), &[]);
            driver.fails();
        });
    }
}
