//! The device over raw queue memory and real sockets.

use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::*;
use crate::devices::virtio::rig::{Buffer, Rig};
use crate::devices::virtio::vsock::broker::broker;
use crate::devices::virtio::vsock::callers::MAX_CALLERS;
use crate::devices::virtio::vsock::{AGENT_PORT, Ends, Vsock, packet as wire};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// A guest without an operating system, and the sockets beside it.
struct Guest {
    rig: Rig,
    dir: tempfile::TempDir,
    agent: UnixStream,
}

impl Guest {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (agent, inside) = UnixStream::pair().unwrap();
        let (outside, asker) = broker(&path).unwrap();
        thread::spawn(move || outside.serve());
        let listener = UnixListener::bind(&path).unwrap();
        let ends = Ends { agent: Some(inside), listener: Some(listener), asker: Some(asker) };
        let mut rig = Rig::new(Box::new(Vsock::new(ends).unwrap()));
        rig.start(0);
        Self { rig, dir, agent }
    }

    fn path(&self, port: u32) -> PathBuf {
        self.dir.path().join(format!("s_{port}"))
    }

    /// A client of the host's that has said this.
    fn call(&self, line: &str) -> UnixStream {
        let mut client = UnixStream::connect(self.dir.path().join("s")).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(line.as_bytes()).unwrap();
        client
    }

    fn say(&mut self, header: Header, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap();
        let bytes = Header { len: length, ..header }.to_bytes();
        self.rig.put(TRANSMIT, &[Buffer::Bytes(&bytes), Buffer::Bytes(payload)]);
        self.rig.kick(TRANSMIT);
        self.rig.used(TRANSMIT, 1);
    }

    /// What the guest is told next, for which it has this much room.
    fn hear_in(&mut self, room: u32) -> (Header, Vec<u8>) {
        self.rig.put(RECEIVE, &[Buffer::Room(44), Buffer::Room(room)]);
        self.rig.kick(RECEIVE);
        let bytes = self.rig.used(RECEIVE, 1).remove(0);
        let (header, payload) = bytes.split_first_chunk::<{ wire::SIZE }>().unwrap();
        (Header::from_bytes(header), payload.to_vec())
    }

    fn hear(&mut self) -> (Header, Vec<u8>) {
        self.hear_in(4096)
    }

    /// What the guest is sent until it is told that the stream is over.
    fn hear_to_the_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..5 {
            let (header, payload) = self.hear();
            bytes.extend(payload);
            if header.op == op::RST {
                return bytes;
            }
        }
        panic!("the stream does not end");
    }

    /// Opens a stream to a port of the host's.
    fn connect(&mut self, from: u32, port: u32) -> u16 {
        let request = Header { src_port: from, dst_port: port, ..packet(op::REQUEST) };
        self.say(request, &[]);
        let (answer, _) = self.hear();
        assert_eq!((answer.src_port, answer.dst_port), (port, from));
        answer.op
    }
}

fn to(port: u32, op: u16) -> Header {
    Header { dst_port: port, ..packet(op) }
}

fn back(to: &Header, op: u16) -> Header {
    Header { src_port: to.dst_port, dst_port: to.src_port, ..packet(op) }
}

#[test]
fn a_guest_reaches_the_hosts_sockets_by_their_ports_and_no_others() {
    let mut guest = Guest::new();
    let listener = UnixListener::bind(guest.path(52)).unwrap();
    assert_eq!(guest.connect(GUEST_PORT, 53), op::RST);
    assert_eq!(guest.connect(GUEST_PORT, 52), op::RESPONSE);
    let (mut host, _) = listener.accept().unwrap();
    guest.say(to(52, op::RW), b"from the guest");
    let mut bytes = [0; 14];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"from the guest");
    host.write_all(b"from the host").unwrap();
    assert_eq!(guest.hear().1, b"from the host");
    // The guest has finished; the host is heard to its end, and then it is over for both.
    guest.say(Header { flags: SHUTDOWN_SEND, ..to(52, op::SHUTDOWN) }, &[]);
    assert_eq!(host.read(&mut bytes).unwrap(), 0);
    host.write_all(b"the end").unwrap();
    drop(host);
    assert_eq!(guest.hear_to_the_end(), b"the end");
}

#[test]
fn the_agents_stream_is_there_once() {
    let mut guest = Guest::new();
    assert_eq!(guest.connect(1, AGENT_PORT), op::RESPONSE);
    assert_eq!(guest.connect(2, AGENT_PORT), op::RST);
    guest.agent.write_all(b"hello").unwrap();
    assert_eq!(guest.hear().1, b"hello");
    guest.say(Header { src_port: 1, ..to(AGENT_PORT, op::RST) }, &[]);
    assert_eq!(guest.agent.read(&mut [0]).unwrap(), 0);
    assert_eq!(guest.connect(1, AGENT_PORT), op::RST);
}

#[test]
fn a_client_of_the_host_reaches_the_guest_and_says_what_it_likes_at_once() {
    let mut guest = Guest::new();
    let client = guest.call("CONNECT 7\nand more");
    let (request, _) = guest.hear();
    assert_eq!((request.op, request.dst_port), (op::REQUEST, 7));
    assert!(request.src_port >= 1 << 30);
    guest.say(back(&request, op::RESPONSE), &[]);
    let mut client = BufReader::new(client);
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    assert_eq!(line, format!("OK {}\n", request.src_port));
    assert_eq!(guest.hear().1, b"and more");
    guest.say(back(&request, op::RW), b"answer");
    let mut bytes = [0; 6];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"answer");
    // It hangs up: the guest hears so without asking.
    drop(client);
    assert!(guest.hear_to_the_end().is_empty());
}

