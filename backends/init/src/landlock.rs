//! Landlock (landlock(7)): the files that a process may use at most, below what their modes and
//! mounts let it.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr,
};
use moat_core::sandbox::StartError;
use moat_core::spec::Landlock;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::error::Step;

/// The first that holds back truncate(2) too (Linux 6.2): without, `write` would promise too much.
const NEEDED: ABI = ABI::V3;

/// What each workload may use, whatever is asked for: devices without which hardly a program runs,
/// and its terminals.
const ALWAYS: [&str; 7] =
    ["/dev/full", "/dev/null", "/dev/pts", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"];

/// Rules that are ready to be put in force.
#[derive(Debug)]
pub(crate) struct Rules(RulesetCreated);

impl Rules {
    /// Looks up what is named, in the root that the process is in.
    ///
    /// # Errors
    /// When the kernel can't hold to it, or something named is not there.
    pub(crate) fn new(landlock: &Landlock) -> Result<Self, StartError> {
        let rules = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(NEEDED))
            .and_then(Ruleset::create);
        let mut rules = rules.map_err(|error| error.to_string()).step(|| MAKE)?;
        let (read, write) = (AccessFs::from_read(NEEDED), AccessFs::from_all(NEEDED));
        let device = AccessFs::from_file(NEEDED) & !AccessFs::Execute | AccessFs::ReadDir;
        for path in &landlock.read {
            rules = allow(rules, path.as_str(), read)?;
        }
        for path in &landlock.write {
            rules = allow(rules, path.as_str(), write)?;
        }
        for path in ALWAYS {
            rules = allow(rules, path, device)?;
        }
        // What that is for stands in its place, or is set by the caller.
        Ok(Self(rules.no_new_privs(false)))
    }

    /// Holds the calling thread, and all that come from it, to them. Needs `no_new_privs` or
    /// CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn apply(&self) -> Result<(), StartError> {
        let step = || "restrict files with Landlock";
        let rules = self.0.try_clone().step(step)?;
        rules.restrict_self().map_err(|error| error.to_string()).step(step)?;
        Ok(())
    }
}

/// Holds the calling thread, and all that come from it, to these files and what is below these
/// directories, as far as this kernel can; one without Landlock does not. Needs `no_new_privs`.
///
/// # Errors
/// When one is not there, or the kernel refuses what it should be able to do.
pub fn hold_to(paths: &[&Path]) -> Result<(), StartError> {
    let step = || "restrict files with Landlock";
    let all = AccessFs::from_all(ABI::V5);
    let rules = Ruleset::default().handle_access(all).and_then(Ruleset::create);
    let mut rules = rules.map_err(|error| error.to_string()).step(step)?;
    for path in paths {
        let place = open(*path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).step(step)?;
        let kind = nix::sys::stat::fstat(&place).step(step)?.st_mode & libc::S_IFMT;
        let is_directory = kind == libc::S_IFDIR;
        let access = if is_directory { all } else { all & AccessFs::from_file(ABI::V5) };
        let added = rules.add_rule(PathBeneath::new(place, access));
        rules = added.map_err(|error| error.to_string()).step(step)?;
    }
    rules.restrict_self().map_err(|error| error.to_string()).step(step).map(drop)
}

/// The step of which [`StartError`] has a hint.
const MAKE: &str = "make a Landlock ruleset";

fn allow(
    rules: RulesetCreated,
    path: &str,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, StartError> {
    let step = || format!("allow {path} with Landlock");
    let place = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).step(step)?;
    let kind = nix::sys::stat::fstat(&place).step(step)?.st_mode & libc::S_IFMT;
    // A file has no files below it that could be listed, made or removed.
    let access = match kind {
        libc::S_IFDIR => access,
        _ => access & AccessFs::from_file(NEEDED),
    };
    let rules = rules.add_rule(PathBeneath::new(place, access));
    rules.map_err(|error| error.to_string()).step(step)
}
