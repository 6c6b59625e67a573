//! virtio-vsock (virtio 1.2, section 5.10): streams between the guest and sockets of the host.
//!
//! - The guest connects to [`AGENT_PORT`]: once, to a socket that was there before the machine.
//! - The guest connects to another port P of the host: to the unix socket `PATH_P` (`broker`).
//! - A client of the host connects to the unix socket `PATH`, says `CONNECT P` and gets `OK port`
//!   once the guest has taken it (`callers`).
//!
//! `stream` is one stream, `table` all of them; here are rings, sockets and time. Sockets are
//! watched for changes only (EPOLLET): each is asked again after it said that it would block.
//!
//! Calls: epoll_create1, epoll_ctl, epoll_wait, accept4, recvfrom, recvmsg, sendto, read, write,
//! shutdown, close, clock_gettime.

pub mod broker;
mod callers;
mod packet;
mod stream;
mod table;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};
use rustix::net::SocketFlags;
use virtio_queue::{Reader, Writer};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::{EpollEvent, EventSet};

use broker::Asker;
use callers::{Call, Callers, MAX_CALLERS};
use packet::Header;
use stream::HostEnd;
use table::{BUFFER, GUEST_CID, MAX_STREAMS, Sought, Table};

use super::queue::{Chain, Ring};
use super::{Active, Broken, Device, Poller};

/// The host port to which the guest's agent connects.
pub const AGENT_PORT: u32 = 1024;
/// What the agent may have under way to the host, in bytes.
const AGENT_BUFFER: u32 = 256 << 10;

/// Section 5.10.1.
const KIND: u32 = 19;
/// Receive, transmit, event (section 5.10.2).
const QUEUES: [u16; 3] = [256, 256, 16];
/// The largest payload of a packet that Linux sends (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
const MAX_PAYLOAD: usize = 64 << 10;
/// Packets in one direction before the other gets its turn.
const BATCH: usize = 256;
/// How long a client may take for its CONNECT and the guest for its answer, together.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 10 });

/// Clients let in within that time.
const MAX_PATIENCE: usize = 8 * MAX_STREAMS;

const RECEIVE_TOKEN: u64 = 0;
const TRANSMIT_TOKEN: u64 = 1;
const STOP_TOKEN: u64 = 2;
const LISTENER_TOKEN: u64 = 3;
const BROKER_TOKEN: u64 = 4;
/// What is above are clients and streams.
const LAST_TOKEN: u64 = 4;

/// The host's ends of a guest's streams; what is not there is refused.
#[derive(Debug, Default)]
pub struct Ends {
    /// Where [`AGENT_PORT`] leads to, once.
    pub agent: Option<UnixStream>,
    /// Where clients of the host ask for streams to the guest.
    pub listener: Option<UnixListener>,
    /// Who knows where all other ports lead to.
    pub asker: Option<Asker>,
}

impl From<UnixStream> for Ends {
    /// The agent's and no others.
    fn from(agent: UnixStream) -> Self {
        Self { agent: Some(agent), ..Self::default() }
    }
}

/// The socket device.
#[derive(Debug)]
pub struct Vsock {
    agent: Option<UnixStream>,
    listener: Option<UnixListener>,
    asker: Option<Asker>,
    table: Table<Socket>,
    callers: Callers,
    /// Streams for which the broker was asked, in its order.
    asked: VecDeque<u64>,
    /// Until when clients may take their time, the first first.
    patience: VecDeque<(Instant, u64)>,
    /// Somebody may wait to be accepted.
    called: bool,
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
    /// A device whose streams end at `ends`.
    ///
    /// # Errors
    /// When a socket can't be made non-blocking.
    pub fn new(ends: Ends) -> io::Result<Self> {
        if let Some(agent) = &ends.agent {
            agent.set_nonblocking(true)?;
        }
        if let Some(listener) = &ends.listener {
            listener.set_nonblocking(true)?;
        }
        Ok(Self {
            agent: ends.agent,
            listener: ends.listener,
            asker: ends.asker,
            table: Table::new(LAST_TOKEN),
            callers: Callers::default(),
            asked: VecDeque::new(),
            patience: VecDeque::new(),
            called: true,
            config: GUEST_CID.to_le_bytes(),
            payload: vec![0; MAX_PAYLOAD],
        })
    }

