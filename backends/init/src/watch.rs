//! One poll(2) over descriptors that may or may not be there.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The descriptors of one poll(2).
#[derive(Debug, Default)]
pub struct Watch<'a>(Vec<PollFd<'a>>);

/// A descriptor's place in a [`Watch`], or nothing for one that is not there.
#[derive(Debug, Clone, Copy)]
pub struct Place(Option<usize>);

impl<'a> Watch<'a> {
    /// Adds a descriptor, if there is one.
    pub fn add(&mut self, fd: Option<BorrowedFd<'a>>, flags: PollFlags) -> Place {
        Place(fd.map(|fd| {
            self.0.push(PollFd::new(fd, flags));
            self.0.len() - 1
        }))
    }

    /// Waits until one is ready, or until the moment has come; false when it has.
    ///
    /// # Errors
    /// poll(2)'s.
    pub fn wait(&mut self, until: Option<Instant>) -> nix::Result<bool> {
        loop {
            match poll(&mut self.0, timeout(until)) {
                Err(Errno::EINTR) => {}
                Ok(0) if until.is_none_or(|until| Instant::now() < until) => {}
                result => return result.map(|ready| ready > 0),
            }
        }
    }

    /// Whether the descriptor is ready, or has an error or hang-up to be found out.
    pub fn is_ready(&self, place: Place) -> bool {
        self.has(place, PollFlags::all())
    }

    /// Whether any of these flags is set for the descriptor.
    pub fn has(&self, place: Place, flags: PollFlags) -> bool {
        let fd = place.0.and_then(|place| self.0.get(place));
        fd.and_then(PollFd::revents).is_some_and(|found| found.intersects(flags))
    }
}

/// poll(2) counts milliseconds: rounded up, so as not to spin through the last one.
fn timeout(until: Option<Instant>) -> PollTimeout {
    let Some(until) = until else { return PollTimeout::NONE };
    let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}
