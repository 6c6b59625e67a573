//! One stream between guest and host, as a state machine without rings or sockets.
//!
//! Flow control (virtio 1.2, 5.10.6.3): each side says how large its buffer is and how many bytes
//! it has taken out of it; the other never has more under way than fits. Counters wrap.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use super::packet::{Header, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, op};

/// The host's end of a stream: non-blocking.
pub(super) trait HostEnd: Read + Write {
    /// Tells the host that no more will come from the guest.
    fn finish(&mut self);
    /// Lets go of the stream in both directions.
    fn close(&mut self);
}

/// The guest broke a rule of the stream.
#[derive(Debug)]
pub(super) struct Violation;

/// An open stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// From the guest, not yet taken by the host; never more than `buffer` bytes.
    inbox: VecDeque<u8>,
    buffer: u32,
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

impl Stream {
    /// A stream that `from`, the guest's request or response, has opened. The guest may have
    /// `buffer` bytes under way.
    pub(super) fn new(from: &Header, buffer: u32) -> Self {
        Self {
            inbox: VecDeque::new(),
            buffer,
            taken: 0,
            announced: 0,
            sent: 0,
            guest_taken: from.fwd_cnt,
            guest_buffer: from.buf_alloc,
            guest_sends: true,
            guest_receives: true,
            host_sends: true,
            host_receives: true,
            host_told: false,
            owes_response: from.op == op::REQUEST,
            owes_credit: false,
            told_shutdown: 0,
        }
    }

    /// Takes a packet from the guest, and hands the host what it will take.
    pub(super) fn receive(
        &mut self,
        header: &Header,
        payload: &[u8],
        host: &mut impl HostEnd,
    ) -> Result<(), Violation> {
        self.guest_buffer = header.buf_alloc;
        self.guest_taken = header.fwd_cnt;
        match header.op {
            op::RW => self.take_in(payload, host)?,
            op::CREDIT_UPDATE => {}
            op::CREDIT_REQUEST => self.owes_credit = true,
            op::SHUTDOWN => {
                self.guest_receives &= header.flags & SHUTDOWN_RECEIVE == 0;
                self.guest_sends &= header.flags & SHUTDOWN_SEND == 0;
                self.deliver(host);
            }
            _ => return Err(Violation),
        }
        Ok(())
    }

    fn take_in(&mut self, payload: &[u8], host: &mut impl HostEnd) -> Result<(), Violation> {
        let free = capacity(self.buffer).saturating_sub(self.inbox.len());
        if !self.guest_sends || payload.len() > free {
            return Err(Violation);
        }
        let mut written = 0;
        // Past the inbox, if nothing is before it.
        if self.inbox.is_empty() && self.host_receives {
            written = self.write(payload, host);
            self.count_taken(written);
        }
        self.inbox.extend(payload.get(written..).unwrap_or_default());
        if !self.host_receives {
            self.drop_inbox();
        }
        Ok(())
    }

    /// Writes what the host takes of `bytes` at once; how many that are.
    fn write(&mut self, bytes: &[u8], host: &mut impl HostEnd) -> usize {
        loop {
            match host.write(bytes) {
                Ok(written @ 1..) => return written.min(bytes.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return 0,
                // Nobody hears what the guest says; what the host said itself is still to be read.
                Ok(_) | Err(_) => {
                    self.host_receives = bytes.is_empty() && self.host_receives;
                    return 0;
                }
            }
        }
    }

    fn drop_inbox(&mut self) {
        let dropped = std::mem::take(&mut self.inbox).len();
        self.count_taken(dropped);
    }

    fn count_taken(&mut self, bytes: usize) {
        // The inbox never holds more than the buffer.
        self.taken = self.taken.wrapping_add(u32::try_from(bytes).unwrap_or(self.buffer));
        // The guest hears of freed space when a quarter is news.
        if self.taken.wrapping_sub(self.announced) >= self.buffer / 4 {
            self.owes_credit = true;
        }
    }

    /// Hands what the guest sent to the host, as far as the host takes it.
    pub(super) fn deliver(&mut self, host: &mut impl HostEnd) {
        let mut inbox = std::mem::take(&mut self.inbox);
        while !inbox.is_empty() && self.host_receives {
            let written = self.write(inbox.as_slices().0, host);
            inbox.drain(..written);
            self.count_taken(written);
            if written == 0 {
                break;
            }
        }
        // One that is empty is let go of: an idle stream costs nothing.
        if !inbox.is_empty() {
            self.inbox = inbox;
        }
        if !self.host_receives {
            self.drop_inbox();
        }
        if !self.guest_sends && !self.host_told && self.inbox.is_empty() {
            self.host_told = true;
            host.finish();
        }
    }

    /// The host has hung up: it hears nothing any more, though it may have said more than we read.
    pub(super) fn hang_up(&mut self) {
        self.host_receives = false;
        self.drop_inbox();
    }

    /// How many bytes the guest will take.
    fn room(&self) -> u32 {
        if !self.host_sends || !self.guest_receives {
            return 0;
        }
        // A guest that claims to have taken more than was sent gets nothing.
        self.guest_buffer.saturating_sub(self.sent.wrapping_sub(self.guest_taken))
    }

    /// Reads what the host says, as much as the guest will take; how many bytes.
    pub(super) fn read(&mut self, host: &mut impl HostEnd, room: &mut [u8]) -> Option<u32> {
        let limit = capacity(self.room()).min(room.len());
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

    /// The next packet without payload that the guest must get.
    pub(super) fn owed(&mut self) -> Option<Header> {
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

    /// Adds what every packet of the stream says of its flow.
    pub(super) fn fill(&mut self, header: Header) -> Header {
        self.announced = self.taken;
        self.owes_credit = false;
        Header { buf_alloc: self.buffer, fwd_cnt: self.taken, ..header }
    }

    /// Nothing will move any more in either direction.
    pub(super) fn is_done(&self) -> bool {
        let to_guest = !self.host_sends || !self.guest_receives;
        let to_host = !self.host_receives || (!self.guest_sends && self.inbox.is_empty());
        to_guest && to_host && !self.owes_response
    }
}

fn capacity(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
