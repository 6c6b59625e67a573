//! The workload is not moat's own program, however it asks for that.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use moat_tests::moat::{self, Moat};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::Field;
use crate::inside::{self, Tries, number, open};

pub(super) const CASE: Case = Case {
    name: "executable_as_command",
    does: "is /proc/self/exe: as command, through a symlink, as a script's interpreter; opens it for writing and changes its mode",
    cve: Some("CVE-2019-5736"),
    hole: None,
    attack,
    behind,
    open: in_the_open,
};

const COMMANDS: [&str; 3] = ["/proc/self/exe", "/link", "/script"];

/// Run as what it asked for.
fn attack(tries: &Tries, _: &[&str]) {
    let exe = "/proc/self/exe";
    // A program that runs can't be written, which is found out after all checks.
    let opened = open(exe, OFlag::O_RDWR).map(|_| "opened");
    tries.door("open to write", opened, &[Errno::ETXTBSY]);
    let changed = fs::set_permissions(exe, fs::Permissions::from_mode(0o777));
    tries.of("change its mode", changed.map(|()| "changed").map_err(|error| number(&error)));
}

/// The ways to ask for it in the root.
fn prepare(field: &Field<'_>) -> Result<()> {
    let root = field.space.root();
    symlink("/proc/self/exe", root.join("link"))?;
    fs::write(root.join("script"), "#!/proc/self/exe\n")?;
    Ok(fs::set_permissions(root.join("script"), fs::Permissions::from_mode(0o755))?)
}

/// All that tells of a change.
fn state(program: &Path) -> Result<(Vec<u8>, [i64; 3])> {
    let found = fs::metadata(program)?;
    let numbers = [found.mode().into(), found.uid().into(), found.mtime_nsec()];
    Ok((fs::read(program)?, numbers))
}

fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    prepare(field)?;
    field.space.spec("")?;
    // Not the one that other tests run.
    let program: PathBuf = field.space.path().join("moat");
    fs::copy(moat::executable()?, &program)?;
    let before = state(&program)?;
    let mut found = Vec::new();
    for command in COMMANDS {
        let args = field.space.run_args(&[command, inside::ASKED, CASE.name]);
        let moat = Moat::program(&program.display().to_string(), &args).dir(field.space.path());
        let seen = moat.run()?;
        ensure!(Evidence::parse(&seen.out()).is_empty(), "another program ran: {}", seen.shown());
        let last = seen.err().lines().rfind(|line| line.starts_with("error")).map(str::to_owned);
        let last = last.unwrap_or_else(|| seen.shown());
        let changed = state(&program)? != before;
        for what in ["open to write", "change its mode"] {
            found.push(Evidence::when(changed, what, format!("{command}: {last}")));
        }
    }
    Ok(found)
}

fn in_the_open(field: &Field<'_>) -> Result<Vec<Evidence>> {
    prepare(field)?;
    let mut found = Vec::new();
    for command in COMMANDS {
        found.extend(field.naive(|naive| naive.command[0] = command.to_owned())?);
        let program = field.naive_executable();
        let mode = fs::metadata(&program)?.mode() & 0o7777;
        ensure!(mode == 0o777, "on the host, the mode of the naive runtime is {mode:o}");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    Ok(found)
}
