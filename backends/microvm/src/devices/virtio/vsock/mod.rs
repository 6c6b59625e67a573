//! virtio-vsock (virtio 1.2, section 5.10): one stream from the guest's agent to a host socket.

mod channel;
mod packet;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{MsgFlags, send};
use virtio_queue::{Reader, Writer};
use vmm_sys_util::epoll::{EpollEvent, EventSet};

use channel::{Channel, GUEST_CID, HostEnd};
use packet::Header;

use super::queue::{Chain, Ring};
use super::{Active, Broken, Device, Poller};

/// The host port to which the guest's agent connects.
pub const AGENT_PORT: u32 = 1024;

/// Section 5.10.1.
const KIND: u32 = 19;
/// Receive, transmit, event (section 5.10.2).
const QUEUES: [u16; 3] = [256, 256, 16];
/// The largest payload of a packet that Linux sends (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
const MAX_PAYLOAD: usize = 64 << 10;
/// Packets in one direction before the other gets its turn.
const BATCH: usize = 256;

const RECEIVE_TOKEN: u64 = 0;
const TRANSMIT_TOKEN: u64 = 1;
const HOST_TOKEN: u64 = 2;
const STOP_TOKEN: u64 = 3;

/// The socket device, with the host's end of the agent's stream.
#[derive(Debug)]
pub struct Vsock {
    host: Socket,
    channel: Channel,
    config: [u8; 8],
    /// A packet's payload between socket and ring.
    payload: Vec<u8>,
}

/// The host's end: a socket that is never waited for, and whose end is never a signal.
#[derive(Debug)]
struct Socket(UnixStream);

impl Read for Socket {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl HostEnd for Socket {
    fn finish(&mut self) {
        // Fails only when the host is gone already.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn close(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Vsock {
    /// A device that gives the guest's stream to `agent`.
    ///
    /// # Errors
    /// When the socket can't be made non-blocking.
    pub fn new(agent: UnixStream) -> io::Result<Self> {
        agent.set_nonblocking(true)?;
        Ok(Self {
            host: Socket(agent),
            channel: Channel::new(AGENT_PORT),
            config: GUEST_CID.to_le_bytes(),
            payload: vec![0; MAX_PAYLOAD],
        })
    }

    /// Takes the guest's packets, up to a batch.
    fn transmit(&mut self, ring: &mut Ring) -> Result<(), Broken> {
        ring.clear_kick();
        ring.mute()?;
        let mut given = false;
        let mut left = BATCH;
        let result = loop {
            match ring.take()? {
                Some(chain) if left > 0 => {
                    left -= 1;
                    let head = chain.head_index();
                    self.take(ring, chain)?;
                    ring.give_back(head, 0)?;
                    given = true;
                }
                Some(_) => {
                    ring.put_back();
                    break ring.kick_again();
                }
                None if ring.unmute()? => {}
                None => break Ok(()),
            }
        };
        if given {
            ring.notify()?;
        }
        Ok(result?)
    }

    fn take(&mut self, ring: &Ring, chain: Chain) -> Result<(), Broken> {
        let broken = |reason: &str| Broken::Buffer { reason: reason.to_owned() };
        let memory = ring.memory().as_ref();
        let mut reader: Reader<'_> = chain.reader(memory)?;
        let mut bytes = [0; packet::SIZE];
        reader.read_exact(&mut bytes).map_err(|_| broken("no room for a vsock header"))?;
        let header = Header::from_bytes(&bytes);
        let length = usize::try_from(header.len).unwrap_or(usize::MAX);
        let payload = self.payload.get_mut(..length);
        let payload = payload.ok_or_else(|| broken("a vsock packet of more than 64 KiB"))?;
        reader.read_exact(payload).map_err(|_| broken("a vsock packet without its payload"))?;
        self.channel.receive(&header, payload, &mut self.host);
        Ok(())
    }

    /// Gives the guest what is there for it, up to a batch. True if the guest lacks buffers.
    fn receive(&mut self, ring: &mut Ring) -> Result<bool, Broken> {
        ring.clear_kick();
        let mut given = false;
        let mut starved = false;
        let mut left = BATCH;
        while left > 0 {
            left -= 1;
            if !self.channel.owes() && !self.channel.wants_read() {
                break;
            }
            let Some(chain) = ring.take()? else {
                // Only now do we want to hear of new buffers.
                if ring.unmute()? {
                    continue;
                }
                starved = true;
                break;
            };
            let head = chain.head_index();
            let Some(written) = self.give(ring, chain)? else {
                ring.put_back();
                break;
            };
            ring.give_back(head, written)?;
            given = true;
        }
        if !starved {
            ring.mute()?;
        }
        if given {
            ring.notify()?;
        }
        if left == 0 {
            ring.kick_again()?;
        }
        Ok(starved)
    }

    fn give(&mut self, ring: &Ring, chain: Chain) -> Result<Option<u32>, Broken> {
        let broken = || Broken::Buffer { reason: "no room for a vsock packet".to_owned() };
        let memory = ring.memory().as_ref();
        let mut writer: Writer<'_> = chain.writer(memory)?;
        let room = writer.available_bytes().checked_sub(packet::SIZE).ok_or_else(broken)?;
        let room = room.min(self.payload.len());
        let room = self.payload.get_mut(..room).unwrap_or_default();
        let Some((header, length)) = self.channel.next(&mut self.host, room) else {
            return Ok(None);
        };
        let payload = room.get(..length).unwrap_or_default();
        writer.write_all(&header.to_bytes()).map_err(|_| broken())?;
        writer.write_all(payload).map_err(|_| broken())?;
        Ok(Some(u32::try_from(packet::SIZE + length).unwrap_or(u32::MAX)))
    }

    /// What to wait for on the host's socket. Nothing at all takes it out of the poller, which
    /// would else report its end again and again.
    fn interest(&self, starved: bool) -> EventSet {
        let mut events = EventSet::empty();
        if self.channel.wants_read() && !starved {
            events |= EventSet::IN;
        }
        if self.channel.wants_write() {
            events |= EventSet::OUT;
        }
        events
    }
}

impl Device for Vsock {
    fn name(&self) -> &'static str {
        "virtio-vsock"
    }

