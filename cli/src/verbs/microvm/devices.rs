//! The devices that a bare machine is asked to have.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;

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

/// All of them, in the order in which the guest finds them: disks first, so that the first is vda.
pub(super) fn all(args: &Boot) -> Result<Vec<Box<dyn Device>>, Fault> {
    let mut devices: Vec<Box<dyn Device>> = Vec::new();
    for disk in &args.disks {
        devices.push(Box::new(open_disk(disk)?));
    }
    for tap in &args.nets {
        devices.push(Box::new(open_net(tap)?));
    }
    for share in &args.shares {
        devices.push(Box::new(open_share(share)?));
    }
    if let Some(path) = &args.vsock {
        devices.push(Box::new(open_vsock(path)?));
    }
    if args.rng {
        devices.push(Box::new(Rng));
    }
    if args.balloon {
        devices.push(Box::new(Balloon::new().map_err(no_event)?));
    }
    Ok(devices)
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

/// Binds the socket, which is left to be removed by whoever named it.
fn open_vsock(path: &Path) -> Result<Vsock, Fault> {
    let refused = |error: io::Error| {
        Fault::new(Code::Microvm, format!("can't listen on the socket {}", path.display()))
            .hint("name a path that is not there yet, in a directory that this user may write")
            .because(error)
    };
    let listener = UnixListener::bind(path).map_err(refused)?;
    let (outside, asker) = broker(path).map_err(refused)?;
    let serve = move || outside.serve();
    std::thread::Builder::new().name("vsock-broker".to_owned()).spawn(serve).map_err(refused)?;
    let ends = Ends { agent: None, listener: Some(listener), asker: Some(asker) };
    Vsock::new(ends).map_err(refused)
}

fn open_share(share: &Share) -> Result<Fs, Fault> {
    let dir = share.dir.canonicalize();
    dir.and_then(|dir| Fs::new(&share.tag, &dir)).map_err(|error| {
        Fault::new(Code::Microvm, format!("can't share {} as {}", share.dir.display(), share.tag))
            .hint("give a directory, and a tag of 1 to 36 bytes: --share TAG=DIR")
            .because(error)
    })
}
