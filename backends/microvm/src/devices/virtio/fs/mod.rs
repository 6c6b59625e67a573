//! virtio-fs (virtio 1.2, section 5.11): a host directory, served by FUSE in this process.
//!
//! The file server is fuse-backend-rs' passthrough; `guard` stands before it and refuses what a
//! hostile guest could ask of it. What a share may change is decided by the host's mount flags.
//! The server needs `/proc` in this process's mount namespace.

mod guard;

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use fuse_backend_rs::api::server::Server;
use fuse_backend_rs::transport::{Reader, VirtioFsWriter, Writer};
use vmm_sys_util::epoll::{EpollEvent, EventSet};

use guard::Guard;

use super::queue::{Chain, Ring};
use super::{Active, Broken, Device, Poller};

/// Section 5.11.1.
const KIND: u32 = 26;
/// High-priority and one request queue. A request of 1 MiB takes 256 pages and a few headers.
const QUEUES: [u16; 2] = [128, 512];
/// Section 5.11.4: 36 bytes of tag, then the number of request queues.
const TAG_SIZE: usize = 36;
const REQUEST_QUEUES: u32 = 1;
/// Requests served before the other queue and the stop signal are looked at again.
const BATCH: usize = 256;
const STOP: u64 = u64::MAX;
/// The most bytes of a request: 1 MiB of data, as FUSE_INIT says, and a page of headers and names.
/// The server looks at what a request says of its own length, and then reserves and reads what
/// descriptors hold, which may be the same memory over and over, up to 4 GiB.
const MAX_REQUEST: usize = (1 << 20) + 4096;

/// A directory shared with the guest.
pub struct Fs {
    server: Server<Guard>,
    config: Vec<u8>,
}

impl std::fmt::Debug for Fs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fs").finish_non_exhaustive()
    }
}

impl Fs {
    /// Shares the directory `root` as `tag`.
    ///
    /// # Errors
    /// When the directory can't be opened, or the tag is empty or longer than 36 bytes.
    pub fn new(tag: &str, root: &Path) -> io::Result<Self> {
        if tag.is_empty() || tag.len() > TAG_SIZE {
            let reason = format!("a virtio-fs tag has 1 to {TAG_SIZE} bytes, and {tag:?} has not");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let mut config = tag.as_bytes().to_vec();
        config.resize(TAG_SIZE, 0);
        config.extend(REQUEST_QUEUES.to_le_bytes());
        Ok(Self { server: Server::new(Guard::new(root)?), config })
    }

    /// Serves what is in `ring`, up to a batch.
    fn serve(&self, ring: &mut Ring) -> Result<(), Broken> {
        ring.clear_kick();
        ring.mute()?;
        for _ in 0..BATCH {
            let Some(chain) = ring.take()? else {
                if ring.unmute()? {
                    continue;
                }
                return Ok(());
            };
            let head = chain.head_index();
            let written = self.answer(ring, chain)?;
            ring.give_back(head, written)?;
            ring.notify()?;
        }
        Ok(ring.kick_again()?)
    }

    fn answer(&self, ring: &Ring, chain: Chain) -> Result<u32, Broken> {
        let buffer =
            |error: fuse_backend_rs::transport::Error| Broken::Buffer { reason: error.to_string() };
        let memory = ring.memory().as_ref();
        let reader = Reader::from_descriptor_chain(memory, chain.clone()).map_err(buffer)?;
        if reader.available_bytes() > MAX_REQUEST {
            let reason = format!("a FUSE request of {} bytes", reader.available_bytes());
            return Err(Broken::Buffer { reason });
        }
        let writer = VirtioFsWriter::new(memory, chain).map_err(buffer)?;
        match self.server.handle_message(reader, Writer::from(writer), None, None) {
            Ok(written) => Ok(u32::try_from(written).unwrap_or(0)),
            // A request that is no FUSE gets no answer, and hurts only the guest's own mount.
            Err(error) => {
                tracing::debug!(%error, "broken FUSE request");
                Ok(0)
            }
        }
    }
}

impl Device for Fs {
    fn name(&self) -> &'static str {
        "virtio-fs"
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
        let poller = Poller::new()?;
        poller.add(active.stop.as_raw_fd(), EventSet::IN, STOP)?;
        for (token, ring) in (0..).zip(&active.rings) {
            poller.add(ring.kick_fd(), EventSet::IN, token)?;
        }
        let mut events = [EpollEvent::default(); QUEUES.len() + 1];
        loop {
            let ready = poller.wait(&mut events)?;
            let ready = events.get(..ready).unwrap_or_default();
            if ready.iter().any(|event| event.data() == STOP) {
                return Ok(());
            }
            for event in ready {
                let index = usize::try_from(event.data()).unwrap_or(usize::MAX);
                if let Some(ring) = active.rings.get_mut(index) {
                    self.serve(ring)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_space_is_tag_and_queue_count() {
        let dir = tempfile::tempdir().unwrap();
        let fs = Fs::new("moat", dir.path()).unwrap();
        assert_eq!(fs.config().len(), 40);
        assert_eq!(&fs.config()[..5], b"moat\0");
        assert_eq!(fs.config()[36..], [1, 0, 0, 0]);
    }

    #[test]
    fn bad_tags_and_missing_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Fs::new("", dir.path()).is_err());
        assert!(Fs::new(&"x".repeat(37), dir.path()).is_err());
        assert!(Fs::new("moat", &dir.path().join("none")).is_err());
    }
}
