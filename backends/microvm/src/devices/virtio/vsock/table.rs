//! All streams between guest and host, as a state machine without rings or sockets.
//!
//! ```text
//! guest's REQUEST --> sought --host's end found--> open <--guest's RESPONSE-- offered <-- host asks
//!                        | not there                 | both done, RST,           | RST, late
//!                        v                           v broken rule               v
//!                      over --guest gets RST--> (gone)
//! ```
//! A stream takes a place until its guest was told of its end, so there are never more than
//! [`MAX_STREAMS`], and never more news for the guest than that, whatever it does or leaves undone.
//! Those with news stand in one line, and each gives one packet when it is its turn.

use std::collections::{BTreeMap, VecDeque};

use super::packet::{Header, STREAM, op};
use super::stream::{HostEnd, Stream};

/// The host's context id, and the one we give to the guest.
pub(super) const HOST_CID: u64 = 2;
pub(super) const GUEST_CID: u64 = 3;
/// What the guest may have under way to us in one stream, in bytes.
pub(super) const BUFFER: u32 = 64 << 10;
/// Streams at a time. With what each may hold, 32 MiB.
pub(super) const MAX_STREAMS: usize = 512;
/// Refusals kept until the guest takes them; a guest that makes more loses the rest.
pub(super) const MAX_REFUSALS: usize = 64;
/// Our ports of streams that the host asked for begin here, above those that anybody listens on.
const FIRST_PORT: u32 = 1 << 30;

/// A stream, as packets name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) guest: u32,
    pub(super) ours: u32,
}

/// A stream that the guest asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sought {
    pub(super) id: u64,
    /// The host's port.
    pub(super) port: u32,
}

#[derive(Debug)]
enum State<H> {
    /// The guest asked; the host's end is being looked for.
    Sought {
        request: Header,
    },
    /// The host asked; the guest has been told of it or not, and has not answered.
    Offered {
        host: H,
        told: bool,
    },
    Open {
        host: H,
        stream: Box<Stream>,
    },
    /// The guest is to be told that it is over.
    Over,
}

#[derive(Debug)]
struct Entry<H> {
    id: u64,
    state: State<H>,
    /// Stands in the line of those with news.
    queued: bool,
}

/// The streams.
#[derive(Debug)]
pub(super) struct Table<H> {
    entries: BTreeMap<Key, Entry<H>>,
    keys: BTreeMap<u64, Key>,
    line: VecDeque<Key>,
    /// Packets for what is no stream of ours, to be answered with RST.
    refusals: VecDeque<Key>,
    next_id: u64,
    next_port: u32,
}

impl<H: HostEnd> Table<H> {
    /// No streams. Ids begin at `first_id`.
    pub(super) fn new(first_id: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            keys: BTreeMap::new(),
            line: VecDeque::new(),
            refusals: VecDeque::new(),
            next_id: first_id,
            next_port: FIRST_PORT,
        }
    }

    /// A number that no other stream has or had.
    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// How many streams there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The guest's driver starts afresh: all streams are gone.
    pub(super) fn restart(&mut self) {
        for entry in std::mem::take(&mut self.entries).into_values() {
            if let State::Offered { mut host, .. } | State::Open { mut host, .. } = entry.state {
                host.close();
            }
        }
        self.keys.clear();
        self.line.clear();
        self.refusals.clear();
    }

    /// Takes a packet from the guest; `payload` is as long as the header says. A stream that is
    /// sought is to be answered with `found`.
    pub(super) fn receive(&mut self, header: &Header, payload: &[u8]) -> Option<Sought> {
        let key = Key { guest: header.src_port, ours: header.dst_port };
        if (header.src_cid, header.dst_cid) != (GUEST_CID, HOST_CID) || header.kind != STREAM {
            self.refuse(key, header);
            return None;
        }
        let Some(entry) = self.entries.get_mut(&key) else { return self.begin(key, header) };
        match entry.receive(header, payload) {
            After::Same => {}
            After::News => self.queue(key),
            After::Gone => self.remove(key),
        }
        None
    }

    fn begin(&mut self, key: Key, header: &Header) -> Option<Sought> {
        if header.op != op::REQUEST || self.entries.len() >= MAX_STREAMS {
            self.refuse(key, header);
            return None;
        }
        let id = self.new_id();
        self.insert(key, id, State::Sought { request: *header });
        Some(Sought { id, port: key.ours })
    }

    fn insert(&mut self, key: Key, id: u64, state: State<H>) {
        self.entries.insert(key, Entry { id, state, queued: false });
        self.keys.insert(id, key);
    }

    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.entries.remove(&key) {
            self.keys.remove(&entry.id);
            if entry.queued {
                self.line.retain(|other| *other != key);
            }
        }
    }

    fn queue(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key).filter(|entry| !entry.queued) {
            entry.queued = true;
            self.line.push_back(key);
        }
    }

    fn refuse(&mut self, key: Key, header: &Header) {
        // A reset is never answered with a reset.
        if header.op != op::RST && self.refusals.len() < MAX_REFUSALS {
            self.refusals.push_back(key);
        }
    }

    /// The host's end of a stream that is sought, or that there is none. The guest may have
    /// `buffer` bytes under way in it. Nothing if the guest has lost interest meanwhile.
    pub(super) fn found(&mut self, id: u64, host: Option<H>, buffer: u32) {
        let Some(key) = self.keys.get(&id).copied() else { return };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let State::Sought { request } = &entry.state else { return };
        entry.state = match host {
            Some(host) => State::Open { stream: Box::new(Stream::new(request, buffer)), host },
            None => State::Over,
        };
        self.queue(key);
    }

    /// Asks the guest for a stream to its `port`. False, and `host` closed, if there are too many.
    pub(super) fn offer(&mut self, id: u64, port: u32, mut host: H) -> bool {
        if self.entries.len() >= MAX_STREAMS {
            host.close();
            return false;
        }
        let key = loop {
            let key = Key { guest: port, ours: self.next_port };
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
            // There are more ports than streams.
            if !self.entries.contains_key(&key) {
                break key;
            }
        };
        self.insert(key, id, State::Offered { host, told: false });
        self.queue(key);
        true
    }

    /// The guest has not answered an offer in time.
    pub(super) fn give_up(&mut self, id: u64) {
        let Some(key) = self.keys.get(&id).copied() else { return };
        if let Some(entry) = self.entries.get_mut(&key)
            && let State::Offered { host, .. } = &mut entry.state
        {
            host.close();
            entry.state = State::Over;
            self.queue(key);
        }
    }

    /// Something happened at the host's end: it can be read or written, or `hung_up`.
    pub(super) fn host_is_ready(&mut self, id: u64, hung_up: bool) {
        let Some(key) = self.keys.get(&id).copied() else { return };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        match &mut entry.state {
            State::Open { host, stream } => {
                stream.deliver(host);
                if hung_up {
                    stream.hang_up();
                }
            }
            State::Offered { host, .. } if hung_up => {
                host.close();
                entry.state = State::Over;
            }
            _ => return,
        }
        self.queue(key);
    }

    /// True if there may be something for the guest.
    pub(super) fn owes(&self) -> bool {
        !self.line.is_empty() || !self.refusals.is_empty()
    }

    /// The next packet for the guest, with its payload read from the host into `room`.
    pub(super) fn next(&mut self, room: &mut [u8]) -> Option<(Header, usize)> {
        if let Some(key) = self.refusals.pop_front() {
            return Some((addressed(key, Header { op: op::RST, ..Default::default() }), 0));
        }
        while let Some(key) = self.line.pop_front() {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.queued = false;
            let Some((header, length)) = entry.next(room) else { continue };
            match header.op {
                op::RST => self.remove(key),
                // It has more, or not: its next turn tells.
                _ => self.queue(key),
            }
            return Some((addressed(key, header), length));
        }
        None
    }
}