#[test]
fn clients_that_speak_nonsense_or_not_at_all_or_that_nobody_answers_are_sent_away() {
    let mut guest = Guest::new();
    let mut rest = Vec::new();
    for line in ["GET / HTTP/1.1\r\n", "CONNECT x\n", "CONNECT 11111111111111111111111111111"] {
        assert_eq!(guest.call(line).read_to_end(&mut rest).unwrap_or(0), 0, "{line}");
    }
    drop(guest.call("CONN"));
    // Refused by the guest.
    let mut refused = guest.call("CONNECT 7\n");
    let (request, _) = guest.hear();
    guest.say(back(&request, op::RST), &[]);
    assert_eq!(refused.read_to_end(&mut rest).unwrap(), 0);
    // These two are sent away by the clock.
    let mut silent = guest.call("");
    let mut unanswered = guest.call("CONNECT 7\n");
    let (request, _) = guest.hear();
    assert_eq!(silent.read_to_end(&mut rest).unwrap(), 0);
    assert_eq!(unanswered.read_to_end(&mut rest).unwrap(), 0);
    let (reset, _) = guest.hear();
    assert_eq!((reset.op, reset.src_port), (op::RST, request.src_port));
}

#[test]
fn silent_clients_keep_others_waiting_no_longer_than_they_may() {
    let mut guest = Guest::new();
    let _silent: Vec<UnixStream> = (0..MAX_CALLERS).map(|_| guest.call("")).collect();
    let mut client = guest.call("CONNECT 7\n");
    let (request, _) = guest.hear();
    guest.say(back(&request, op::RESPONSE), &[]);
    let mut ok = [0; 3];
    client.read_exact(&mut ok).unwrap();
    assert_eq!(&ok, b"OK ");
}

#[test]
fn a_guest_without_buffers_gets_all_of_it_later() {
    let mut guest = Guest::new();
    assert_eq!(guest.connect(GUEST_PORT, AGENT_PORT), op::RESPONSE);
    let text = pattern(0, 30_000);
    guest.agent.write_all(&text).unwrap();
    thread::sleep(Duration::from_millis(50));
    let mut got = Vec::new();
    while got.len() < text.len() {
        got.extend(guest.hear_in(1 + u32::try_from(got.len() % 5000).unwrap()).1);
    }
    assert_eq!(got, text);
}

#[test]
fn lying_headers_are_answered_or_end_in_a_reset_that_repairs_all() {
    let mut guest = Guest::new();
    for strange in [
        Header { src_cid: 9, ..to(52, op::REQUEST) },
        Header { dst_cid: 1, ..to(52, op::REQUEST) },
        Header { kind: 2, ..to(52, op::REQUEST) },
        to(52, op::RW),
        to(52, 77),
    ] {
        guest.say(strange, b"payload");
        assert_eq!(guest.hear().0.op, op::RST, "{strange:?}");
    }
    assert_eq!(guest.connect(GUEST_PORT, AGENT_PORT), op::RESPONSE);
    let short = to(52, op::RW).to_bytes();
    let long = Header { len: 65 << 10, ..to(52, op::RW) }.to_bytes();
    let longer = Header { len: u32::MAX, ..to(52, op::RW) }.to_bytes();
    let lacking = Header { len: 3, ..to(52, op::RW) }.to_bytes();
    let block = vec![0; 65 << 10];
    for chain in [
        [Buffer::Bytes(&short[..43]), Buffer::Room(100)],
        [Buffer::Bytes(&long), Buffer::Bytes(&block)],
        [Buffer::Bytes(&longer), Buffer::Bytes(&block)],
        [Buffer::Bytes(&lacking), Buffer::Bytes(b"ab")],
    ] {
        guest.rig.put(TRANSMIT, &chain);
        guest.rig.kick(TRANSMIT);
        guest.rig.asks_reset();
        guest.rig.start(0);
    }
    // The agent's stream went with the first reset; the host hears it, and others can be had.
    assert_eq!(guest.agent.read(&mut [0]).unwrap(), 0);
    let _listener = UnixListener::bind(guest.path(52)).unwrap();
    assert_eq!(guest.connect(GUEST_PORT, 52), op::RESPONSE);
    // No room for a header.
    guest.rig.put(RECEIVE, &[Buffer::Room(43)]);
    guest.say(to(53, op::RW), b"x");
    guest.rig.kick(RECEIVE);
    guest.rig.asks_reset();
}

#[test]
fn a_reset_hangs_up_on_everybody_and_a_fresh_driver_serves_the_next() {
    let mut guest = Guest::new();
    let mut open = guest.call("CONNECT 7\n");
    let (request, _) = guest.hear();
    guest.say(back(&request, op::RESPONSE), &[]);
    let (mut offered, mut silent) = (guest.call("CONNECT 8\n"), guest.call("CONN"));
    assert_eq!(guest.hear().0.op, op::REQUEST);
    guest.rig.start(0);
    let mut rest = String::new();
    open.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("OK "), "{rest:?}");
    assert_eq!(offered.read_to_string(&mut rest).unwrap(), 0);
    let _ = silent.read_to_string(&mut rest);
    let _next = guest.call("CONNECT 9\n");
    assert_eq!(guest.hear().0.dst_port, 9);
}
