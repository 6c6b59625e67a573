//! The one stream between guest and host, as a state machine without rings or sockets.
//!
//! ```text
//! waiting --REQUEST to our port--> open --both directions done, RST, broken rule--> closed
//! ```
//! The host's end is a socket that exists once, so a closed channel stays closed: later requests
//! get RST, as do packets for anything else than the open stream.
//!
//! Flow control (virtio 1.2, 5.10.6.3): each side says how large its buffer is and how many bytes
//! it has taken out of it; the other never has more under way than fits. Counters wrap.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use super::packet::{Header, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, STREAM, op};

/// The host's context id, and the one we give to the guest.
pub(super) const HOST_CID: u64 = 2;
pub(super) const GUEST_CID: u64 = 3;
/// What the guest may have under way to us, in bytes.
pub(super) const BUFFER: u32 = 256 << 10;
/// The guest hears of freed space when this much of it is news.
const CREDIT_STEP: u32 = BUFFER / 4;
/// Refusals kept until the guest takes them; a guest that makes more loses the rest.
const MAX_REFUSALS: usize = 64;

/// The host's end of the stream: non-blocking.
pub(super) trait HostEnd: Read + Write {
    /// Tells the host that no more will come from the guest.
    fn finish(&mut self);
    /// Lets go of the stream in both directions.
    fn close(&mut self);
}

/// The channel to the agent.
#[derive(Debug)]
pub(super) struct Channel {
    port: u32,
    state: State,
    /// Streams that the guest is told are reset: (guest's port, our port).
    refusals: VecDeque<(u32, u32)>,
}

#[derive(Debug)]
enum State {
    Waiting,
    Open(Box<Stream>),
    Closed,
}

#[derive(Debug)]
struct Stream {
    guest_port: u32,
    /// From the guest, not yet taken by the host.
    inbox: VecDeque<u8>,
    /// Bytes taken by the host, in all, and what of it the guest knows.
    taken: u32,
    announced: u32,
    /// Bytes sent to the guest, in all; what it took; how large its buffer is.
    sent: u32,
    guest_taken: u32,
    guest_buffer: u32,
    /// What each side will still do.
    guest_sends: bool,
    guest_receives: bool,
    host_sends: bool,
    host_receives: bool,
    /// The host was told that the guest has finished.
    host_told: bool,
    /// What the guest is yet to be told.
    owes_response: bool,
    owes_credit: bool,
    told_shutdown: u32,
}

impl Channel {
    /// A channel that the guest opens by connecting to `port`.
    pub(super) fn new(port: u32) -> Self {
        Self { port, state: State::Waiting, refusals: VecDeque::new() }
    }

    /// The guest's driver starts afresh: an open stream is gone, and its refusals with it.
    pub(super) fn restart(&mut self, host: &mut impl HostEnd) {
        self.refusals.clear();
        if matches!(self.state, State::Open(_)) {
            self.close(host);
        }
    }

    fn close(&mut self, host: &mut impl HostEnd) {
        self.state = State::Closed;
        host.close();
    }

    fn refuse(&mut self, header: &Header) {
        // A reset is never answered with a reset.
        if header.op != op::RST && self.refusals.len() < MAX_REFUSALS {
            self.refusals.push_back((header.src_port, header.dst_port));
        }
    }

    /// Takes a packet from the guest; `payload` is as long as the header says.
    pub(super) fn receive(&mut self, header: &Header, payload: &[u8], host: &mut impl HostEnd) {
        if (header.src_cid, header.dst_cid) != (GUEST_CID, HOST_CID) || header.kind != STREAM {
            return self.refuse(header);
        }
        let ours = header.dst_port == self.port;
        match &mut self.state {
            State::Waiting if ours && header.op == op::REQUEST => {
                self.state = State::Open(Box::new(Stream::new(header)));
            }
            State::Open(stream) if ours && header.src_port == stream.guest_port => {
                if header.op == op::RST {
                    // What the guest sent before still counts.
                    let _ = stream.deliver(host);
                    self.close(host);
                } else if stream.receive(header, payload).is_err() {
                    self.refuse(header);
                    self.close(host);
                }
            }
            _ => self.refuse(header),
        }
    }

