//! From a process of moat's to the workload's: everything between fork and exec.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use moat_core::fault_point::FaultPoint;
use moat_core::sandbox::{Label, Process, StartError};
use moat_core::spec::{Capability, GuestPath, Rlimit};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, fchdir, fchown, setgroups, setresgid, setresuid, setsid};

use crate::command::{Command, Found};
use crate::control::First;
use crate::error::Step;
use crate::first::Ids;
use crate::label;
use crate::landlock::Rules;
use crate::limits;
use crate::seccomp::Filter;
use crate::sys::privilege::{self, Capabilities};
use crate::sys::trampoline::Trampoline;
use crate::sys::{descriptor, process, tty};
use crate::user::{self, Identity};

/// A process that is all prepared: what is left to do between fork and exec can hardly fail.
pub(crate) struct Program {
    command: Command,
    identity: Identity,
    ids: Ids,
    filter: Filter,
    working_dir: GuestPath,
    /// Which it can ever gain.
    capabilities: Vec<Capability>,
    /// Which another user than 0 has.
    ambient: Vec<Capability>,
    label: Label,
    landlock: Option<Rules>,
    no_new_privileges: bool,
    rlimits: Vec<Rlimit>,
    stdio: [OwnedFd; 3],
    terminal: bool,
}

impl Program {
    /// Looks up the user in the files of the root that the process is in, and prepares the rest.
    ///
    /// # Errors
    /// What is wrong with the declared process.
    pub(crate) fn prepare(
        process: &Process,
        ids: Ids,
        stdio: [OwnedFd; 3],
    ) -> Result<Self, StartError> {
        let identity = user::look_up(&process.user)?;
        see_that_it_has(ids, &identity)?;
        let home = (!process.env.contains_key("HOME")).then_some(("HOME", identity.home.as_str()));
        let env = process.env.iter().map(|(key, value)| (key.as_str(), value.as_str())).chain(home);
        Ok(Self {
            command: Command::new(&process.argv, env)?,
            filter: Filter::new(process)?,
            ids,
            working_dir: process.working_dir.clone(),
            capabilities: process.capabilities.clone(),
            ambient: process.ambient.clone(),
            label: process.label.clone(),
            landlock: process.landlock.as_ref().map(Rules::new).transpose()?,
            no_new_privileges: process.no_new_privileges,
            rlimits: process.rlimits.clone(),
            terminal: process.terminal.is_some(),
            identity,
            stdio,
        })
    }

    /// Becomes the workload's process; comes back only with the reason why not. One that has an
    /// `owner`, the other end of this line, is the child of that, and killed when that ends.
    pub(crate) fn execute(&self, owner: Option<&First>) -> StartError {
        match self.become_workload(owner) {
            Ok(found) => found.execute(),
            Err(error) => error,
        }
    }

    /// As [`Program::execute`], by way of another program; see [`Found::execute_by`].
    pub(crate) fn execute_by(
        &self,
        way: &Trampoline<'_>,
        owner: Option<&First>,
        file: &mut Option<PathBuf>,
    ) -> StartError {
        let held = way.hold_line().step(|| "start the workload");
        match held.and_then(|()| self.become_workload(owner)) {
            Ok(found) => {
                let proc_is_ours = !self.capabilities.contains(&Capability::SYS_ADMIN);
                found.execute_by(way, proc_is_ours, file)
            }
            Err(error) => error,
        }
    }

    /// What the kernel's refusal of the command's file means.
    pub(crate) fn refused(&self, file: &Path, errno: Errno) -> StartError {
        self.command.refused_file(&Path::new(self.working_dir.as_str()).join(file), errno)
    }