    fn kind(&self) -> u32 {
        KIND
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn run(&mut self, mut active: Active) -> Result<(), Broken> {
        self.channel.restart(&mut self.host);
        let poller = Poller::new()?;
        poller.add(active.stop.as_raw_fd(), EventSet::IN, STOP_TOKEN)?;
        let [receive, transmit, _events] = active.rings.as_mut_slice() else {
            return Err(virtio_queue::Error::QueueNotReady.into());
        };
        poller.add(receive.kick_fd(), EventSet::IN, RECEIVE_TOKEN)?;
        poller.add(transmit.kick_fd(), EventSet::IN, TRANSMIT_TOKEN)?;
        let host = self.host.0.as_raw_fd();
        let mut watched = EventSet::empty();
        let mut events = [EpollEvent::default(); 4];
        // Look once at what came before we watched.
        let mut sent = true;
        loop {
            if sent {
                self.transmit(transmit)?;
            }
            self.channel.deliver(&mut self.host);
            let starved = self.receive(receive)?;
            let wanted = self.interest(starved);
            match (watched.is_empty(), wanted.is_empty()) {
                (true, false) => poller.add(host, wanted, HOST_TOKEN)?,
                (false, true) => poller.remove(host)?,
                (false, false) if wanted != watched => poller.modify(host, wanted, HOST_TOKEN)?,
                _ => {}
            }
            watched = wanted;
            let ready = poller.wait(&mut events)?;
            let ready = events.get(..ready).unwrap_or_default();
            if ready.iter().any(|event| event.data() == STOP_TOKEN) {
                // What the guest sent before it ended still reaches the host.
                self.transmit(transmit)?;
                self.channel.deliver(&mut self.host);
                return Ok(());
            }
            sent = ready.iter().any(|event| event.data() == TRANSMIT_TOKEN);
        }
    }
}
