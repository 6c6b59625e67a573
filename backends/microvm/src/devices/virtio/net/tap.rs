//! A tap device of the host: its open descriptor, and the calls that set it up.
//!
//! Safety argument for the whole file: each ioctl is on a descriptor that `Tap` or the caller owns,
//! with the argument that tun's documentation and header give it (Linux
//! Documentation/networking/tuntap.rst, include/uapi/linux/if_tun.h): a number, or a pointer to a
//! live value of the right type, which the kernel reads or fills before it returns. The union in
//! `ifreq` is plain numbers: each of its fields may be read whatever was written.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::layout::{HEADER, feature};

const DEVICE: &str = "/dev/net/tun";

/// Ethernet frames, each behind a header of virtio's and nothing else.
const FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Everything that we ask a tap to do for us.
const OFFLOADS: libc::c_uint =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;

/// Why there is no tap device.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// A name that no interface can have.
    #[error("`{name}` can't be the name of an interface: it takes 1 to 15 bytes")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// `/dev/net/tun`, which makes taps.
    #[error("can't open {DEVICE}: is the kernel's module tun there?")]
    Open(#[source] io::Error),
    /// It can't be had, as a rule because another process has it, or for want of rights.
    #[error("can't attach to the tap device {name}")]
    Attach {
        /// Which.
        name: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The descriptor is something else.
    #[error("the descriptor is no tap device's")]
    Kind(#[source] io::Error),
    /// A tun, or a tap with other headers.
    #[error(
        "the device {name} is no tap with virtio's headers: open it with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR"
    )]
    Flags {
        /// Which.
        name: String,
    },
    /// The size of its headers, or that it must not block.
    #[error("can't set up the tap device {name}")]
    SetUp {
        /// Which.
        name: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// A tap device, attached, set to virtio's header of 12 bytes, not blocking.
#[derive(Debug)]
pub struct Tap {
    file: File,
    offloads: bool,
    /// Not a tap but a socket, which a test has the other end of.
    #[cfg(any(test, fuzzing))]
    fake: bool,
}

impl Tap {
    /// Attaches to the tap device `name` of this network namespace, making it if it is not there.
    /// That takes CAP_NET_ADMIN, or a device whose owner this user is.
    ///
    /// # Errors
    /// When the device can't be had.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_flags =
            libc::c_short::try_from(FLAGS).map_err(|_| TapError::Name { name: name.to_owned() })?;
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(DEVICE)
            .map_err(TapError::Open)?;
        // SAFETY: TUNSETIFF takes a pointer to an `ifreq` (head comment).
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
            .map_err(|source| TapError::Attach { name: name.to_owned(), source })?;
        Self::from_file(file)
    }

    /// Takes an open descriptor that is attached to a tap device.
    ///
    /// # Errors
    /// When it is something else, or was attached without `IFF_NO_PI` or `IFF_VNET_HDR`.
    pub fn from_file(file: File) -> Result<Self, TapError> {
        // SAFETY: an `ifreq` is numbers, for which all zeroes is a value.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        // SAFETY: TUNGETIFF takes a pointer to an `ifreq` (head comment).
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })
            .map_err(TapError::Kind)?;
        let name = name_of(&request);
        // SAFETY: plain numbers (head comment).
        let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
        if flags & FLAGS != FLAGS {
            return Err(TapError::Flags { name });
        }
        let set_up = |source| TapError::SetUp { name: name.clone(), source };
        let now = fcntl(&file, FcntlArg::F_GETFL).map_err(|error| set_up(error.into()))?;
        let now = OFlag::from_bits_retain(now) | OFlag::O_NONBLOCK;
        fcntl(&file, FcntlArg::F_SETFL(now)).map_err(|error| set_up(error.into()))?;
        let size = i32::try_from(HEADER).unwrap_or_default();
        // SAFETY: TUNSETVNETHDRSZ takes a pointer to an int (head comment).
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) })
            .map_err(set_up)?;
        let mut tap = Self {
            file,
            offloads: true,
            #[cfg(any(test, fuzzing))]
            fake: false,
        };
        tap.offloads = tap.offload(OFFLOADS).is_ok();
        tap.offload(0).map_err(set_up)?;
        Ok(tap)
    }

    /// A socket that keeps packets apart, in a tap's place.
    #[cfg(any(test, fuzzing))]
    #[allow(clippy::unwrap_used)]
    pub(crate) fn fake(socket: std::os::unix::net::UnixDatagram) -> Self {
        socket.set_nonblocking(true).unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(socket));
        Self { file, offloads: true, fake: true }
    }

    /// Whether it leaves out checksums and cuts packets up for us.
    pub(super) fn offloads(&self) -> bool {
        self.offloads
    }

    /// Lets the host leave to the guest what the guest's driver has agreed to do.
    ///
    /// # Errors
    /// When the device is gone.
    pub(super) fn set_features(&self, features: u64) -> io::Result<()> {
        let wanted = [
            (feature::GUEST_CSUM, libc::TUN_F_CSUM),
            (feature::GUEST_TSO4, libc::TUN_F_TSO4),
            (feature::GUEST_TSO6, libc::TUN_F_TSO6),
            (feature::GUEST_ECN, libc::TUN_F_TSO_ECN),
        ];
        let flags = wanted.iter().filter(|(bit, _)| features & bit != 0);
        let flags = flags.fold(0, |flags, (_, flag)| flags | flag);
        // Without checksums none of the others can be (5.1.3.1), and the kernel refuses them.
        self.offload(if flags & libc::TUN_F_CSUM == 0 { 0 } else { flags })
    }

    fn offload(&self, flags: libc::c_uint) -> io::Result<()> {
        #[cfg(any(test, fuzzing))]
        if self.fake {
            return Ok(());
        }
        let flags = libc::c_ulong::from(flags);
        // SAFETY: TUNSETOFFLOAD takes a number (head comment).
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, flags) })
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn request(name: &str) -> Result<libc::ifreq, TapError> {
    // SAFETY: an `ifreq` is numbers, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays 0.
    if !(1..request.ifr_name.len()).contains(&name.len()) || name.contains(['\0', '/', '%']) {
        return Err(TapError::Name { name: name.to_owned() });
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn name_of(request: &libc::ifreq) -> String {
    let bytes = request.ifr_name.iter().map(|byte| byte.cast_unsigned());
    let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
