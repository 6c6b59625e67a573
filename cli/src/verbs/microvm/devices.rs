//! The devices that a bare machine is asked to have.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use moat_core::diagnose::{Code, Fault};
use moat_microvm::devices::virtio::Device;
use moat_microvm::devices::virtio::balloon::Balloon;
use moat_microvm::devices::virtio::blk::{Disk, DiskOptions};
use moat_microvm::devices::virtio::fs::Fs;
use moat_microvm::devices::virtio::net::{Net, NetOptions, Tap};
use moat_microvm::devices::virtio::rng::Rng;
use moat_microvm::devices::virtio::vsock::broker::broker;
use moat_microvm::devices::virtio::vsock::{Ends, Vsock};

use super::no_event;
use crate::args::{Boot, DiskArg, Share};

/// A machine's devices.
pub(super) type Devices = Vec<Box<dyn Device>>;

/// All of them, in the order in which the guest finds them: disks first, so that the first is vda.
/// And the socket of its streams, which is there until it is dropped.
pub(super) fn all(args: &Boot) -> Result<(Devices, Option<Bound>), Fault> {
    let mut devices = Devices::new();
    for disk in &args.disks {
        devices.push(Box::new(open_disk(disk)?));
    }
    for tap in &args.nets {
        devices.push(Box::new(open_net(tap)?));
    }
    for share in &args.shares {
        devices.push(Box::new(open_share(share)?));
    }
    let mut socket = None;
    if let Some(path) = &args.vsock {
        let (vsock, bound) = open_vsock(path)?;
        devices.push(Box::new(vsock));
        socket = Some(bound);
    }
    if args.rng {
        devices.push(Box::new(Rng));
    }
    if args.balloon {
        devices.push(Box::new(Balloon::new().map_err(no_event)?));
    }
    Ok((devices, socket))
}

fn open_disk(disk: &DiskArg) -> Result<Disk, Fault> {
    let refused = |error: Box<dyn std::error::Error + Send + Sync>| {
        Fault::new(Code::Microvm, format!("can't use the disk {}", disk.file.display()))
            .hint("give a raw image or a block device that no other machine uses; FILE:ro is only read")
            .because(error)
    };
    let file = File::options().read(true).write(!disk.read_only).open(&disk.file);
    let file = file.map_err(|error| refused(error.into()))?;
    let options = DiskOptions { read_only: disk.read_only, ..Default::default() };
    Disk::new(file, &options).map_err(|error| refused(error.into()))
}

fn open_net(tap: &str) -> Result<Net, Fault> {
    let refused = |error: Box<dyn std::error::Error + Send + Sync>| {
        Fault::new(Code::Microvm, format!("can't use the tap device {tap}"))
            .hint(format!(
                "as root, make one that you may use: ip tuntap add {tap} mode tap user $USER vnet_hdr"
            ))
            .because(error)
    };
    let tap = Tap::open(tap).map_err(|error| refused(error.into()))?;
    Net::new(tap, &NetOptions::default()).map_err(|error| refused(error.into()))
}

/// A socket's file, which is removed with this, unless another has taken its place.
pub(super) struct Bound {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl Bound {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: identity(path)? })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            // The directory may be nobody's to write by now; then it is left.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

fn open_vsock(path: &Path) -> Result<(Vsock, Bound), Fault> {
    let refused = |error: io::Error| {
        Fault::new(Code::Microvm, format!("can't listen on the socket {}", path.display()))
            .hint("name a path that is not there yet, in a directory that this user may write")
            .because(error)
    };
    let listener = UnixListener::bind(path).map_err(refused)?;
    let bound = Bound::of(path).map_err(refused)?;
    let (outside, asker) = broker(path).map_err(refused)?;
    let serve = move || outside.serve();
    std::thread::Builder::new().name("vsock-broker".to_owned()).spawn(serve).map_err(refused)?;
    let ends = Ends { agent: None, listener: Some(listener), asker: Some(asker) };
    Ok((Vsock::new(ends).map_err(refused)?, bound))
}

fn open_share(share: &Share) -> Result<Fs, Fault> {
    let dir = share.dir.canonicalize();
    dir.and_then(|dir| Fs::new(&share.tag, &dir)).map_err(|error| {
        Fault::new(Code::Microvm, format!("can't share {} as {}", share.dir.display(), share.tag))
            .hint("give a directory, and a tag of 1 to 36 bytes: --share TAG=DIR")
            .because(error)
    })
}
