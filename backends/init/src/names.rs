//! The files by which programs find names: /etc/hosts, /etc/hostname and /etc/resolv.conf. They are
//! new files in the writable layer, so that whatever the root has in their places, a symlink to
//! elsewhere say, is covered and neither followed nor changed.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use moat_core::sandbox::StartError;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fchmod, fstatat};

use crate::error::Step;
use crate::inside::{self, Owner};
use crate::layer::Layer;
use crate::sys::mount;

/// The most that is read of the root's own /etc/hosts, in bytes.
const HOSTS_LIMIT: u64 = 64 << 10;

/// Without a server in it the resolver asks this machine itself (resolv.conf(5)), where nobody
/// listens, so that a look-up fails at once.
const NO_SERVERS: &str = "# There are no name servers: network.mode is \"none\".\n";

/// Writes the files. `etc` is where the layer's lower directory has /etc.
///
/// # Errors
/// The step that failed.
pub(crate) fn write(
    upper: &mut Layer,
    etc: &str,
    hostname: &str,
    owner: Owner,
) -> Result<(), StartError> {
    let step = || "open /etc";
    let (dir, own) = match upper.open(etc).step(step)? {
        Some(dir) => (dir, upper.open_lower(etc).step(step)?),
        // Not a directory of its own, a symlink say: it is left as it is.
        None if lower_has(upper, etc).step(step)? => return Ok(()),
        None => (make_etc(upper, owner)?, None),
    };
    let own = own.map_or_else(String::new, |own| read_hosts(own.as_fd()));
    let files = [
        ("hosts", with_names(&own, hostname)),
        ("hostname", format!("{hostname}\n")),
        ("resolv.conf", NO_SERVERS.to_owned()),
    ];
    for (name, text) in files {
        new_file(dir.as_fd(), name, &text, owner).step(|| format!("write /etc/{name}"))?;
    }
    Ok(())
}

/// Whether the lower has anything at `path`.
fn lower_has(upper: &mut Layer, path: &str) -> nix::Result<bool> {
    let Some((parent, name)) = inside::split(path) else { return Ok(true) };
    let Some(parent) = upper.open_lower(parent)? else { return Ok(false) };
    match fstatat(&*parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Makes /etc in the layer of a root that has none.
fn make_etc(upper: &mut Layer, owner: Owner) -> Result<Rc<OwnedFd>, StartError> {
    let step = || "make /etc";
    let top = upper.open("/").step(step)?.ok_or(Errno::ENOENT).step(step)?;
    inside::new_directory(top.as_fd(), "etc", 0o755, owner).step(step)?;
    Ok(Rc::new(mount::place(&*top, "etc").step(step)?))
}

fn new_file(dir: BorrowedFd<'_>, name: &str, text: &str, owner: Owner) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let file = nix::fcntl::openat(dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    inside::give_open(file.as_fd(), owner)?;
    // Everyone's to read, whatever the umask.
    fchmod(&file, Mode::from_bits_truncate(0o644))?;
    let written = std::fs::File::from(file).write_all(text.as_bytes());
    written.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

/// The root's own hosts file, if it is a regular file of reasonable size.
fn read_hosts(etc: BorrowedFd<'_>) -> String {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let Ok(file) = nix::fcntl::openat(etc, "hosts", flags, Mode::empty()) else {
        return String::new();
    };
    let file = std::fs::File::from(file);
    let mut text = String::new();
    match file.metadata() {
        Ok(metadata) if metadata.is_file() && metadata.len() <= HOSTS_LIMIT => {
            match file.take(HOSTS_LIMIT).read_to_string(&mut text) {
                Ok(_) => text,
                Err(_) => String::new(),
            }
        }
        _ => String::new(),
    }
}

/// `hosts` with lines added for `localhost` and `hostname` where it lacks them.
fn with_names(hosts: &str, hostname: &str) -> String {
    let has = |name: &str| {
        hosts.lines().any(|line| {
            let line = line.split('#').next().unwrap_or_default();
            line.split_whitespace().skip(1).any(|word| word == name)
        })
    };
    let mut text = hosts.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if !has("localhost") {
        text.push_str("127.0.0.1 localhost\n::1 localhost\n");
    }
    if !has(hostname) {
        text.push_str("127.0.1.1 ");
        text.push_str(hostname);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::with_names;

    #[test]
    fn hosts_gains_only_what_it_lacks() {
        assert_eq!(with_names("", "box"), "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 box\n");
        let full = "127.0.0.1 localhost box\n";
        assert_eq!(with_names(full, "box"), full);
        assert_eq!(
            with_names("127.0.0.1 localhost # box", "box"),
            "127.0.0.1 localhost # box\n127.0.1.1 box\n"
        );
    }
}
