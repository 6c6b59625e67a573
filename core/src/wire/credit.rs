//! Who may send how much: one [`Credit`] per stream at its sender, one [`Window`] at its receiver.

use super::WireError;

/// What the sender of a stream may still send.
#[derive(Debug)]
pub struct Credit {
    open: u32,
    most: u32,
}

impl Credit {
    /// The credit of a fresh stream, so many bytes: see [`Session::credit`](super::Session::credit).
    pub const fn new(initial: u32) -> Self {
        Self { open: initial, most: initial }
    }

    /// How many bytes may be sent now.
    pub fn available(&self) -> usize {
        usize::try_from(self.open).unwrap_or(usize::MAX)
    }

    /// Notes that the receiver granted `bytes` more.
    ///
    /// # Errors
    /// When it has then granted more than it ever could have room for.
    pub fn grant(&mut self, bytes: u32) -> Result<(), WireError> {
        match self.open.checked_add(bytes) {
            Some(sum) if sum <= self.most => {
                self.open = sum;
                Ok(())
            }
            _ => Err(WireError::Grant { bytes }),
        }
    }

    /// Notes that `bytes` were sent.
    ///
    /// # Errors
    /// When they are more than [`available`](Self::available): a fault of the caller.
    pub fn take(&mut self, bytes: usize) -> Result<(), WireError> {
        let left = u32::try_from(bytes).ok().and_then(|bytes| self.open.checked_sub(bytes));
        self.open = left.ok_or(WireError::Credit { bytes, open: self.open })?;
        Ok(())
    }
}

/// What the receiver of a stream has granted and must have room for.
#[derive(Debug)]
pub struct Window {
    open: u32,
    owed: u32,
    most: u32,
}

impl Window {
    /// The window of a fresh stream, so many bytes: see [`Session::credit`](super::Session::credit).
    pub const fn new(initial: u32) -> Self {
        Self { open: initial, owed: 0, most: initial }
    }

    /// Notes that `bytes` came in.
    ///
    /// # Errors
    /// When the sender had no credit for them.
    pub fn receive(&mut self, bytes: usize) -> Result<(), WireError> {
        let left = u32::try_from(bytes).ok().and_then(|bytes| self.open.checked_sub(bytes));
        self.open = left.ok_or(WireError::Credit { bytes, open: self.open })?;
        Ok(())
    }

    /// Notes that `bytes` of what came in were passed on; gives the credit to announce to the
    /// sender, once there is enough of it.
    pub fn consume(&mut self, bytes: usize) -> Option<u32> {
        let room = self.most.saturating_sub(self.open);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.owed = self.owed.saturating_add(bytes).min(room);
        // In pieces, so that small writes do not cost a frame in each direction.
        if self.owed < self.most / 4 {
            return None;
        }
        self.open += self.owed;
        Some(std::mem::take(&mut self.owed))
    }
}
