//! From the command as written to execve(2), and from its refusal to the reason.

use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use moat_core::sandbox::StartError;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::{AccessFlags, eaccess};

use crate::error::Reason;
use crate::sys::trampoline::Trampoline;

/// A command with its environment, ready for the kernel.
#[derive(Debug)]
pub(crate) struct Command {
    program: String,
    argv: Vec<CString>,
    env: Vec<CString>,
    path: Option<String>,
}

impl Command {
    /// Takes a command as the spec has it.
    ///
    /// # Errors
    /// [`StartError::NotFound`] for an empty one; [`StartError::Setup`] for one with a NUL.
    pub(crate) fn new<'a>(
        argv: &[String],
        env: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    ) -> Result<Self, StartError> {
        let text = |text: String| {
            CString::new(text).map_err(|_| StartError::Setup {
                step: "pass arguments and environment".to_owned(),
                reason: "one has a NUL byte".to_owned(),
            })
        };
        let program = argv.first().cloned().unwrap_or_default();
        let path = env.clone().find(|(key, _)| *key == "PATH").map(|(_, path)| path.to_owned());
        let argv = argv.iter().cloned().map(text).collect::<Result<_, _>>()?;
        let env =
            env.map(|(key, value)| text(format!("{key}={value}"))).collect::<Result<_, _>>()?;
        Ok(Self { program, argv, env, path })
    }

    /// Finds what to become, as the user that the process is now.
    ///
    /// # Errors
    /// [`StartError::NotFound`] and [`StartError::NotExecutable`].
    pub(crate) fn found(&self) -> Result<Found<'_>, StartError> {
        let file = self.find()?;
        let name = name(&file).map_err(|_| self.not_found())?;
        Ok(Found { command: self, file, name })
    }

    /// The file that the command names: along `PATH` the first that can be executed, as a shell
    /// looks.
    fn find(&self) -> Result<PathBuf, StartError> {
        let program = &self.program;
        if program.is_empty() {
            return Err(self.not_found());
        }
        if program.contains('/') {
            return self.check(PathBuf::from(program));
        }
        let mut first_refusal = None;
        for dir in self.path.as_deref().unwrap_or_default().split(':') {
            // An empty entry is the working directory (environ(7)).
            let dir = if dir.is_empty() { "." } else { dir };
            match self.check(Path::new(dir).join(program)) {
                Err(StartError::NotFound { .. }) => {}
                Err(error) => {
                    first_refusal.get_or_insert(error);
                }
                found => return found,
            }
        }
        Err(first_refusal.unwrap_or_else(|| self.not_found()))
    }

    fn check(&self, file: PathBuf) -> Result<PathBuf, StartError> {
        let metadata = match std::fs::metadata(&file) {
            Ok(metadata) => metadata,
            Err(error) => {
                use std::io::ErrorKind::{NotADirectory, NotFound};
                return Err(match error.kind() {
                    NotFound | NotADirectory => self.not_found(),
                    _ => self.refused(error.reason()),
                });
            }
        };
        if metadata.is_dir() {
            return Err(self.refused("it is a directory".to_owned()));
        }
        if metadata.permissions().mode() & 0o111 == 0 {
            return Err(self.refused("its mode has no execute bit".to_owned()));
        }
        if is_moat(&file, &metadata) {
            return Err(self.refused("it is moat's own program".to_owned()));
        }
        match eaccess(&file, AccessFlags::X_OK) {
            Ok(()) => Ok(file),
            Err(errno) => Err(self.refused(errno.reason())),
        }
    }

    /// What the kernel's refusal of a file that was found means.
    pub(crate) fn refused_file(&self, file: &Path, errno: Errno) -> StartError {
        self.refused(match errno {
            // The file was there just now: it is what it is to be run with that is not.
            Errno::ENOENT => match interpreter(file) {
                Some(interpreter) => format!("its interpreter {interpreter} does not exist"),
                None => refusal(errno),
            },
            errno => refusal(errno),
        })
    }

    fn not_found(&self) -> StartError {
        StartError::NotFound { program: self.program.clone() }
    }

    fn refused(&self, reason: String) -> StartError {
        StartError::NotExecutable { program: self.program.clone(), reason }
    }
}

