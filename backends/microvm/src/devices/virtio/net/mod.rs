//! virtio-net (virtio 1.2, section 5.1): a tap device of the host as the guest's network.
//!
//! Packets go between the tap and guest memory without a copy of ours; checksums and the cutting
//! up of large packets are left to whom both sides agreed on. One thread has both directions, and
//! gives each its turn after a batch. When the tap goes away the guest sees its link go down; what
//! it still sends is taken and thrown away.
//!
//! Calls: epoll_create1, epoll_ctl, epoll_wait, read and write (event descriptors), readv, writev,
//! ioctl (TUNSETOFFLOAD, once each time the driver starts), close, and those of [`super::rate`].

mod layout;
mod receive;
mod tap;
#[cfg(test)]
mod tests;
mod transmit;

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use vmm_sys_util::epoll::{EpollEvent, EventSet};

use layout::{CONFIG, feature};
use receive::{Receiver, Turn};
use transmit::Transmitter;

pub use tap::{Tap, TapError};

use super::config::Config;
use super::rate::{Limiter, LimiterError, Limits};
use super::{Active, Broken, Device, Poller};

/// Section 5.1.1.
const KIND: u32 = 1;
/// Receive, transmit (5.1.2).
const QUEUES: [u16; 2] = [256, 256];
/// Packets in one direction before the other gets its turn.
const BATCH: usize = 256;

const STOP_TOKEN: u64 = 0;
const RECEIVE_TOKEN: u64 = 1;
const TRANSMIT_TOKEN: u64 = 2;
const TAP_TOKEN: u64 = 3;
const RECEIVE_TIMER_TOKEN: u64 = 4;
const TRANSMIT_TIMER_TOKEN: u64 = 5;

/// How a network is shown to the guest.
#[derive(Debug, Clone, Default)]
pub struct NetOptions {
    /// The guest's address; it takes one at random when there is none.
    pub mac: Option<[u8; 6]>,
    /// The most bytes of an IP packet, as on the tap; the guest takes 1500 when not told.
    pub mtu: Option<u16>,
    /// How fast the guest may receive.
    pub receive: Limits,
    /// How fast it may send.
    pub transmit: Limits,
}

/// The network.
#[derive(Debug)]
pub struct Net {
    tap: Tap,
    /// The tap was there when it was last looked at.
    lives: bool,
    mac: bool,
    mtu: Option<u16>,
    config: [u8; CONFIG],
    receive: Limiter,
    transmit: Limiter,
}

impl Net {
    /// A network behind `tap`.
    ///
    /// # Errors
    /// When a limit makes no sense, or the host gives no timer.
    pub fn new(tap: Tap, options: &NetOptions) -> Result<Self, LimiterError> {
        Ok(Self {
            tap,
            lives: true,
            mac: options.mac.is_some(),
            mtu: options.mtu,
            config: layout::config(options.mac, options.mtu),
            receive: Limiter::new(options.receive)?,
            transmit: Limiter::new(options.transmit)?,
        })
    }
}

impl Device for Net {
    fn name(&self) -> &'static str {
        "virtio-net"
    }

    fn kind(&self) -> u32 {
        KIND
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUES
    }

    fn features(&self) -> u64 {
        let offered = [
            (true, feature::MRG_RXBUF | feature::STATUS),
            (self.tap.offloads(), feature::OFFLOADS),
            (self.mac, feature::MAC),
            (self.mtu.is_some(), feature::MTU),
        ];
        offered.iter().filter(|(there, _)| *there).fold(0, |all, (_, bits)| all | bits)
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn run(&mut self, active: Active) -> Result<(), Broken> {
        let Active { features, rings, config, stop } = active;
        let Ok([receive, transmit]) = <[_; 2]>::try_from(rings) else {
            return Err(virtio_queue::Error::QueueNotReady.into());
        };
        let mut link = Link { lives: &mut self.lives, now: &mut self.config, shown: &config };
        if *link.lives && self.tap.set_features(features).is_err() {
            link.lose()?;
        }
        let mut receiver = Receiver::new(receive, &mut self.receive, features, self.mtu);
        let mut transmitter = Transmitter::new(transmit, &mut self.transmit, features);
        let poller = Poller::new()?;
        poller.add(stop.as_raw_fd(), EventSet::IN, STOP_TOKEN)?;
        poller.add(receiver.ring().kick_fd(), EventSet::IN, RECEIVE_TOKEN)?;
        poller.add(transmitter.ring().kick_fd(), EventSet::IN, TRANSMIT_TOKEN)?;
        let timers = [
            (receiver.limiter().timer_fd(), RECEIVE_TIMER_TOKEN),
            (transmitter.limiter().timer_fd(), TRANSMIT_TIMER_TOKEN),
        ];
        for (timer, token) in timers {
            if let Some(timer) = timer {
                poller.add(timer, EventSet::IN, token)?;
            }
        }
        if *link.lives {
            // Once for each time that something comes, so that a tap which the guest has no room
            // for does not wake us again and again.
            let events = EventSet::IN | EventSet::EDGE_TRIGGERED;
            poller.add(self.tap.as_fd().as_raw_fd(), events, TAP_TOKEN)?;
        }
        let mut events = [EpollEvent::default(); 6];
        // Look once at what came before we watched.
        let (mut sends, mut receives) = (true, true);
        // The tap may have something.
        let mut filled = true;
        loop {
            if sends && !transmitter.turn(link.lives.then_some(&self.tap))? {
                link.lose()?;
            }
            if *link.lives && receives && filled {
                match receiver.turn(&self.tap)? {
                    Turn::Rests => {}
                    Turn::Empty => filled = false,
                    Turn::Gone => link.lose()?,
                }
            }
            (sends, receives) = (false, false);
            let ready = poller.wait(&mut events)?;
            for event in events.get(..ready).unwrap_or_default() {
                match event.data() {
                    STOP_TOKEN => return Ok(()),
                    RECEIVE_TOKEN => {
                        receiver.ring().clear_kick();
                        receives = true;
                    }
                    TRANSMIT_TOKEN => {
                        transmitter.ring().clear_kick();
                        sends = true;
                    }
                    RECEIVE_TIMER_TOKEN => {
                        receiver.limiter().clear_timer();
                        receives = true;
                    }
                    TRANSMIT_TIMER_TOKEN => {
                        transmitter.limiter().clear_timer();
                        sends = true;
                    }
                    _ => {
                        filled = true;
                        receives = true;
                    }
                }
            }
        }
    }
}

/// Whether an error of a tap's is for good: there is no device behind it any more (Linux
/// drivers/net/tun.c gives EBADFD, and EIO to who waits while the device goes).
fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADFD | libc::ENODEV | libc::ENOTCONN))
}

/// Whether there is a tap, and what the guest sees of that.
struct Link<'a> {
    lives: &'a mut bool,
    now: &'a mut [u8; CONFIG],
    shown: &'a Config,
}

impl Link<'_> {
    /// The tap is gone.
    fn lose(&mut self) -> io::Result<()> {
        tracing::warn!("the network's tap device is gone: the guest's link is down");
        *self.lives = false;
        layout::set_link(self.now, false);
        self.shown.change(0, self.now)
    }
}