    /// Hands what the guest sent to the host, as far as the host takes it.
    pub(super) fn deliver(&mut self, host: &mut impl HostEnd) {
        let State::Open(stream) = &mut self.state else { return };
        if stream.deliver(host).is_err() {
            // The host is gone for what the guest says; what it said itself is still to be read.
            stream.host_receives = false;
            stream.drop_inbox();
        }
        self.finish_if_done(host);
    }

    fn finish_if_done(&mut self, host: &mut impl HostEnd) {
        let State::Open(stream) = &self.state else { return };
        if stream.is_done() {
            self.refusals.push_back((stream.guest_port, self.port));
            self.close(host);
        }
    }

    /// The next packet for the guest, with its payload read from the host into `room`.
    pub(super) fn next(
        &mut self,
        host: &mut impl HostEnd,
        room: &mut [u8],
    ) -> Option<(Header, usize)> {
        if let State::Open(stream) = &mut self.state {
            if let Some(header) = stream.owed() {
                return Some((stream.fill(header, self.port), 0));
            }
            if let Some(length) = stream.read(host, room) {
                let header = Header { op: op::RW, len: length, ..Default::default() };
                return Some((stream.fill(header, self.port), usize::try_from(length).ok()?));
            }
            // Reading may have met the end of what the host says.
            if let Some(header) = stream.owed() {
                return Some((stream.fill(header, self.port), 0));
            }
            self.finish_if_done(host);
        }
        let (guest_port, our_port) = self.refusals.pop_front()?;
        Some((reset(guest_port, our_port), 0))
    }

    /// True if there is something for the guest that needs nothing from the host.
    pub(super) fn owes(&self) -> bool {
        let owed = match &self.state {
            State::Open(stream) => stream.owes_anything() || stream.is_done(),
            _ => false,
        };
        owed || !self.refusals.is_empty()
    }

    /// True if the host's data has somewhere to go.
    pub(super) fn wants_read(&self) -> bool {
        matches!(&self.state, State::Open(stream) if stream.room() > 0)
    }

    /// True if there is data for the host.
    pub(super) fn wants_write(&self) -> bool {
        matches!(&self.state, State::Open(stream) if !stream.inbox.is_empty())
    }
}

fn reset(guest_port: u32, our_port: u32) -> Header {
    Header {
        src_cid: HOST_CID,
        dst_cid: GUEST_CID,
        src_port: our_port,
        dst_port: guest_port,
        kind: STREAM,
        op: op::RST,
        ..Default::default()
    }
}

/// The guest broke a rule of the stream.
#[derive(Debug)]
struct Violation;

impl Stream {
    fn new(request: &Header) -> Self {
        Self {
            guest_port: request.src_port,
            inbox: VecDeque::new(),
            taken: 0,
            announced: 0,
            sent: 0,
            guest_taken: request.fwd_cnt,
            guest_buffer: request.buf_alloc,
            guest_sends: true,
            guest_receives: true,
            host_sends: true,
            host_receives: true,
            host_told: false,
            owes_response: true,
            owes_credit: false,
            told_shutdown: 0,
        }
    }

    fn receive(&mut self, header: &Header, payload: &[u8]) -> Result<(), Violation> {
        self.guest_buffer = header.buf_alloc;
        self.guest_taken = header.fwd_cnt;
        match header.op {
            op::RW => self.take_in(payload),
            op::CREDIT_UPDATE => Ok(()),
            op::CREDIT_REQUEST => {
                self.owes_credit = true;
                Ok(())
            }
            op::SHUTDOWN => {
                self.guest_receives &= header.flags & SHUTDOWN_RECEIVE == 0;
                self.guest_sends &= header.flags & SHUTDOWN_SEND == 0;
                Ok(())
            }
            _ => Err(Violation),
        }
    }

