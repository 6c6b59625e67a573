//! Which thread of a VMM made a call that its filter forbids, by the kernel's log.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::Duration;

use moat_core::seccomp::numbered;

/// How often the log is read, and how long is between: the kernel writes it somewhat later.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// The longest record of the log (`PRINTKRB_RECORD_MAX`, kernel/printk).
const RECORD: usize = 2048;

/// What to tell of a VMM that the kernel has killed with SIGSYS.
pub(crate) fn by_filter(pid: u32) -> String {
    for _ in 0..TRIES {
        if let Some(found) = log().iter().rev().find_map(|record| culprit(record, pid)) {
            return found;
        }
        thread::sleep(PAUSE);
    }
    "a thread of the VMM made a system call that its filter forbids; `dmesg | grep type=1326` as \
     root may tell which"
        .to_owned()
}

/// The kernel's log as far as it is kept and this user may read it, a record each (`/dev/kmsg`,
/// Documentation/ABI/testing/dev-kmsg).
fn log() -> Vec<String> {
    let open = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
    let Ok(mut log) = open else { return Vec::new() };
    let mut records = Vec::new();
    let mut record = [0; RECORD];
    loop {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                let bytes = record.get(..length).unwrap_or_default();
                records.push(String::from_utf8_lossy(bytes).into_owned());
            }
            // Records were overwritten meanwhile: the read goes on with the oldest that is left.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => break,
        }
    }
    records
}

/// What the record says, if it is of a filter that killed this process (`AUDIT_SECCOMP`,
/// linux/audit.h).
fn culprit(record: &str, pid: u32) -> Option<String> {
    let said = |key: &str| {
        record.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    };
    if said("type") != Some("1326") || said("pid")?.parse() != Ok(pid) {
        return None;
    }
    let call: u32 = said("syscall")?.parse().ok()?;
    let name = numbered().find(|(number, _)| *number == call);
    let name = name.map_or_else(|| format!("number {call}"), |(_, name)| name.to_owned());
    // A thread's name is moat's own, or what a taken-over one made of it.
    let thread: String = said("comm")?.chars().filter(char::is_ascii_graphic).collect();
    let thread = thread.trim_matches('"');
    Some(format!("the VMM's thread {thread} made the system call {name}, which its filter forbids"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "5,1209,84211345,-;audit: type=1326 audit(1796064000.123:45): \
        auid=4294967295 uid=0 gid=0 ses=4294967295 subj=unconfined pid=4711 comm=\"virtio-fs\" \
        exe=\"/usr/bin/moat\" sig=31 arch=c000003e syscall=41 compat=0 ip=0x7f code=0x80000000\n";

    #[test]
    fn the_kernels_record_names_thread_and_call() {
        let text = culprit(RECORD, 4711).unwrap();
        assert_eq!(
            text,
            "the VMM's thread virtio-fs made the system call socket, which its filter forbids"
        );
        assert_eq!(culprit(RECORD, 471), None);
        assert_eq!(culprit(&RECORD.replace("1326", "1300"), 4711), None);
        let newer = culprit(&RECORD.replace("syscall=41", "syscall=9999"), 4711).unwrap();
        assert!(newer.contains("number 9999"), "{newer}");
    }
}
