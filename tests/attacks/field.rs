//! The host's side of one attack: a directory with a root that holds the attacker, a secret outside
//! of it, and the two ways to run it.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use moat_tests::live::Live;
use moat_tests::moat::Moat;
use moat_tests::seen::Seen;
use moat_tests::workspace::Workspace;
use nix::sys::stat::makedev;
use tempfile::TempDir;

use crate::cases::Case;
use crate::evidence::{Evidence, Kind};
use crate::inside;
use crate::naive::{self, Naive};

/// What no workload may read: the content of [`Field::secret`].
pub(crate) const SECRET: &str = "the host's secret";

/// The attacker's path in the root.
pub(crate) const ATTACKER: &str = "/attack";

/// One side of one attack.
pub(crate) struct Field<'a> {
    /// Its directory, spec and root.
    pub(crate) space: Workspace,
    name: &'static str,
    attacker: &'a Attacker,
}

impl<'a> Field<'a> {
    pub(crate) fn new(case: &Case, attacker: &'a Attacker) -> Result<Self> {
        let space = Workspace::new(Some("container"))?;
        let field = Self { space, name: case.name, attacker };
        field.place_attacker("attack", 0o755)?;
        field.space.write("outside/secret", SECRET)?;
        Ok(field)
    }

    /// Puts one more copy of the attacker into the root.
    pub(crate) fn place_attacker(&self, name: &str, mode: u32) -> Result<PathBuf> {
        let path = self.space.root().join(name);
        self.attacker.copy(&path, mode)?;
        Ok(path)
    }

    /// A directory on the host that no workload is given.
    pub(crate) fn outside(&self) -> PathBuf {
        self.space.path().join("outside")
    }

    /// A file in it.
    pub(crate) fn secret(&self) -> String {
        self.outside().join("secret").display().to_string()
    }

    /// The command that is this attack, with these arguments of its own.
    pub(crate) fn command<'t>(&self, arguments: &[&'t str]) -> Vec<&'t str> {
        [&[ATTACKER, inside::ASKED, self.name], arguments].concat()
    }

    /// Attacks as a workload of moat, with these further lines in its spec.
    pub(crate) fn moat(&self, lines: &str) -> Result<Vec<Evidence>> {
        self.moat_with(lines, &[])
    }

    /// As [`moat`](Self::moat), with these arguments for the attack.
    pub(crate) fn moat_with(&self, lines: &str, arguments: &[&str]) -> Result<Vec<Evidence>> {
        self.space.spec(lines)?;
        told(&self.space.run(&self.command(arguments))?)
    }

    /// Attacks as a workload of moat that has CAP_SYS_ADMIN; `None` where moat refuses that, since ids
    /// can't be mapped.
    pub(crate) fn moat_as_admin(&self) -> Result<Option<Vec<Evidence>>> {
        self.space.spec("security = { cap_add = [\"SYS_ADMIN\"] }")?;
        let seen = self.space.run(&self.command(&[]))?;
        let refused = seen.err().contains("SYS_ADMIN can't be added");
        if refused { Ok(None) } else { told(&seen).map(Some) }
    }

    /// Attacks as a workload of the naive runtime, which this may change.
    pub(crate) fn naive(&self, change: impl FnOnce(&mut Naive)) -> Result<Vec<Evidence>> {
        self.naive_with(&[], change)
    }

    /// As [`naive`](Self::naive), with these arguments for the attack.
    pub(crate) fn naive_with(
        &self,
        arguments: &[&str],
        change: impl FnOnce(&mut Naive),
    ) -> Result<Vec<Evidence>> {
        told(&self.naive_moat(&[], arguments, change)?.run()?)
    }

    /// The naive runtime about to run the attack, started by a command that runs what follows it.
    pub(crate) fn naive_moat(
        &self,
        starter: &[&str],
        arguments: &[&str],
        change: impl FnOnce(&mut Naive),
    ) -> Result<Moat> {
        let mut runtime = Naive::new(self.space.root(), owned(&self.command(arguments)));
        change(&mut runtime);
        let runtime = serde_json::to_string(&runtime)?;
        self.naive_verb(starter, &[naive::ASKED, &runtime])
    }

    /// Runs a line of shell as the naive runtime's workload, until it says `ready`. It should end by
    /// itself. Gives its first process as well.
    pub(crate) fn naive_running(&self, script: &str) -> Result<(Live, String)> {
        let command = owned(&["/bin/sh", "-c", script]);
        let mut live = self.naive_moat(&[], &[], |naive| naive.command = command)?.start()?;
        live.wait_for("ready\n")?;
        live.wait_for(naive::FIRST)?;
        let out = live.out();
        let first = out.lines().find_map(|line| line.strip_prefix(naive::FIRST));
        Ok((live, first.context("no first process")?.to_owned()))
    }

    /// The naive runtime about to start one more process in what runs.
    pub(crate) fn naive_enter(
        &self,
        starter: &[&str],
        first: &str,
        change: impl FnOnce(&mut Naive),
    ) -> Result<Moat> {
        let mut runtime = Naive::new(self.space.root(), owned(&self.command(&[])));
        change(&mut runtime);
        let runtime = serde_json::to_string(&runtime)?;
        self.naive_verb(starter, &[naive::ENTER, first, &runtime])
    }

    fn naive_verb(&self, starter: &[&str], arguments: &[&str]) -> Result<Moat> {
        let program = self.naive_executable();
        if !program.exists() {
            self.attacker.copy(&program, 0o755)?;
        }
        let program = program.display().to_string();
        let words = [starter, &[program.as_str()], arguments].concat();
        let (program, words) = words.split_first().context("no command")?;
        Ok(Moat::program(program, words).dir(self.space.path()))
    }

    /// The naive runtime's own executable.
    pub(crate) fn naive_executable(&self) -> PathBuf {
        self.space.path().join("naive")
    }
}

