//! The console over raw queue memory.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use super::*;
use crate::devices::virtio::rig::{Buffer, Rig};

/// A sink that can be looked into.
#[derive(Debug, Default, Clone)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

const INPUT: usize = 0;
const OUTPUT: usize = 1;

fn console(input: Option<OwnedFd>) -> (Rig, Screen, Arc<Resizer>) {
    let screen = Screen::default();
    let console = Console::new(Box::new(screen.clone()), input).unwrap();
    let resizer = console.resizer();
    (Rig::new(Box::new(console)), screen, resizer)
}

#[test]
fn what_the_guest_writes_is_on_the_screen_before_its_buffer_comes_back() {
    let (mut rig, screen, _) = console(None);
    rig.start(1);
    rig.put(OUTPUT, &[Buffer::Bytes(b"hello, "), Buffer::Bytes(b"world")]);
    rig.kick(OUTPUT);
    rig.used(OUTPUT, 1);
    assert_eq!(*screen.0.lock().unwrap(), b"hello, world");
    let long = vec![b'x'; 10_000];
    for _ in 0..5 {
        rig.put(OUTPUT, &[Buffer::Bytes(&long)]);
    }
    rig.kick(OUTPUT);
    rig.used(OUTPUT, 5);
    assert_eq!(screen.0.lock().unwrap().len(), 12 + 50_000);
}

#[test]
fn a_screen_that_is_full_or_gone_stops_nobody() {
    let mut rig = Rig::new(Box::new(Console::new(Box::new(Full), None).unwrap()));
    rig.start(0);
    for _ in 0..3 {
        rig.put(OUTPUT, &[Buffer::Bytes(b"lost")]);
        rig.kick(OUTPUT);
        rig.used(OUTPUT, 1);
    }
}

#[test]
fn last_words_reach_the_screen_though_the_machine_stops() {
    let (mut rig, screen, _) = console(None);
    rig.start(0);
    rig.put(OUTPUT, &[Buffer::Bytes(b"panic")]);
    rig.transport.stop();
    assert_eq!(*screen.0.lock().unwrap(), b"panic");
}

#[test]
fn input_waits_for_buffers_and_arrives_whole() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut rig, ..) = console(Some(theirs.into()));
    rig.start(0);
    let text: Vec<u8> = (0..20_000u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    (&ours).write_all(&text).unwrap();
    let mut got = Vec::new();
    while got.len() < text.len() {
        rig.put(INPUT, &[Buffer::Room(1000), Buffer::Room(24)]);
        rig.kick(INPUT);
        got.extend(rig.used(INPUT, 1).remove(0));
    }
    assert_eq!(got, text);
    // Buffers first, then input; then the input ends, which costs the guest no buffer.
    rig.put(INPUT, &[Buffer::Room(10)]);
    rig.kick(INPUT);
    (&ours).write_all(b"later").unwrap();
    assert_eq!(rig.used(INPUT, 1), [b"later"]);
    rig.put(INPUT, &[Buffer::Room(10)]);
    drop(ours);
    rig.put(OUTPUT, &[Buffer::Bytes(b"still there")]);
    rig.kick(OUTPUT);
    rig.used(OUTPUT, 1);
    assert_eq!(rig.waiting(INPUT), 0);
}

#[test]
fn a_file_is_read_to_its_end_though_epoll_takes_none() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 300]).unwrap();
    io::Seek::rewind(&mut file).unwrap();
    let (mut rig, ..) = console(Some(file.into()));
    rig.start(0);
    let mut got = Vec::new();
    while got.len() < 300 {
        rig.put(INPUT, &[Buffer::Room(1)]);
        rig.put(INPUT, &[Buffer::Room(0), Buffer::Room(2)]);
        rig.kick(INPUT);
        got.extend(rig.used(INPUT, 2).concat());
    }
    assert_eq!(got, [7; 300]);
}

#[test]
fn more_input_than_a_batch_is_not_forgotten() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 200]).unwrap();
    io::Seek::rewind(&mut file).unwrap();
    let (mut rig, ..) = console(Some(file.into()));
    rig.start(0);
    // All of the ring at once, one byte each, again and again.
    for _ in 0..3 {
        (0..64).for_each(|_| rig.put(INPUT, &[Buffer::Room(1)]));
        rig.kick(INPUT);
        rig.used(INPUT, 64);
    }
}

#[test]
fn a_size_is_told_with_an_interrupt_and_a_new_generation() {
    let (mut rig, _, resizer) = console(None);
    resizer.resize(80, 25).unwrap();
    rig.start(1);
    rig.until(|rig| rig.register(0x100) == 80 | 25 << 16);
    let generation = rig.register(0xfc);
    rig.until(|rig| rig.register(0x60) & 2 != 0);
    assert!(rig.interrupted());
    rig.write(0x64, 2);
    resizer.resize(132, 43).unwrap();
    rig.until(|rig| rig.register(0x100) == 132 | 43 << 16);
    assert_ne!(rig.register(0xfc), generation);
    // The driver may not write it.
    rig.write(0x100, 0);
    rig.transport.write(0x100, &[0]);
    assert_eq!(rig.register(0x100), 132 | 43 << 16);
    // Beyond the last field there is nothing, whatever is asked for.
    assert_eq!(rig.register(0x10c), 0);
    rig.transport.read(u64::MAX, &mut [0; 8]);
}

#[test]
fn too_much_at_once_and_buffers_outside_memory_ask_for_a_reset() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (&ours).write_all(b"input").unwrap();
    let (mut rig, screen, _) = console(Some(theirs.into()));
    rig.start(0);
    let block = vec![0; 600 << 10];
    rig.put(OUTPUT, &[Buffer::Bytes(&block), Buffer::Bytes(&block)]);
    rig.kick(OUTPUT);
    rig.asks_reset();
    assert!(screen.0.lock().unwrap().is_empty());
    for address in [rig.size() - 1, u64::MAX - 2] {
        rig.start(0);
        rig.put(INPUT, &[Buffer::At(address, 64)]);
        rig.kick(INPUT);
        rig.asks_reset();
    }
    // It is as good as new after the reset.
    rig.start(0);
    rig.put(OUTPUT, &[Buffer::Bytes(b"again")]);
    rig.kick(OUTPUT);
    rig.used(OUTPUT, 1);
}