fn addressed(key: Key, header: Header) -> Header {
    Header {
        src_cid: HOST_CID,
        dst_cid: GUEST_CID,
        src_port: key.ours,
        dst_port: key.guest,
        kind: STREAM,
        ..header
    }
}

/// What is to be done with a stream after a packet.
enum After {
    Same,
    News,
    Gone,
}

impl<H: HostEnd> Entry<H> {
    fn receive(&mut self, header: &Header, payload: &[u8]) -> After {
        match &mut self.state {
            State::Sought { .. } | State::Over if header.op == op::RST => return After::Gone,
            // It is being told.
            State::Over => return After::Same,
            // It may say nothing before it was answered.
            State::Sought { .. } => {}
            State::Offered { host, .. } if header.op == op::RST => {
                host.close();
                return After::Gone;
            }
            State::Offered { .. } if header.op == op::RESPONSE => {
                return self.accepted(header);
            }
            State::Offered { host, .. } => host.close(),
            State::Open { host, stream } if header.op == op::RST => {
                // What the guest sent before still counts.
                stream.deliver(host);
                host.close();
                return After::Gone;
            }
            State::Open { host, stream } => {
                if stream.receive(header, payload, host).is_ok() {
                    return After::News;
                }
                host.close();
            }
        }
        self.state = State::Over;
        After::News
    }

    /// The guest takes our offer: the host hears of it by its port (Firecracker's convention).
    fn accepted(&mut self, response: &Header) -> After {
        let State::Offered { mut host, .. } = std::mem::replace(&mut self.state, State::Over)
        else {
            return After::News;
        };
        let line = format!("OK {}\n", response.dst_port);
        // Nothing was written before: a socket has room for a line.
        if host.write(line.as_bytes()).is_ok_and(|written| written == line.len()) {
            self.state = State::Open { stream: Box::new(Stream::new(response, BUFFER)), host };
        } else {
            host.close();
        }
        After::News
    }

    fn next(&mut self, room: &mut [u8]) -> Option<(Header, usize)> {
        let bare = |op| Some((Header { op, ..Default::default() }, 0));
        match &mut self.state {
            State::Sought { .. } | State::Offered { told: true, .. } => None,
            State::Offered { told, .. } => {
                *told = true;
                let (header, _) = bare(op::REQUEST)?;
                Some((Header { buf_alloc: BUFFER, ..header }, 0))
            }
            State::Over => bare(op::RST),
            State::Open { host, stream } => {
                if let Some(header) = stream.owed() {
                    return Some((stream.fill(header), 0));
                }
                if let Some(length) = stream.read(host, room) {
                    let header = Header { op: op::RW, len: length, ..Default::default() };
                    return Some((stream.fill(header), usize::try_from(length).ok()?));
                }
                // Reading may have met the end of what the host says.
                if let Some(header) = stream.owed() {
                    return Some((stream.fill(header), 0));
                }
                if !stream.is_done() {
                    return None;
                }
                host.close();
                self.state = State::Over;
                bare(op::RST)
            }
        }
    }
}
