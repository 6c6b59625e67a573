//! Each kind of thread in a process of its own, which is this executable once more: what it must be
//! able to do leaves it alive, and each thing that it must not do kills it.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{catch_unwind, set_hook};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::{Mode, SFlag, mknod, mknodat};
use nix::unistd::{Pid, Uid, chroot, getpid, setresuid, setuid};
use vm_memory::mmap::MmapRegion;

use super::*;

const ASKED: &str = "MOAT_TEST_JAIL";

const THREADS: [(&str, Thread); 5] = [
    ("main", Thread::Main),
    ("vcpu", Thread::Vcpu),
    ("fs", Thread::Device("virtio-fs")),
    ("vsock", Thread::Device("virtio-vsock")),
    ("other", Thread::Device("virtio-unheard-of")),
];

/// Runs this executable once more, to do one thing in a confined thread.
fn child(thread: &str, deed: &str) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "jail::tests::confined", "--test-threads=1", "--nocapture"]);
    command.env(ASKED, format!("{thread} {deed}")).stdout(Stdio::null());
    command.status().unwrap()
}

/// What `child` runs; as a test of its own, nothing.
#[test]
fn confined() {
    let Ok(asked) = std::env::var(ASKED) else { return };
    let (name, deed) = asked.split_once(' ').unwrap();
    let thread = THREADS.iter().find(|(known, _)| *known == name).unwrap().1;
    let deed = DEEDS.iter().find(|(known, ..)| *known == deed).map_or(ordinary as fn(), |d| d.1);
    set_hook(Box::new(|_| {}));
    allocator::one_heap();
    let worker = std::thread::Builder::new().name(format!("test-{name}")).spawn(move || {
        confine(thread).unwrap();
        deed();
    });
    std::process::exit(i32::from(worker.unwrap().join().is_err()));
}

/// What all threads do.
fn ordinary() {
    #[inline(never)]
    fn deep(levels: u32) -> u64 {
        let room = [u64::from(levels); 512];
        if levels == 0 { room[0] } else { deep(levels - 1) + std::hint::black_box(room)[7] }
    }
    // Small and large pieces of memory, that grow and go.
    let mut pieces: Vec<Vec<u8>> = (1..200).map(|size| vec![1; size * 1000]).collect();
    pieces[0].resize(8 << 20, 2);
    pieces[0].resize(64 << 20, 3);
    drop(pieces);
    assert!(deep(200) > 0);
    assert!(catch_unwind(|| panic!("on purpose")).is_err());
    let (sender, receiver) = channel();
    sender.send(Instant::now()).unwrap();
    let sent: Instant = receiver.recv().unwrap();
    assert!(receiver.recv_timeout(Duration::from_millis(1)).is_err());
    std::thread::sleep(Duration::from_millis(1));
    assert!(sent.elapsed() > Duration::ZERO);
    std::io::stderr().write_all(b"").unwrap();
    // A map's keys are random, of the kernel.
    assert_eq!(HashMap::from([(1, 2)]).len(), 1);
}

/// What is tried, and the threads that may (and are then told no by something else).
type Deed = (&'static str, fn(), &'static [&'static str]);

const DEEDS: &[Deed] = &[
    (
        "socket",
        || tried(socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None)),
        &[],
    ),
    ("unix socket", || tried(std::os::unix::net::UnixStream::connect("/run/x")), &[]),
    ("open", || tried(std::fs::File::open("/etc/passwd")), &["fs"]),
    ("kvm", || tried(openat(AT_FDCWD, "/dev/kvm", OFlag::O_RDWR, Mode::empty())), &["fs"]),
    ("exec", || tried(Command::new("/bin/true").exec()), &[]),
    ("process", || tried(Command::new("/bin/true").spawn()), &[]),
    ("thread", || tried(std::thread::Builder::new().spawn(|| {})), &[]),
    ("namespace", || tried(unshare(CloneFlags::CLONE_NEWUSER)), &[]),
    (
        "mount",
        || tried(mount(Some("none"), "/none", Some("tmpfs"), MsFlags::empty(), None::<&str>)),
        &[],
    ),
    ("chroot", || tried(chroot("/none")), &[]),
    ("kill", || tried(kill(getpid(), Signal::SIGURG)), &[]),
    ("kill all", || tried(kill(Pid::from_raw(-1), None)), &[]),
    ("setuid", || tried(setuid(Uid::from_raw(1))), &[]),
    ("real user", || tried(setresuid(Uid::from_raw(1), Uid::from_raw(1), Uid::from_raw(1))), &[]),
    ("device", || tried(mknodat(AT_FDCWD, "/none/x", SFlag::S_IFCHR, Mode::empty(), 0x103)), &[]),
    ("old mknod", || tried(mknod("/none/x", SFlag::S_IFREG, Mode::empty(), 0)), &["fs"]),
    ("ioctl", || tried(nix::unistd::isatty(std::io::stderr())), &[]),
    ("prctl", || tried(nix::sys::prctl::set_dumpable(true)), &[]),
    ("limits", || tried(rights::set_limits()), &[]),
    ("program", || map(libc::PROT_READ | libc::PROT_EXEC), &[]),
    ("handler", || tried(crate::machine::install_kick_handler()), &[]),
    ("pidfd", || tried(moat_init::sys::clone::open_pid(Pid::from_raw(1))), &[]),
    ("list", || tried(std::fs::read_dir("/proc")), &["fs"]),
    ("remove", || tried(std::fs::remove_file(Path::new("/none/x"))), &[]),
];

/// Whatever came of it.
fn tried<T>(_: T) {}

fn map(protection: libc::c_int) {
    drop(MmapRegion::<()>::build(None, 4096, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS));
}

#[test]
fn what_threads_need_they_may() {
    for (thread, _) in THREADS {
        let status = child(thread, "ordinary");
        assert!(status.success(), "{thread}: {status}");
    }
}

#[test]
fn anything_else_kills_the_whole_process() {
    for (thread, _) in THREADS {
        for (deed, _, may) in DEEDS {
            let status = child(thread, deed);
            if may.contains(&thread) {
                assert!(status.success(), "{thread}, {deed}: {status}");
            } else {
                assert_eq!(status.signal(), Some(libc::SIGSYS), "{thread}, {deed}: {status}");
            }
        }
    }
}
