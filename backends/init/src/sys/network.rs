//! The loopback interface (netdevice(7)).
//!
//! Unsafe because ioctl is: both requests read and write one whole ifreq that lives across the
//! call, and the member of its union that is used is the one they define.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Brings up `lo` in the process's network namespace. A kernel without network has none, which is
/// fine.
///
/// # Errors
/// The kernel's.
pub(crate) fn loopback_up() -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = match socket(AddressFamily::Inet, SockType::Datagram, flags, None) {
        Err(Errno::EAFNOSUPPORT) => return Ok(()),
        socket => socket?,
    };
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = byte.cast_signed();
    }
    // SAFETY: SIOCGIFFLAGS reads the name and writes the flags.
    Errno::result(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request)
    })?;
    // SAFETY: the flags are what the request above has just filled.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let up = libc::c_short::try_from(libc::IFF_UP).map_err(|_| Errno::EINVAL)?;
    if flags & up != 0 {
        return Ok(());
    }
    request.ifr_ifru.ifru_flags = flags | up;
    // SAFETY: SIOCSIFFLAGS reads name and flags.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) })
        .map(drop)
}
