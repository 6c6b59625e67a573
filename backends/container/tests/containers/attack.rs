//! What the workload does to its own program, which it got by executing /proc/self/exe: as whoever
//! has opened the `/proc/PID/exe` of such a process could do too, then or later.

use std::fs::{File, FileTimes, Permissions, set_permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::ExitCode;
use std::time::SystemTime;

use rustix::fs::{XattrFlags, setxattr};

/// The program.
const OWN: &str = "/proc/self/exe";

pub(crate) fn attack_if_asked() -> Option<ExitCode> {
    std::env::var_os("MOAT_TEST_ATTACK")?;
    println!("attack");
    told("write", File::options().append(true).open(OWN));
    told("chmod", set_permissions(OWN, Permissions::from_mode(0o777)));
    told("chown", chown(OWN, Some(0), Some(1)));
    told("setxattr", setxattr(OWN, "user.moat", b"x", XattrFlags::empty()));
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    told("utimes", File::open(OWN).and_then(|file| file.set_times(times)));
    Some(ExitCode::SUCCESS)
}

fn told<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) {
    match result {
        Ok(_) => println!("{what} done"),
        Err(error) => println!("{what}: {error}"),
    }
}