    /// Takes one packet of the guest's.
    fn take(
        &mut self,
        poller: &Poller,
        memory: &GuestMemoryMmap,
        chain: Chain,
    ) -> Result<u32, Broken> {
        let broken = |reason: &str| Broken::Buffer { reason: reason.to_owned() };
        let mut reader: Reader<'_> = chain.reader(memory)?;
        let mut bytes = [0; packet::SIZE];
        reader.read_exact(&mut bytes).map_err(|_| broken("no room for a vsock header"))?;
        let header = Header::from_bytes(&bytes);
        let length = usize::try_from(header.len).unwrap_or(usize::MAX);
        let payload = self.payload.get_mut(..length);
        let payload = payload.ok_or_else(|| broken("a vsock packet of more than 64 KiB"))?;
        reader.read_exact(payload).map_err(|_| broken("a vsock packet without its payload"))?;
        if let Some(sought) = self.table.receive(&header, payload) {
            self.seek(poller, sought)?;
        }
        Ok(0)
    }

    /// Looks for the host's end of a stream that the guest asks for.
    fn seek(&mut self, poller: &Poller, Sought { id, port }: Sought) -> io::Result<()> {
        if port == AGENT_PORT {
            let agent = self.agent.take();
            return self.found(poller, id, agent, AGENT_BUFFER);
        }
        if self.asker.as_ref().is_some_and(|asker| asker.ask(port)) {
            self.asked.push_back(id);
            return Ok(());
        }
        self.found(poller, id, None, BUFFER)
    }

    fn found(
        &mut self,
        poller: &Poller,
        id: u64,
        socket: Option<UnixStream>,
        buffer: u32,
    ) -> io::Result<()> {
        if let Some(socket) = &socket {
            watch(poller, socket, id)?;
        }
        self.table.found(id, socket.map(Socket), buffer);
        Ok(())
    }

    /// Takes the broker's answers.
    fn hear_broker(&mut self, poller: &Poller) -> io::Result<()> {
        while let Some(asker) = &self.asker {
            let socket = match asker.answer() {
                Ok(None) => return Ok(()),
                Ok(Some(socket)) => socket,
                Err(error) => {
                    tracing::warn!(%error, "nobody knows the host's ports any more");
                    poller.remove(asker.as_fd().as_raw_fd())?;
                    self.asker = None;
                    for id in std::mem::take(&mut self.asked) {
                        self.table.found(id, None, BUFFER);
                    }
                    return Ok(());
                }
            };
            // An answer that nobody asked for has no stream.
            let id = self.asked.pop_front().unwrap_or_default();
            self.found(poller, id, socket, BUFFER)?;
        }
        Ok(())
    }

