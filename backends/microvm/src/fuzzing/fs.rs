//! FUSE requests against a share on disk, and a check that nothing around the share has changed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::driver::{Driver, NEXT, WRITE, memory};
use super::input::Input;
use crate::devices::virtio::fs::Fs;

/// What the only file around the share says.
pub(crate) const SECRET: &[u8] = b"outside-7c1f09";
/// Requests of a run.
const REQUESTS: usize = 16;
/// FUSE's operations, with some that do not exist (Linux include/uapi/linux/fuse.h).
const OPERATIONS: u32 = 56;
/// The queue of ordinary requests.
pub(crate) const REQUEST_QUEUE: usize = 1;

/// A share, and around it what no guest may see or change.
#[derive(Debug)]
pub(crate) struct Surroundings {
    dir: TempDir,
    before: Vec<Seen>,
}

/// What is noted of a file: name, mode, owner, size, links and times of change in nanoseconds.
type Seen = (PathBuf, u32, u32, u64, u64, (i64, i64), (i64, i64));

impl Surroundings {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("outside")).unwrap();
        fs::write(at("outside/secret"), SECRET).unwrap();
        fs::create_dir_all(at("share/dir/inner")).unwrap();
        fs::write(at("share/file"), b"text").unwrap();
        fs::write(at("share/dir/other"), vec![b'o'; 5000]).unwrap();
        symlink("../outside/secret", at("share/relative")).unwrap();
        symlink(at("outside"), at("share/absolute")).unwrap();
        // So that a change is seen even within one tick of the filesystem's clock.
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        for name in ["outside/secret", "outside"] {
            fs::File::open(at(name)).unwrap().set_modified(old).unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut around = Self { dir, before: Vec::new() };
        around.before = around.look();
        around
    }

    pub(crate) fn share(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    /// The share's device.
    pub(crate) fn device(&self) -> Fs {
        Fs::new("moat", &self.share()).unwrap()
    }

    pub(crate) fn driver_in(&self, memory: Arc<GuestMemoryMmap>) -> Driver {
        Driver::with_memory(Box::new(self.device()), memory)
    }

    fn look(&self) -> Vec<Seen> {
        let mut names = vec![self.dir.path().to_owned(), self.dir.path().join("outside")];
        for dir in names.clone() {
            names.extend(fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()));
        }
        names.sort();
        names.dedup();
        names.retain(|name| *name != self.share());
        let see = |name: PathBuf| {
            let meta = fs::symlink_metadata(&name).unwrap();
            let (modified, changed) =
                ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
            (name, meta.mode(), meta.uid(), meta.size(), meta.nlink(), modified, changed)
        };
        names.into_iter().map(see).collect()
    }

    /// Nothing around the share has changed, and nothing of it is in the guest's memory.
    pub(crate) fn check(&self, memory: &GuestMemoryMmap) {
        assert_eq!(self.look(), self.before, "something around the share has changed");
        assert_eq!(fs::read(self.dir.path().join("outside/secret")).unwrap(), SECRET);
        let mut all = vec![0; 1 << 20];
        memory.read_slice(&mut all, GuestAddress(0)).unwrap();
        assert!(memchr::memmem::find(&all, SECRET).is_none(), "the guest has read the secret");
    }
}

/// A request's header (`struct fuse_in_header`): length, operation, unique, node, user 0, group 0,
/// process 0, and no extension.
pub(crate) fn header(length: u32, operation: u32, node: u64) -> Vec<u8> {
    let mut bytes = [length.to_le_bytes(), operation.to_le_bytes()].concat();
    bytes.extend(7u64.to_le_bytes());
    bytes.extend(node.to_le_bytes());
    bytes.extend([0; 16]);
    bytes
}

/// A whole request that tells the truth about its length.
pub(crate) fn request(operation: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(40 + body.len()).unwrap();
    [header(length, operation, node), body.to_vec()].concat()
}

/// FUSE_INIT (operation 26) of Linux's own client: version 7.38, read-ahead of 128 KiB, all flags.
pub(crate) fn init() -> Vec<u8> {
    let mut body = Vec::new();
    for field in [7u32, 38, 1 << 17, 0xf7ff_ffff, 0] {
        body.extend(field.to_le_bytes());
    }
    body.resize(64, 0);
    request(26, 0, &body)
}

/// Up to 16 requests: each an operation, a node, choices, a length and so many bytes.
pub fn fs(data: &[u8]) {
    let around = Surroundings::new();
    let mut driver = around.driver_in(memory());
    driver.start(0);
    let mut input = Input::new(data);
    if input.u8() & 1 == 0 {
        driver.ask(REQUEST_QUEUE, &init(), 200);
    }
    for _ in 1..REQUESTS {
        if input.is_empty() {
            break;
        }
        ask(&mut driver, &mut input);
    }
    driver.kick(REQUEST_QUEUE);
    // A chain that is none is answered by a request for a reset.
    driver.settle(REQUEST_QUEUE);
    driver.transport.stop();
    around.check(&driver.memory);
}

fn ask(driver: &mut Driver, input: &mut Input<'_>) {
    let operation = u32::from(input.u8()) % OPERATIONS;
    let node = u64::from(input.u8());
    let choices = input.u8();
    let length = usize::from(input.u8());
    let body = input.bytes(length);
    let mut request = request(operation, node, body);
    if choices & 1 != 0 {
        request.get_mut(..4).unwrap().copy_from_slice(&input.u32().to_le_bytes());
    }
    if choices & 2 != 0 {
        request.get_mut(16..24).unwrap().copy_from_slice(&input.u64().to_le_bytes());
    }
    let room = [0, 16, 160, 0x2000][usize::from(choices >> 2 & 3)];
    let at = driver.buffer(0x200);
    driver.memory.write_slice(&request, GuestAddress(at)).unwrap();
    let size = u32::try_from(request.len()).unwrap();
    let split = if choices & 16 != 0 { size.min(u32::from(input.u8())) } else { size };
    let answer = driver.buffer(u64::from(room));
    let chain = [
        (at, split, NEXT, 0),
        (at + u64::from(split), size - split, NEXT, 0),
        (answer, room / 2, WRITE | NEXT, 0),
        (answer + u64::from(room / 2), room - room / 2, WRITE, 0),
    ];
    driver.push(REQUEST_QUEUE, &chain);
}
