//! What a chain asks of the disk, checked before anything is done.

use super::super::Broken;
use super::super::buffers::Buffers;
use super::super::queue::Parts;
use super::layout::{
    DISCARD_RANGES, DISCARD_SECTORS, HEADER, MAX_DATA, RANGE, SECTOR, Status, UNMAP, ZERO_RANGES,
    ZERO_SECTORS, feature, kind,
};

/// What the disk allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Size of the disk.
    pub(super) sectors: u64,
    pub(super) read_only: bool,
    /// What the driver took of the disk's features.
    pub(super) features: u64,
}

/// A chain that was understood.
#[derive(Debug)]
pub(super) struct Request {
    head: u16,
    /// One byte.
    status: Buffers,
    /// What lies before the status in buffers to write.
    answer: usize,
    pub(super) work: Result<Work, Status>,
}

/// What is to be done, within the disk's bounds. Offsets and lengths in bytes.
#[derive(Debug)]
pub(super) enum Work {
    Read { data: Buffers, offset: u64 },
    Write { data: Buffers, offset: u64 },
    Flush,
    Identify { data: Buffers },
    Discard(Vec<Range>),
    Zero(Range),
}

/// A part of the disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) length: u64,
    /// Its blocks may be given back.
    pub(super) unmap: bool,
}

impl Request {
    /// Understands a chain.
    ///
    /// # Errors
    /// When it has no header, or no byte for the answer: then it can't even be refused.
    pub(super) fn parse(parts: Parts, rules: Rules) -> Result<Self, Broken> {
        let broken = |reason: &str| Broken::Buffer { reason: reason.to_owned() };
        let Parts { head, mut readable, writable: mut answer } = parts;
        let mut header = [0; HEADER];
        if readable.copy_to(0, &mut header) < HEADER {
            return Err(broken("no header of a disk request"));
        }
        let data = readable.split_off(HEADER);
        let before = answer.len().checked_sub(1).ok_or_else(|| broken("no room for a status"))?;
        let status = answer.split_off(before);
        let work = understand(header, data, answer, rules);
        Ok(Self { head, status, answer: before, work })
    }

    /// Bytes to count against the disk's limits.
    pub(super) fn bytes(&self) -> u64 {
        match &self.work {
            Ok(Work::Read { data, .. } | Work::Write { data, .. }) => data.len() as u64,
            Ok(Work::Zero(range)) => range.length,
            _ => 0,
        }
    }

    /// Answers, and returns the chain and what the device wrote of it, from its first buffer on.
    pub(super) fn finish(self, status: Status) -> (u16, u32) {
        self.status.copy_from(0, &[status as u8]);
        let whole = status == Status::Ok || self.answer == 0;
        let written = if whole { self.answer + 1 } else { 0 };
        (self.head, u32::try_from(written).unwrap_or(0))
    }
}

fn understand(
    header: [u8; HEADER],
    data: Buffers,
    answer: Buffers,
    rules: Rules,
) -> Result<Work, Status> {
    let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
    let sector = u64::from_le_bytes(sector);
    match u32::from_le_bytes([k0, k1, k2, k3]) {
        kind::IN => {
            let answer = alone(answer, &data)?;
            let offset = place(sector, answer.len(), rules)?;
            Ok(Work::Read { data: answer, offset })
        }
        kind::OUT => {
            let data = alone(data, &answer)?;
            writable(rules)?;
            let offset = place(sector, data.len(), rules)?;
            Ok(Work::Write { data, offset })
        }
        kind::FLUSH => Ok(Work::Flush),
        kind::GET_ID => Ok(Work::Identify { data: alone(answer, &data)? }),
        kind::DISCARD if rules.features & feature::DISCARD != 0 => {
            writable(rules)?;
            let limits = (DISCARD_RANGES, DISCARD_SECTORS);
            let ranges = ranges(&alone(data, &answer)?, limits, rules)?;
            // Reserved for discards (5.2.6.2).
            if ranges.iter().any(|range| range.unmap) {
                return Err(Status::Unsupported);
            }
            Ok(Work::Discard(ranges))
        }
        kind::WRITE_ZEROES if rules.features & feature::WRITE_ZEROES != 0 => {
            writable(rules)?;
            let limits = (ZERO_RANGES, ZERO_SECTORS);
            let ranges = ranges(&alone(data, &answer)?, limits, rules)?;
            ranges.first().copied().map(Work::Zero).ok_or(Status::Failed)
        }
        _ => Err(Status::Unsupported),
    }
}

/// `data`, unless there is some in the wrong direction as well.
fn alone(data: Buffers, other: &Buffers) -> Result<Buffers, Status> {
    if other.len() == 0 { Ok(data) } else { Err(Status::Failed) }
}

fn writable(rules: Rules) -> Result<(), Status> {
    if rules.read_only { Err(Status::Failed) } else { Ok(()) }
}

/// Where `length` bytes at `sector` lie, if the disk has them.
fn place(sector: u64, length: usize, rules: Rules) -> Result<u64, Status> {
    let length = length as u64;
    if length > MAX_DATA as u64 || !length.is_multiple_of(SECTOR) {
        return Err(Status::Failed);
    }
    let end = sector.checked_add(length / SECTOR).ok_or(Status::Failed)?;
    if end > rules.sectors {
        return Err(Status::Failed);
    }
    sector.checked_mul(SECTOR).ok_or(Status::Failed)
}

fn ranges(data: &Buffers, limits: (u32, u32), rules: Rules) -> Result<Vec<Range>, Status> {
    let (most, sectors) = limits;
    let count = data.len() / RANGE;
    let bounds = 1..=usize::try_from(most).unwrap_or(0);
    if !data.len().is_multiple_of(RANGE) || !bounds.contains(&count) {
        return Err(Status::Failed);
    }
    (0..count).map(|index| range(data, index * RANGE, sectors, rules)).collect()
}

fn range(data: &Buffers, at: usize, most: u32, rules: Rules) -> Result<Range, Status> {
    let mut bytes = [0; RANGE];
    data.copy_to(at, &mut bytes);
    let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = bytes;
    let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let count = u32::from_le_bytes([n0, n1, n2, n3]);
    let flags = u32::from_le_bytes(flags);
    if flags & !UNMAP != 0 {
        return Err(Status::Unsupported);
    }
    let end = sector.checked_add(count.into()).ok_or(Status::Failed)?;
    if count > most || end > rules.sectors {
        return Err(Status::Failed);
    }
    let offset = sector.checked_mul(SECTOR).ok_or(Status::Failed)?;
    Ok(Range { offset, length: u64::from(count) * SECTOR, unmap: flags & UNMAP != 0 })
}
