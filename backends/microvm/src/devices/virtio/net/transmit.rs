//! From the guest to the tap.

use std::io;
use std::os::fd::AsFd;

use super::super::Broken;
use super::super::queue::{Parts, Ring};
use super::super::rate::Limiter;
use super::layout::{HEADER, MAX_FRAME, checked};
use super::tap::Tap;
use super::{BATCH, gone};

/// The queue of packets that the guest sends.
#[derive(Debug)]
pub(super) struct Transmitter<'a> {
    ring: Ring,
    limiter: &'a mut Limiter,
    features: u64,
}

impl<'a> Transmitter<'a> {
    pub(super) fn new(ring: Ring, limiter: &'a mut Limiter, features: u64) -> Self {
        Self { ring, limiter, features }
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(super) fn limiter(&self) -> &Limiter {
        self.limiter
    }

    /// Sends what there is, up to a batch; throws it away without a tap. False when the tap is
    /// gone.
    pub(super) fn turn(&mut self, tap: Option<&Tap>) -> Result<bool, Broken> {
        self.ring.mute()?;
        let mut lives = true;
        let mut left = BATCH;
        let mut given = false;
        loop {
            let Some(chain) = self.ring.take()? else {
                if self.ring.unmute()? {
                    continue;
                }
                break;
            };
            if left == 0 {
                self.ring.put_back();
                self.ring.kick_again()?;
                break;
            }
            left -= 1;
            let packet = Parts::of(chain, self.ring.memory())?;
            if !self.limiter.admit(packet.readable.len().saturating_sub(HEADER) as u64)? {
                self.ring.put_back();
                break;
            }
            if let Some(tap) = tap.filter(|_| lives) {
                lives = self.send(tap, &packet)?;
            }
            self.ring.give_back(packet.head, 0)?;
            given = true;
        }
        if given {
            self.ring.notify()?;
        }
        Ok(lives)
    }

    /// Sends one packet or, like any network, loses it. False when the tap is gone.
    fn send(&self, tap: &Tap, packet: &Parts) -> Result<bool, Broken> {
        let mut header = [0; HEADER];
        if packet.readable.copy_to(0, &mut header) < HEADER {
            let reason = "no header of a network packet".to_owned();
            return Err(Broken::Buffer { reason });
        }
        let length = packet.readable.len() - HEADER;
        if length > MAX_FRAME {
            return Ok(true);
        }
        // The host gets the header that was checked, not what the guest may make of it meanwhile.
        let Some(header) = checked(header, length, self.features) else { return Ok(true) };
        loop {
            match packet.readable.write_packet(tap.as_fd(), &header) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(!gone(&error)),
                Ok(_) => return Ok(true),
            }
        }
    }
}