    fn become_workload(&self, owner: Option<&First>) -> Result<Found<'_>, StartError> {
        process::reset_signals();
        setsid().step(|| "make a session")?;
        own_stdio(&self.stdio, &self.identity, self.terminal);
        descriptor::become_stdio(&self.stdio).step(|| "set up stdin, stdout and stderr")?;
        if self.terminal {
            tty::take_control().step(|| "take control of the terminal")?;
        }
        umask(Mode::from_bits_truncate(0o022));
        let dir = self.working_dir.as_str();
        change_dir(dir).step(|| format!("change to working directory {dir}"))?;
        limits::apply(&self.rlimits)?;
        for capability in Capability::ALL {
            if !self.capabilities.contains(capability) {
                privilege::drop_from_bounding(*capability).step(|| "drop capabilities")?;
            }
        }
        // A change of user takes all that is not to be kept.
        prctl::set_keepcaps(true).step(|| "keep capabilities")?;
        change_user(&self.identity, self.ids)?;
        // Which a change of user may have taken back (prctl(2), `PR_SET_DUMPABLE`): until it is
        // another program, nobody in the workload may look at or reach through this process.
        prctl::set_dumpable(false).step(|| "hide from the workload")?;
        self.set_capabilities()?;
        // As whom it will be, and before what may not let it look.
        let found = self.command.found()?;
        if self.no_new_privileges {
            prctl::set_no_new_privs().step(|| "set no_new_privs")?;
        }
        label::ask_for(&self.label)?;
        if let Some(rules) = &self.landlock {
            rules.apply()?;
        }
        FaultPoint::WorkloadRestricted.reached();
        if let Some(line) = owner {
            // Not earlier, since a change of user takes it back.
            let step = || "die with moat";
            prctl::set_pdeathsig(Signal::SIGKILL).step(step)?;
            line.still_owned().step(step)?;
        }
        // Last: it may let nothing pass but execve.
        self.filter.install()?;
        Ok(found)
    }

    /// Has the workload's capabilities alone: user 0 all that it can ever gain, another user those
    /// that were given to it, which the command then has without asking.
    ///
    /// Without `no_new_privs` CAP_SYS_ADMIN stands in for it where filters are installed. The next
    /// program does not have it: user 0 has then what it can gain, and others what is ambient.
    fn set_capabilities(&self) -> Result<(), StartError> {
        let step = || "set capabilities";
        let mut set = Capabilities::default();
        let is_root = self.identity.uid == 0;
        let ambient: &[Capability] = if is_root { &[] } else { &self.ambient };
        for capability in if is_root { &self.capabilities } else { ambient } {
            set.hold(*capability);
        }
        ambient.iter().for_each(|capability| set.inherit(*capability));
        if !self.no_new_privileges {
            set.hold(Capability::SYS_ADMIN);
        }
        set.set().step(step)?;
        ambient.iter().try_for_each(|one| privilege::raise_ambient(*one)).step(step)
    }
}

/// What is asked for must be among the ids that there are. The kernel alone would not do: on some
/// walls it has more, and -1 is for it no id but the wish to stay who one is (setresuid(2)).
fn see_that_it_has(ids: Ids, identity: &Identity) -> Result<(), StartError> {
    let end = |count: u32| match count {
        1 => "started as a plain user, moat has only user 0 to give".to_owned(),
        count => format!("the workload's ids end at {}", count - 1),
    };
    let (uid, gid) = (identity.uid, identity.gid);
    let become_user = || format!("become user {uid}:{gid}");
    if uid >= ids.users {
        Err(end(ids.users)).step(become_user)?;
    }
    if gid >= ids.groups {
        Err(end(ids.groups)).step(become_user)?;
    }
    // With one group alone there are no supplementary ones: nobody has any then but user 0.
    let outside = identity.groups.iter().find(|gid| ids.groups > 1 && **gid >= ids.groups);
    if let Some(gid) = outside {
        Err(end(ids.groups)).step(|| format!("become a member of group {gid}"))?;
    }
    Ok(())
}

/// Changes to a directory by its path inside the root, and by nothing that is open somewhere:
/// behind /proc/self/fd and the like may be a way out of it (the class of CVE-2024-21626).
fn change_dir(dir: &str) -> nix::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    fchdir(openat2(AT_FDCWD, dir, how)?)
}

fn change_user(identity: &Identity, ids: Ids) -> Result<(), StartError> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    if ids.groups > 1 {
        let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups).step(|| "set supplementary groups")?;
    }
    let become_user = || format!("become user {uid}:{gid}");
    setresgid(gid, gid, gid).step(become_user)?;
    setresuid(uid, uid, uid).step(become_user)
}

/// Pipes among stdin, stdout and stderr, and the workload's own terminal, become its user's, so
/// that it may open /dev/stdout again; anything with a name of its own is left alone.
fn own_stdio(stdio: &[OwnedFd; 3], identity: &Identity, terminal: bool) {
    for fd in stdio {
        if terminal || descriptor::is_pipe(fd.as_fd()) {
            // A convenience: where it is refused, only opening it again is.
            let _ = fchown(fd.as_fd(), Some(Uid::from_raw(identity.uid)), None);
        }
    }
}

/// The descriptors that a first process must keep for its program.
pub(crate) fn numbers(stdio: &[OwnedFd; 3]) -> impl Iterator<Item = i32> {
    stdio.iter().map(AsRawFd::as_raw_fd)
}