/// A command whose file is found. What is left makes no system call but execve(2), so that any
/// filter may be in force.
#[derive(Debug)]
pub(crate) struct Found<'c> {
    command: &'c Command,
    file: PathBuf,
    name: CString,
}

impl Found<'_> {
    /// Becomes the command; gives the reason if it can't.
    pub(crate) fn execute(self) -> StartError {
        let Err(errno) = nix::unistd::execve(&self.name, &self.command.argv, &self.command.env);
        self.command.refused_file(&self.file, errno)
    }

    /// As [`Found::execute`], by way of another program, which tells on its own line why it could
    /// not. `file` is then the one that it was to become; for `proc_is_ours` see
    /// [`Trampoline::become_command`].
    pub(crate) fn execute_by(
        self,
        way: &Trampoline<'_>,
        proc_is_ours: bool,
        file: &mut Option<PathBuf>,
    ) -> StartError {
        *file = Some(self.file);
        let errno =
            way.become_command(&self.name, &self.command.argv, &self.command.env, proc_is_ours);
        self.command.refused(errno.reason())
    }
}

/// What the kernel's refusal of a file means, as far as the number tells.
fn refusal(errno: Errno) -> String {
    match errno {
        Errno::ENOENT => "its interpreter does not exist".to_owned(),
        Errno::ENOEXEC => "it is in no format that this kernel can execute".to_owned(),
        errno => errno.reason(),
    }
}

/// That refusal, told by its number alone.
pub(crate) fn refused(number: u8) -> StartError {
    StartError::NotExecutable {
        program: "the command".to_owned(),
        reason: refusal(Errno::from_raw(i32::from(number))),
    }
}

fn name(file: &Path) -> Result<CString, std::ffi::NulError> {
    CString::new(file.as_os_str().as_bytes())
}

/// Whether a file is the program that this process runs, reached past every mount, by way of /proc
/// (the class of CVE-2019-5736). Where it is a mount's own file it is the user who put it there.
fn is_moat(file: &Path, metadata: &Metadata) -> bool {
    let own = std::fs::metadata("/proc/self/exe");
    let same = |own: &Metadata| (own.dev(), own.ino()) == (metadata.dev(), metadata.ino());
    if !own.is_ok_and(|own| same(&own)) {
        return false;
    }
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(AT_FDCWD, file, how).is_err()
}

/// What a script names on its first line.
fn interpreter(file: &Path) -> Option<String> {
    let mut start = [0; 256];
    let mut open = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file).ok()?;
    let length = open.read(&mut start).ok()?;
    let line = start.get(..length)?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line.strip_prefix(b"#!")?).ok()?;
    line.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, name: &str, text: &str, mode: u32) -> String {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn reason(program: &str, path: &str) -> StartError {
        let env = [("PATH", path)];
        let command = Command::new(&[program.to_owned()], env.iter().copied()).unwrap();
        match command.found() {
            Ok(found) => found.execute(),
            Err(error) => error,
        }
    }

    fn text(error: &StartError) -> String {
        error.to_string()
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let path = at.to_str().unwrap();
        assert!(matches!(reason("no-such", path), StartError::NotFound { .. }));
        assert!(matches!(reason("", path), StartError::NotFound { .. }));
        assert!(matches!(reason("/no/such", path), StartError::NotFound { .. }));
        assert!(text(&reason(path, path)).ends_with("it is a directory"));
        let plain = file(at, "plain", "x", 0o644);
        assert!(text(&reason(&plain, path)).ends_with("no execute bit"));
        assert!(text(&reason("plain", path)).ends_with("no execute bit"));
        let script = file(at, "script", "#!/no/such/sh -e\n", 0o755);
        assert!(text(&reason(&script, path)).ends_with("/no/such/sh does not exist"));
        let garbage = file(at, "garbage", "garbage", 0o755);
        assert!(text(&reason(&garbage, path)).ends_with("format that this kernel can execute"));
    }

    #[test]
    fn a_directory_on_the_path_is_passed_over_for_a_program_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::create_dir_all(one.join("tool")).unwrap();
        std::fs::create_dir(&two).unwrap();
        file(&two, "tool", "#!/no/such\n", 0o755);
        let path = format!("{}:{}", one.display(), two.display());
        assert!(text(&reason("tool", &path)).ends_with("/no/such does not exist"));
    }
}
