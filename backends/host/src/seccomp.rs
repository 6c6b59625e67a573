//! The user's filter of system calls, read from its file when a run is planned.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use moat_core::diagnose::{Code, Fault};
use moat_core::sandbox;
use moat_core::seccomp::{self, Read, TEXT_LIMIT};
use moat_core::spec::{Capability, Resolved, Seccomp};

/// The filter that a workload is to have.
///
/// # Errors
/// When the user's can't be read or has mistakes.
pub fn filter(workload: &Resolved) -> Result<sandbox::Seccomp, Fault> {
    match &workload.security.seccomp {
        Seccomp::Default => Ok(sandbox::Seccomp::Default),
        Seccomp::File(path) => {
            let read = read(path, &workload.security.capabilities())?;
            Ok(sandbox::Seccomp::Profile(Box::new(read.profile)))
        }
    }
}

/// Reads a profile for a workload with these capabilities.
///
/// # Errors
/// When it can't be read or has mistakes.
pub fn read(path: &Path, capabilities: &[Capability]) -> Result<Read, Fault> {
    let what = format!("seccomp profile {}", path.display());
    let text = text(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "write \"default\" for moat's own, or the path of a file",
            io::ErrorKind::PermissionDenied => "see that this user may read it",
            _ => "name a file in the OCI's JSON format",
        };
        Fault::new(Code::Spec, format!("{what} can't be read")).hint(hint).because(error)
    })?;
    seccomp::read(&path.display().to_string(), &text, capabilities).map_err(|mistakes| {
        let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        Fault::new(Code::Spec, format!("{what}: {}", mistakes.join("\n  ")))
            .hint("the format is that of `linux.seccomp` in the OCI's runtime-spec")
    })
}

/// A regular file's text; of a longer one than any profile is no more than shows that.
fn text(path: &Path) -> io::Result<Vec<u8>> {
    // A FIFO that nobody writes to would be waited for, and a terminal taken.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    let most = u64::try_from(TEXT_LIMIT).unwrap_or(u64::MAX);
    file.take(most.saturating_add(1)).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(path: &Path) -> String {
        let fault = read(path, &[]).expect_err("refused");
        format!("{fault:?}")
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let absent = fault(&dir.path().join("none.json"));
        assert!(absent.contains("none.json can't be read"), "{absent}");
        assert!(fault(dir.path()).contains("it is not a regular file"));
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(fault(&fifo).contains("it is not a regular file"));
        assert!(fault(Path::new("/dev/zero")).contains("it is not a regular file"));
        let long = dir.path().join("long.json");
        File::create(&long).unwrap().set_len(1 << 40).unwrap();
        assert!(fault(&long).contains("1048577 bytes"), "{}", fault(&long));
        let wrong = dir.path().join("wrong.json");
        let text = r#"{"defaultAction": "ALLOW", "flags": ["x"]}"#;
        std::fs::write(&wrong, text).unwrap();
        let wrong = fault(&wrong);
        assert!(wrong.contains("defaultAction") && wrong.contains("flags[0]"), "{wrong}");
    }
}