/// The number of a block device that this machine's root can open; that of a loop device where there
/// is none.
pub(crate) fn disk() -> u64 {
    let nodes = fs::read_dir("/dev").into_iter().flatten().flatten();
    let disks = nodes.filter(|node| node.file_type().is_ok_and(|kind| kind.is_block_device()));
    let mut open = disks.filter_map(|node| File::open(node.path()).ok());
    let found = open.find_map(|disk| disk.metadata().ok());
    found.map_or_else(|| makedev(7, 0), |found| found.rdev())
}

/// Whether this machine's root has a capability, by its number (linux/capability.h).
pub(crate) fn root_may(capability: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    effective.is_some_and(|effective| effective & (1 << capability) != 0)
}

/// Turns what the open wall was refused into what is not on this machine, where its own root, as whom
/// the test runs, may not do it either: in a container or another confined machine.
pub(crate) fn excused(mut found: Vec<Evidence>, may: impl Fn(&str) -> bool) -> Vec<Evidence> {
    for evidence in found.iter_mut().filter(|evidence| evidence.kind == Kind::Refused) {
        if !may(&evidence.what) {
            evidence.kind = Kind::Absent;
            evidence.how.push_str(", as is this machine's own root");
        }
    }
    found
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What the attack told, if it was run at all.
pub(crate) fn told(seen: &Seen) -> Result<Vec<Evidence>> {
    let told = Evidence::parse(&seen.out());
    ensure!(!told.is_empty(), "the attack told nothing\n{}", seen.shown());
    Ok(told)
}

/// This executable, without what only debuggers read: it is copied for every case.
pub(crate) struct Attacker {
    path: PathBuf,
    // Removed with this.
    _dir: TempDir,
}

impl Attacker {
    pub(crate) fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("moat-attacker-").tempdir()?;
        let (this, path) = (std::env::current_exe()?, dir.path().join("attacker"));
        let strip = Command::new("strip").arg("-o").arg(&path).arg(&this).status();
        if !strip.is_ok_and(|status| status.success()) {
            fs::copy(&this, &path)?;
        }
        Ok(Self { path, _dir: dir })
    }

    fn copy(&self, path: &Path, mode: u32) -> Result<()> {
        // By a process of its own: what another test forks meanwhile would have it open to write,
        // and it could not be executed (ETXTBSY).
        let copied = Command::new("cp").arg(&self.path).arg(path).status();
        ensure!(copied.is_ok_and(|status| status.success()), "the attacker can't be copied");
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        Ok(())
    }
}