    /// Lets clients of the host in, as many as there is room for.
    fn accept(&mut self, poller: &Poller) -> io::Result<()> {
        while let Some(listener) = self.listener.as_ref().filter(|_| self.called) {
            if !self.has_room() {
                break;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = match rustix::net::accept_with(listener, flags) {
                Ok(socket) => UnixStream::from(socket),
                Err(errno) => {
                    // With no room for a descriptor, it waits for the next thing that happens.
                    self.called = errno != rustix::io::Errno::AGAIN;
                    break;
                }
            };
            let id = self.table.new_id();
            watch(poller, &socket, id)?;
            self.callers.add(id, socket);
            self.patience.push_back((Instant::now() + PATIENCE, id));
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.callers.len() < MAX_CALLERS
            && self.table.len() + self.callers.len() < MAX_STREAMS
            && self.patience.len() < MAX_PATIENCE
    }

    /// Something happened at the socket of a client or a stream.
    fn attend(&mut self, id: u64, events: EventSet) {
        match self.callers.listen(id) {
            Some(Call::Port(port, socket)) => {
                self.table.offer(id, port, Socket(socket));
            }
            Some(Call::Ended | Call::NotYet) => {}
            None => {
                let hung_up = events.intersects(EventSet::HANG_UP | EventSet::ERROR);
                self.table.host_is_ready(id, hung_up);
            }
        }
    }

    /// Sends away who has taken too long; until when the next one may.
    fn send_away(&mut self) -> Option<Instant> {
        while let Some((until, id)) = self.patience.front().copied() {
            if until > Instant::now() {
                return Some(until);
            }
            self.patience.pop_front();
            self.callers.drop(id);
            self.table.give_up(id);
        }
        None
    }

    /// Gives the guest what is there for it, up to a batch.
    fn receive(&mut self, ring: &mut Ring) -> Result<(), Broken> {
        ring.clear_kick();
        let (mut given, mut starved, mut left) = (false, false, BATCH);
        while left > 0 && self.table.owes() {
            left -= 1;
            let Some(chain) = ring.take()? else {
                // Only now do we want to hear of new buffers.
                starved = !ring.unmute()?;
                if starved {
                    break;
                }
                continue;
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
        Ok(())
    }

    fn give(&mut self, ring: &Ring, chain: Chain) -> Result<Option<u32>, Broken> {
        let broken = || Broken::Buffer { reason: "no room for a vsock packet".to_owned() };
        let memory = ring.memory().as_ref();
        let mut writer: Writer<'_> = chain.writer(memory)?;
        let room = writer.available_bytes().checked_sub(packet::SIZE).ok_or_else(broken)?;
        let room = room.min(self.payload.len());
        let room = self.payload.get_mut(..room).unwrap_or_default();
        let Some((header, length)) = self.table.next(room) else { return Ok(None) };
        let payload = room.get(..length).unwrap_or_default();
        writer.write_all(&header.to_bytes()).map_err(|_| broken())?;
        writer.write_all(payload).map_err(|_| broken())?;
        Ok(Some(u32::try_from(packet::SIZE + length).unwrap_or(u32::MAX)))
    }
}

/// Hears of changes at a stream's or client's socket. Its being closed ends that.
fn watch(poller: &Poller, socket: &UnixStream, id: u64) -> io::Result<()> {
    let changes = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
    poller.add(socket.as_raw_fd(), changes, id)
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
        // What another driver had is gone. Clients have not been promised anything yet.
        self.table.restart();
        self.callers.clear();
        self.patience.clear();
        let poller = Poller::new()?;
        poller.add(active.stop.as_raw_fd(), EventSet::IN, STOP_TOKEN)?;
        let [receive, transmit, _events] = active.rings.as_mut_slice() else {
            return Err(virtio_queue::Error::QueueNotReady.into());
        };
        poller.add(receive.kick_fd(), EventSet::IN, RECEIVE_TOKEN)?;
        poller.add(transmit.kick_fd(), EventSet::IN, TRANSMIT_TOKEN)?;
        if let Some(listener) = &self.listener {
            let changes = EventSet::IN | EventSet::EDGE_TRIGGERED;
            poller.add(listener.as_raw_fd(), changes, LISTENER_TOKEN)?;
        }
        if let Some(asker) = &self.asker {
            poller.add(asker.as_fd().as_raw_fd(), EventSet::IN, BROKER_TOKEN)?;
        }
        let mut events = [EpollEvent::default(); 64];
        // Look once at what came before we watched.
        let mut sent = true;
        loop {
            if sent {
                transmit.serve(BATCH, |memory, chain| self.take(&poller, memory, chain))?;
            }
            let until = self.send_away();
            self.receive(receive)?;
            // There may be room for those who came when there was none.
            self.accept(&poller)?;
            let ready = poller.wait_until(&mut events, until)?;
            let ready = events.get(..ready).unwrap_or_default();
            if ready.iter().any(|event| event.data() == STOP_TOKEN) {
                // What the guest sent before it ended still reaches the host.
                return transmit.serve(BATCH, |memory, chain| self.take(&poller, memory, chain));
            }
            sent = false;
            for event in ready {
                match event.data() {
                    TRANSMIT_TOKEN => sent = true,
                    RECEIVE_TOKEN => {}
                    LISTENER_TOKEN => self.called = true,
                    BROKER_TOKEN => self.hear_broker(&poller)?,
                    id => self.attend(id, event.event_set()),
                }
            }
        }
    }
}