    fn take_in(&mut self, payload: &[u8]) -> Result<(), Violation> {
        let free = usize::try_from(BUFFER).unwrap_or(usize::MAX).saturating_sub(self.inbox.len());
        if !self.guest_sends || payload.len() > free {
            return Err(Violation);
        }
        self.inbox.extend(payload);
        if !self.host_receives {
            self.drop_inbox();
        }
        Ok(())
    }

    fn drop_inbox(&mut self) {
        let dropped = self.inbox.len();
        self.inbox.clear();
        self.count_taken(dropped);
    }

    fn count_taken(&mut self, bytes: usize) {
        // The inbox never holds more than BUFFER.
        self.taken = self.taken.wrapping_add(u32::try_from(bytes).unwrap_or(BUFFER));
        if self.taken.wrapping_sub(self.announced) >= CREDIT_STEP {
            self.owes_credit = true;
        }
    }

    fn deliver(&mut self, host: &mut impl HostEnd) -> io::Result<()> {
        while !self.inbox.is_empty() {
            let (front, _) = self.inbox.as_slices();
            match host.write(front) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.inbox.drain(..written.min(self.inbox.len()));
                    self.count_taken(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !self.guest_sends && !self.host_told {
            self.host_told = true;
            host.finish();
        }
        Ok(())
    }

    /// How many bytes the guest will take.
    fn room(&self) -> u32 {
        if !self.host_sends || !self.guest_receives {
            return 0;
        }
        // A guest that claims to have taken more than was sent gets nothing.
        self.guest_buffer.saturating_sub(self.sent.wrapping_sub(self.guest_taken))
    }

    fn read(&mut self, host: &mut impl HostEnd, room: &mut [u8]) -> Option<u32> {
        let limit = usize::try_from(self.room()).unwrap_or(usize::MAX).min(room.len());
        let room = room.get_mut(..limit).filter(|room| !room.is_empty())?;
        loop {
            match host.read(room) {
                Ok(0) => break self.host_sends = false,
                Ok(length) => {
                    let length = u32::try_from(length).unwrap_or(0);
                    self.sent = self.sent.wrapping_add(length);
                    return Some(length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break self.host_sends = false,
            }
        }
        None
    }

    fn shutdown_flags(&self) -> u32 {
        let send = if self.host_sends { 0 } else { SHUTDOWN_SEND };
        let receive = if self.host_receives { 0 } else { SHUTDOWN_RECEIVE };
        send | receive
    }

    fn owes_anything(&self) -> bool {
        self.owes_response || self.owes_credit || self.shutdown_flags() != self.told_shutdown
    }

    /// The next packet without payload that the guest must get.
    fn owed(&mut self) -> Option<Header> {
        let flags = self.shutdown_flags();
        let (op, flags) = if self.owes_response {
            (op::RESPONSE, 0)
        } else if flags != self.told_shutdown {
            (op::SHUTDOWN, flags)
        } else if self.owes_credit {
            (op::CREDIT_UPDATE, 0)
        } else {
            return None;
        };
        self.owes_response = false;
        if op == op::SHUTDOWN {
            self.told_shutdown = flags;
        }
        Some(Header { op, flags, ..Default::default() })
    }

    /// Adds what every packet of the stream says.
    fn fill(&mut self, header: Header, our_port: u32) -> Header {
        self.announced = self.taken;
        self.owes_credit = false;
        Header {
            src_cid: HOST_CID,
            dst_cid: GUEST_CID,
            src_port: our_port,
            dst_port: self.guest_port,
            kind: STREAM,
            buf_alloc: BUFFER,
            fwd_cnt: self.taken,
            ..header
        }
    }

    /// Nothing will move any more in either direction.
    fn is_done(&self) -> bool {
        let to_guest = !self.host_sends || !self.guest_receives;
        let to_host = !self.host_receives || (!self.guest_sends && self.inbox.is_empty());
        to_guest && to_host && !self.owes_response
    }
}
