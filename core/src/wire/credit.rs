//! Who may send how much: one [`Credit`] per stream at its sender, one [`Window`] at its receiver.

use super::{INITIAL_CREDIT, WireError};

/// What the sender of a stream may still send.
#[derive(Debug)]
pub struct Credit(u32);

impl Credit {
    /// The credit of a fresh stream.
    pub const fn new() -> Self {
        Self(INITIAL_CREDIT)
    }

    /// How many bytes may be sent now.
    pub fn available(&self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Notes that the receiver granted `bytes` more.
    ///
    /// # Errors
    /// When it has then granted more than it ever could have room for.
    pub fn grant(&mut self, bytes: u32) -> Result<(), WireError> {
        match self.0.checked_add(bytes) {
            Some(sum) if sum <= INITIAL_CREDIT => {
                self.0 = sum;
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
        let left = u32::try_from(bytes).ok().and_then(|bytes| self.0.checked_sub(bytes));
        self.0 = left.ok_or(WireError::Credit { bytes, open: self.0 })?;
        Ok(())
    }
}

impl Default for Credit {
    fn default() -> Self {
        Self::new()
    }
}

/// What the receiver of a stream has granted and must have room for.
#[derive(Debug)]
pub struct Window {
    open: u32,
    owed: u32,
}

impl Window {
    /// Credit is given back in pieces of at least this many bytes, so that small writes do not
    /// cost a frame in each direction.
    const PIECE: u32 = INITIAL_CREDIT / 4;

    /// The window of a fresh stream.
    pub const fn new() -> Self {
        Self { open: INITIAL_CREDIT, owed: 0 }
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
        let room = INITIAL_CREDIT.saturating_sub(self.open);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.owed = self.owed.saturating_add(bytes).min(room);
        if self.owed < Self::PIECE {
            return None;
        }
        self.open += self.owed;
        Some(std::mem::take(&mut self.owed))
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}
