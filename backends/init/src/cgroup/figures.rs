//! What a group uses, from its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use moat_core::cgroup::{Controller, Version};
use moat_core::spec::Bytes;
use moat_core::workload::{Figures, Io};
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::{Cgroup, Error, file, process};

impl Cgroup {
    /// What its processes use and have used.
    ///
    /// # Errors
    /// A file that can't be read or says something else.
    pub fn figures(&self) -> Result<Figures, Error> {
        let (memory, memory_limit) = self.pair(
            Controller::Memory,
            ("memory.usage_in_bytes", "memory.limit_in_bytes"),
            ("memory.current", "memory.max"),
        )?;
        let pids = ("pids.current", "pids.max");
        let (pids, pids_limit) = self.pair(Controller::Pids, pids, pids)?;
        Ok(Figures {
            cpu: self.cpu()?,
            memory: Bytes::new(memory),
            memory_limit: Bytes::new(memory_limit),
            pids,
            pids_limit,
            io: self.io()?,
            oom_kills: self.oom_kills()?,
        })
    }

    /// What is used and what may be, of one controller; the files' names on v1 and v2.
    fn pair(
        &self,
        controller: Controller,
        v1: (&'static str, &'static str),
        v2: (&'static str, &'static str),
    ) -> Result<(u64, u64), Error> {
        let Some((tree, dir)) = self.tree(controller) else {
            return Err(Error::NoController { path: self.name.clone().into(), controller });
        };
        let (used, limit) = match tree.version {
            Version::V1 => v1,
            Version::V2 => v2,
        };
        Ok((number(&dir, used)?, number(&dir, limit)?))
    }

    /// Time on processors. Every group of v2 counts it; on v1 a controller does that is not joined
    /// for its own sake, so that where it is mounted apart the processes themselves are asked. Then
    /// a process is missing that ended unheard, its parent ignoring the ends of its children.
    fn cpu(&self) -> Result<Option<Duration>, Error> {
        if let Some(dir) = self.of_version(Version::V2).next() {
            let path = dir.join("cpu.stat");
            let used = file::value(&file::read(&path)?, "usage_usec").map(Duration::from_micros);
            return used.map(Some).ok_or(Error::Strange { path, key: "usage_usec" });
        }
        if let Some((_, dir)) = self.tree(Controller::Cpu) {
            match number(&dir, "cpuacct.usage") {
                Err(error) if error.is_not_found() => {}
                used => return used.map(|nanoseconds| Some(Duration::from_nanos(nanoseconds))),
            }
        }
        let Some(members) = self.members() else { return Ok(None) };
        let Ok(Some(second)) = sysconf(SysconfVar::CLK_TCK) else { return Ok(None) };
        let Some(second) = u64::try_from(second).ok().filter(|second| *second > 0) else {
            return Ok(None);
        };
        let ticks = process::list(&members)?.into_iter().filter_map(ticks);
        let ticks = ticks.fold(0, u64::saturating_add);
        let rest = Duration::from_nanos(ticks % second * 1_000_000_000 / second);
        Ok(Some(Duration::from_secs(ticks / second) + rest))
    }

    /// What was read and written of block devices, where that is counted.
    fn io(&self) -> Result<Option<Io>, Error> {
        if let Some(dir) = self.of_version(Version::V2).next() {
            return match file::read(&dir.join("io.stat")) {
                Err(error) if error.is_not_found() => Ok(None),
                text => text.map(|text| Some(unified_io(&text))),
            };
        }
        match self.tree(Controller::Io) {
            Some((_, dir)) => {
                let text = file::read(&dir.join("blkio.throttle.io_service_bytes"))?;
                Ok(Some(legacy_io(&text)))
            }
            None => Ok(None),
        }
    }
}

/// A file of one number; `max` is without limit.
fn number(dir: &Path, name: &'static str) -> Result<u64, Error> {
    let path: PathBuf = dir.join(name);
    match file::read(&path)?.trim() {
        "max" => Ok(u64::MAX),
        text => text.parse().map_err(|_| Error::Strange { path, key: "number" }),
    }
}

/// Clock ticks that a process, and those of its children that it has heard the end of, were on
/// processors: fields 14 to 17 of its stat (proc(5)), counted from behind the command.
fn ticks(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    let times = after.split_ascii_whitespace().skip(11).take(4);
    times
        .map(|field| field.parse().ok())
        .try_fold(0u64, |sum, field: Option<u64>| field.map(|field| sum.saturating_add(field)))
}

/// `8:16 rbytes=180224 wbytes=0 rios=11 ...`
fn unified_io(text: &str) -> Io {
    let sum = |key: &str| {
        let values = text
            .split_ascii_whitespace()
            .filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok());
        Bytes::new(values.fold(0, u64::saturating_add))
    };
    Io { read: sum("rbytes"), written: sum("wbytes") }
}

/// `8:16 Read 180224`
fn legacy_io(text: &str) -> Io {
    let sum = |what: &str| {
        let values = text.lines().filter_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            words.next().filter(|word| *word == what)?;
            words.next()?.parse::<u64>().ok()
        });
        Bytes::new(values.fold(0, u64::saturating_add))
    };
    Io { read: sum("Read"), written: sum("Write") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_devices_are_summed() {
        let v2 = "8:16 rbytes=100 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:0 rbytes=1 wbytes=2\n";
        assert_eq!(unified_io(v2), Io { read: Bytes::new(101), written: Bytes::new(22) });
        let v1 = "8:0 Read 5\n8:0 Write 7\n8:0 Sync 12\n8:0 Total 12\n8:16 Read 1\nTotal 13\n";
        assert_eq!(legacy_io(v1), Io { read: Bytes::new(6), written: Bytes::new(7) });
        assert_eq!(legacy_io("Total 0\n"), Io { read: Bytes::new(0), written: Bytes::new(0) });
    }

    #[test]
    fn this_process_has_used_a_processor() {
        let began = std::time::Instant::now();
        while ticks(Pid::this()) == Some(0) {
            assert!(began.elapsed() < Duration::from_secs(10));
        }
        assert!(ticks(Pid::this()).is_some());
    }
}
