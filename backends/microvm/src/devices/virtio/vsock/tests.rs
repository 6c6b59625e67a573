//! Streams against a model: whatever a guest sends, no byte is lost, doubled or invented, no buffer
//! outgrows its bound, and nothing panics.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::rc::Rc;

use proptest::prelude::*;

use super::packet::{Header, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, STREAM, op};
use super::stream::HostEnd;
use super::table::{BUFFER, GUEST_CID, HOST_CID, MAX_REFUSALS, MAX_STREAMS, Sought, Table};

mod many;
mod rings;

const PORT: u32 = 1024;

const GUEST_PORT: u32 = 5000;
const GUEST_BUFFER: u32 = 64 << 10;

/// A host socket made of buffers.
#[derive(Debug, Default)]
struct Fake {
    /// What the guest's data became.
    received: Vec<u8>,
    /// What is there to be sent to the guest.
    to_send: VecDeque<u8>,
    /// Bytes that `write` takes before it would block.
    takes: usize,
    /// The host has said all.
    ended: bool,
    /// The host has hung up: writes fail.
    gone: bool,
    finished: bool,
    closed: bool,
}

#[derive(Debug, Clone, Default)]
struct Host(Rc<RefCell<Fake>>);

impl Read for Host {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut fake = self.0.borrow_mut();
        if fake.to_send.is_empty() {
            return if fake.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        fake.to_send.read(room)
    }
}

