//! From the tap to the guest.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::super::Broken;
use super::super::buffers::{Buffers, IOV_MAX};
use super::super::queue::{Parts, Ring};
use super::super::rate::Limiter;
use super::layout::{ETHERNET, FRAME, HEADER, MAX_FRAME, NUM_BUFFERS, feature};
use super::tap::Tap;
use super::{BATCH, gone};

/// The queue of room for packets to the guest.
#[derive(Debug)]
pub(super) struct Receiver<'a> {
    ring: Ring,
    limiter: &'a mut Limiter,
    /// A packet may fill several of the guest's buffers.
    merges: bool,
    /// The guest takes packets without a checksum.
    sums: bool,
    /// Room that there must be before a packet is read, in bytes: else its end could be lost.
    needed: usize,
    /// Chains taken from the ring and not given back: head and length.
    held: VecDeque<(u16, usize)>,
    /// The room of all of these, one after another.
    room: Buffers,
    /// So many bytes of a packet lie in `room` already, and wait for their turn.
    waiting: Option<usize>,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing more to do now: there is no packet, no room, or no right to pass one on yet.
    Rests,
    /// The tap is empty.
    Empty,
    /// The tap is gone.
    Gone,
}

impl<'a> Receiver<'a> {
    pub(super) fn new(
        ring: Ring,
        limiter: &'a mut Limiter,
        features: u64,
        mtu: Option<u16>,
    ) -> Self {
        let whole = features & (feature::GUEST_TSO4 | feature::GUEST_TSO6) != 0;
        let plain = mtu.map_or(FRAME, |mtu| usize::from(mtu) + ETHERNET);
        let room = Buffers::new(Arc::clone(ring.memory()));
        Self {
            ring,
            limiter,
            merges: features & feature::MRG_RXBUF != 0,
            sums: features & feature::GUEST_CSUM != 0,
            needed: HEADER + if whole { MAX_FRAME } else { plain },
            held: VecDeque::new(),
            room,
            waiting: None,
        }
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(super) fn limiter(&self) -> &Limiter {
        self.limiter
    }

    /// Passes on what there is, up to a batch.
    pub(super) fn turn(&mut self, tap: &Tap) -> Result<Turn, Broken> {
        let mut given = false;
        let mut left = BATCH;
        let end = loop {
            if left == 0 {
                self.ring.kick_again()?;
                break Turn::Rests;
            }
            left -= 1;
            let waiting = self.waiting.take();
            if waiting.is_none() && !self.refill()? {
                break Turn::Rests;
            }
            let length = match waiting.map_or_else(|| self.room.read_packet(tap.as_fd()), Ok) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if gone(&error) => break Turn::Gone,
                Err(_) => break Turn::Empty,
            };
            if !self.limiter.admit(length.saturating_sub(HEADER) as u64)? {
                self.waiting = Some(length);
                break Turn::Rests;
            }
            if length > HEADER {
                self.deliver(length)?;
                given = true;
            }
        };
        if given {
            self.ring.notify()?;
        }
        Ok(end)
    }

    /// Takes room from the ring until there is enough for any packet. False when there is not,
    /// and a kick will tell of more.
    fn refill(&mut self) -> Result<bool, Broken> {
        let mut muted = false;
        while !self.enough() {
            let Some(chain) = self.ring.take()? else {
                if self.ring.unmute()? {
                    continue;
                }
                return Ok(false);
            };
            if !muted {
                self.ring.mute()?;
                muted = true;
            }
            let Parts { head, readable, writable } = Parts::of(chain, self.ring.memory())?;
            if readable.len() > 0 || writable.len() < HEADER {
                let reason = "no room for the header of a network packet".to_owned();
                return Err(Broken::Buffer { reason });
            }
            self.held.push_back((head, writable.len()));
            self.room.append(&writable);
        }
        Ok(true)
    }

    /// There is room for any packet; or for as much as the guest will ever give: each chain of
    /// its ring, or as many pieces as the host's kernel takes at once.
    fn enough(&self) -> bool {
        if !self.merges {
            return !self.held.is_empty();
        }
        self.room.len() >= self.needed
            || self.held.len() >= usize::from(self.ring.size())
            || self.room.pieces() >= IOV_MAX
    }

    /// Gives the guest the packet of `length` bytes that begins the room.
    fn deliver(&mut self, length: usize) -> Result<(), Broken> {
        let mut left = length;
        let mut used = Vec::new();
        let mut whole = 0;
        while left > 0 {
            let Some((head, room)) = self.held.pop_front() else { break };
            let written = left.min(room);
            left -= written;
            whole += room;
            used.push((head, u32::try_from(written).unwrap_or(u32::MAX)));
        }
        let count = u16::try_from(used.len()).unwrap_or(u16::MAX);
        // The host's kernel leaves this field to us.
        self.room.copy_from(NUM_BUFFERS, &count.to_le_bytes());
        if !self.sums {
            // The kernel tells of good checksums whether asked or not (5.1.6.4.1).
            self.room.copy_from(0, &[0]);
        }
        self.room.drop_front(whole);
        self.ring.give_back_together(&used)
    }
}