impl Write for Host {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut fake = self.0.borrow_mut();
        if fake.gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let length = bytes.len().min(fake.takes);
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        fake.takes -= length;
        fake.received.extend(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl HostEnd for Host {
    fn finish(&mut self) {
        self.0.borrow_mut().finished = true;
    }

    fn close(&mut self) {
        self.0.borrow_mut().closed = true;
    }
}

fn packet(op: u16) -> Header {
    Header {
        src_cid: GUEST_CID,
        dst_cid: HOST_CID,
        src_port: GUEST_PORT,
        dst_port: PORT,
        kind: STREAM,
        op,
        buf_alloc: GUEST_BUFFER,
        ..Default::default()
    }
}

/// A table with one stream of interest, and its host.
struct One {
    table: Table<Host>,
    host: Host,
    id: u64,
}

impl One {
    /// Not yet asked for.
    fn waiting() -> Self {
        Self { table: Table::new(0), host: Host::default(), id: 0 }
    }

    fn open() -> Self {
        let mut one = Self::waiting();
        one.receive(&packet(op::REQUEST), &[]);
        let answer = one.drain();
        assert_eq!(ops(&answer), [op::RESPONSE]);
        assert_eq!((answer[0].0.buf_alloc, answer[0].0.dst_port), (BUFFER, GUEST_PORT));
        one
    }

    /// The first stream to our port leads to the host, and no other.
    fn receive(&mut self, header: &Header, payload: &[u8]) {
        if let Some(Sought { id, port }) = self.table.receive(header, payload) {
            let first = port == PORT && self.id == 0;
            self.id = if first { id } else { self.id };
            self.table.found(id, first.then(|| self.host.clone()), BUFFER);
        }
    }

    fn deliver(&mut self) {
        self.table.host_is_ready(self.id, false);
    }

    fn drain(&mut self) -> Vec<(Header, Vec<u8>)> {
        drain(&mut self.table)
    }
}

fn drain(table: &mut Table<Host>) -> Vec<(Header, Vec<u8>)> {
    let mut room = [0; 4096];
    std::iter::from_fn(|| {
        table.next(&mut room).map(|(header, length)| (header, room[..length].to_vec()))
    })
    .collect()
}

fn ops(packets: &[(Header, Vec<u8>)]) -> Vec<u16> {
    packets.iter().map(|(header, _)| header.op).collect()
}

#[test]
fn other_ports_second_streams_and_strange_packets_get_a_reset() {
    let mut one = One::open();
    for strange in [
        Header { dst_port: 22, ..packet(op::REQUEST) },
        Header { src_port: 1, ..packet(op::REQUEST) },
        Header { src_port: 1, ..packet(op::RW) },
        Header { kind: 2, ..packet(op::RW) },
        Header { dst_cid: 7, ..packet(op::REQUEST) },
    ] {
        one.receive(&strange, &[]);
        let answer = one.drain();
        assert_eq!(ops(&answer), [op::RST], "{strange:?}");
        let header = answer[0].0;
        assert_eq!((header.dst_port, header.src_port), (strange.src_port, strange.dst_port));
    }
    // The stream itself lives on; and a reset is not answered.
    one.receive(&Header { src_port: 1, ..packet(op::RST) }, &[]);
    assert!(one.drain().is_empty());
    one.host.0.borrow_mut().takes = 10;
    one.receive(&Header { len: 2, ..packet(op::RW) }, b"ok");
    one.deliver();
    assert_eq!(one.host.0.borrow().received, b"ok");
}

#[test]
fn refusals_are_bounded() {
    let mut one = One::waiting();
    for port in 0..10_000 {
        let request = Header { src_port: port, dst_port: 1, ..packet(op::REQUEST) };
        one.receive(&request, &[]);
    }
    assert_eq!(one.drain().len(), MAX_STREAMS + MAX_REFUSALS);
}

#[test]
fn more_than_the_announced_space_is_a_broken_rule() {
    let mut one = One::open();
    let block = vec![7; BUFFER as usize];
    one.receive(&packet(op::RW), &block);
    assert!(!one.host.0.borrow().closed);
    one.receive(&packet(op::RW), &[7]);
    assert!(one.host.0.borrow().closed);
    assert_eq!(ops(&one.drain()), [op::RST]);
}

#[test]
fn a_guest_that_closes_has_its_last_bytes_delivered_first() {
    let mut one = One::open();
    one.receive(&packet(op::RW), b"last words");
    let both = Header { flags: SHUTDOWN_RECEIVE | SHUTDOWN_SEND, ..packet(op::SHUTDOWN) };
    one.receive(&both, &[]);
    one.deliver();
    assert!(one.drain().is_empty());
    one.host.0.borrow_mut().takes = 100;
    one.deliver();
    assert_eq!(one.host.0.borrow().received, b"last words");
    assert!(one.host.0.borrow().finished);
    assert_eq!(ops(&one.drain()), [op::RST]);
    assert!(one.host.0.borrow().closed);
}

#[test]
fn a_host_that_hangs_up_is_still_heard_to_its_end() {
    let mut one = One::open();
    {
        let mut fake = one.host.0.borrow_mut();
        fake.to_send.extend(b"bye");
        (fake.gone, fake.ended) = (true, true);
    }
    one.receive(&packet(op::RW), b"lost");
    one.deliver();
    let answer = one.drain();
    assert_eq!(ops(&answer), [op::SHUTDOWN, op::RW, op::SHUTDOWN, op::RST]);
    assert_eq!(answer[0].0.flags, SHUTDOWN_RECEIVE);
    assert_eq!(answer[1].1, b"bye");
    assert_eq!(answer[2].0.flags, SHUTDOWN_RECEIVE | SHUTDOWN_SEND);
}

#[test]
fn nothing_is_sent_beyond_the_guests_buffer() {
    let mut one = One::open();
    one.host.0.borrow_mut().to_send.extend(vec![1; GUEST_BUFFER as usize + 5]);
    one.deliver();
    let sent: usize = one.drain().iter().map(|(_, data)| data.len()).sum();
    assert_eq!(sent, GUEST_BUFFER as usize);
    assert!(one.drain().is_empty());
    one.receive(&Header { fwd_cnt: 3, ..packet(op::CREDIT_UPDATE) }, &[]);
    let sent: usize = one.drain().iter().map(|(_, data)| data.len()).sum();
    assert_eq!(sent, 3);
    // A guest that claims more than it got is given nothing.
    one.receive(&Header { fwd_cnt: u32::MAX, ..packet(op::CREDIT_UPDATE) }, &[]);
    assert!(one.drain().is_empty());
}

/// One thing that happens to an open stream.
#[derive(Debug, Clone)]
enum Step {
    GuestSends(u16),
    GuestTakes(u32),
    HostSends(u16),
    HostTakes(u16),
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<u16>().prop_map(Step::GuestSends),
        (0..40_000u32).prop_map(Step::GuestTakes),
        any::<u16>().prop_map(Step::HostSends),
        any::<u16>().prop_map(Step::HostTakes),
        Just(Step::Drain),
    ]
}

/// A counter as the wire has it.
fn wrap(count: u64) -> u32 {
    u32::try_from(count & 0xffff_ffff).unwrap()
}

fn pattern(from: u64, length: usize) -> Vec<u8> {
    (from..).take(length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

proptest! {
    /// An honest guest and an honest host, each slow or fast as it likes: all bytes arrive, in
    /// order, both ways, and neither side's announced buffer is ever exceeded.
    #[test]
    fn honest_streams_arrive_whole(steps in proptest::collection::vec(step(), 1..200)) {
        let mut one = One::open();
        // The guest's view: sent, and what it knows the host to have taken; received and taken.
        let (mut sent, mut known, mut received, mut taken) = (0u64, 0u32, 0u64, 0u64);
        let mut host_sent = 0u64;
        for step in steps.into_iter().chain([Step::Drain]) {
            match step {
                Step::GuestSends(length) => {
                    let under_way = wrap(sent).wrapping_sub(known);
                    let length = usize::from(length).min((BUFFER - under_way) as usize);
                    let data = pattern(sent, length);
                    let header = Header { fwd_cnt: wrap(taken), ..packet(op::RW) };
                    one.receive(&header, &data);
                    sent += length as u64;
                }
                Step::GuestTakes(length) => {
                    taken = received.min(taken + u64::from(length));
                    let header = Header { fwd_cnt: wrap(taken), ..packet(op::CREDIT_UPDATE) };
                    one.receive(&header, &[]);
                }
                Step::HostSends(length) => {
                    one.host.0.borrow_mut().to_send.extend(pattern(host_sent, length.into()));
                    host_sent += u64::from(length);
                    one.deliver();
                }
                Step::HostTakes(length) => {
                    one.host.0.borrow_mut().takes += usize::from(length);
                    one.deliver();
                }
                Step::Drain => {
                    for (header, data) in one.drain() {
                        prop_assert_ne!(header.op, op::RST);
                        prop_assert_eq!(&data, &pattern(received, data.len()));
                        received += data.len() as u64;
                        known = header.fwd_cnt;
                        prop_assert!(received - taken <= u64::from(GUEST_BUFFER));
                    }
                }
            }
        }
        // Let both ends take all that is left.
        one.host.0.borrow_mut().takes = usize::MAX;
        one.deliver();
        while received < host_sent {
            taken = received;
            let header = Header { fwd_cnt: wrap(taken), ..packet(op::CREDIT_UPDATE) };
            one.receive(&header, &[]);
            let packets = one.drain();
            let more: usize = packets.iter().map(|(_, data)| data.len()).sum();
            prop_assert!(more > 0, "stuck at {received} of {host_sent}");
            received += more as u64;
        }
        let fake = one.host.0.borrow();
        prop_assert_eq!(&fake.received, &pattern(0, usize::try_from(sent).unwrap()));
        prop_assert!(!fake.closed);
    }

    /// Any packets at all: no panic, and never more replies than a small bound.
    #[test]
    fn hostile_packets_do_no_harm(
        packets in proptest::collection::vec(
            (0..4u64, 0..4u64, 0..3u32, 1023..1026u32, 0..3u16, 0..9u16, any::<u32>(),
             any::<u32>(), any::<u32>(), 0..70_000usize),
            1..100,
        ),
        takes in 0..100_000usize,
    ) {
        let mut one = One::waiting();
        one.host.0.borrow_mut().takes = takes;
        one.host.0.borrow_mut().to_send.extend(vec![0; takes]);
        for (src_cid, dst_cid, src_port, dst_port, kind, op, flags, buf_alloc, fwd_cnt, length)
            in packets
        {
            let header = Header {
                src_cid, dst_cid, src_port, dst_port, kind, op, flags, buf_alloc, fwd_cnt,
                len: u32::try_from(length).unwrap(),
            };
            one.receive(&header, &vec![0; length]);
            one.deliver();
        }
        prop_assert!(one.drain().len() < MAX_REFUSALS + MAX_STREAMS + takes + 8);
    }
}
