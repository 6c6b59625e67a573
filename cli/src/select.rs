//! From the command line to workloads as meant.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use moat_core::diagnose::{Code, Fault};
use moat_core::policy::{self, Policy};
use moat_core::spec::{self, Context, Name, Resolved, Spec, Trust};
use moat_host::rootfs;

use crate::Failure;
use crate::args::Selection;

/// The file that is read when no spec is named.
const DEFAULT_SPEC: &str = "moat.toml";

/// The policy that was named.
pub(crate) fn policy(selection: &Selection) -> Result<Policy, Fault> {
    policy::builtin(&selection.policy)
        .ok_or_else(|| Fault::new(Code::Usage, format!("no policy is named {}", selection.policy)))
}

/// The one workload that was selected.
pub(crate) fn one(selection: &Selection, command: &[String]) -> Result<Resolved, Failure> {
    match source(selection, command)? {
        Source::Command(workload) => Ok(trusted(*workload, selection)),
        Source::File(file) => {
            let name = file.spec.pick(selection.name.as_deref()).map_err(Failure::Spec)?;
            file.resolve(name.as_str(), selection, command)
        }
    }
}

/// The selected workload, or all of the spec's when none is named.
pub(crate) fn all(selection: &Selection, command: &[String]) -> Result<Vec<Resolved>, Failure> {
    let file = match source(selection, command)? {
        Source::Command(workload) => return Ok(vec![trusted(*workload, selection)]),
        Source::File(file) => file,
    };
    let names: Vec<_> = match selection.name.as_deref() {
        Some(name) => vec![file.spec.pick(Some(name)).map_err(Failure::Spec)?],
        None => file.spec.workloads().keys().collect(),
    };
    names.into_iter().map(|name| file.resolve(name.as_str(), selection, command)).collect()
}

/// The project that is meant when none is named: the name of the spec's directory, or of this one
/// where there is no spec.
pub(crate) fn project(selection: &Selection) -> Result<Name, Fault> {
    let base = base(selection.spec.as_deref().unwrap_or(Path::new(DEFAULT_SPEC)))?;
    let name = base.file_name().unwrap_or_default();
    Ok(Name::nearest_to(&name.to_string_lossy()))
}

/// Where workloads come from.
enum Source {
    /// A command alone.
    Command(Box<Resolved>),
    /// A spec.
    File(SpecFile),
}

/// A spec, and the directory by which its relative paths go.
struct SpecFile {
    spec: Spec,
    base: PathBuf,
}

fn source(selection: &Selection, command: &[String]) -> Result<Source, Failure> {
    if let (None, [_, ..]) = (&selection.spec, command) {
        let here = env::current_dir().map_err(|error| {
            Fault::new(Code::Usage, "this directory can't be told")
                .hint("go into a directory that exists")
                .because(error)
        })?;
        refuse_unasked(&here)?;
        let isolation = selection.isolation.map(Into::into);
        let workload = Resolved::for_command(command.to_vec(), here, isolation);
        return Ok(Source::Command(Box::new(workload.map_err(Failure::Spec)?)));
    }
    let path = selection.spec.as_deref().unwrap_or(Path::new(DEFAULT_SPEC));
    let text = read(path).map_err(|error| unreadable(path, error, selection.spec.is_none()))?;
    let spec = spec::parse(&text, &path.display().to_string()).map_err(Failure::Spec)?;
    Ok(Source::File(SpecFile { spec, base: base(path)? }))
}

/// What `moat run -- COMMAND` mounts is not asked for in so many words, so nothing that matters to
/// more than a project is mounted: no home, none of what `image = "host"` hides, no directory of
/// the system.
fn refuse_unasked(here: &Path) -> Result<(), Fault> {
    let home = env::var_os("HOME").map(PathBuf::from).filter(|home| home.starts_with(here));
    let exposed = rootfs::exposed(here);
    let reason = match (home, exposed.first()) {
        (Some(home), _) => format!("all of {}", home.display()),
        (None, Some(first)) => format!("{}, which workloads are not shown", first.display()),
        (None, None) if rootfs::is_system(here) => "programs and settings of this host".to_owned(),
        (None, None) => return Ok(()),
    };
    Err(Fault::new(
        Code::Usage,
        format!("{} would be mounted, and with it {reason}", here.display()),
    )
    .hint("go into a project's own directory, or say in a spec what is to be mounted"))
}

impl SpecFile {
    fn resolve(
        &self,
        name: &str,
        selection: &Selection,
        command: &[String],
    ) -> Result<Resolved, Failure> {
        let home = env::var_os("HOME").map(PathBuf::from);
        let context = Context {
            base_dir: &self.base,
            home: home.as_deref(),
            read_env_file: &read_env_file,
            isolation: selection.isolation.map(Into::into),
            command,
        };
        let workload = self.spec.resolve(name, &context).map_err(Failure::Spec)?;
        Ok(trusted(workload, selection))
    }
}

/// With no more trust than the command line gives.
fn trusted(mut workload: Resolved, selection: &Selection) -> Resolved {
    if let Some(trust) = selection.trust {
        workload.trust = workload.trust.min(Trust::from(trust));
    }
    workload
}

/// An environment file; one byte more than it may have is enough to be refused by its size.
fn read_env_file(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads at most one byte more than a spec may have: the parser refuses it by its size then.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let most = u64::try_from(spec::FILE_LIMIT).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut text)?;
    Ok(text)
}

fn unreadable(path: &Path, error: io::Error, by_default: bool) -> Fault {
    let hint = match error.kind() {
        io::ErrorKind::NotFound if by_default => {
            "name a spec (`moat run FILE`), or give a command (`moat run -- COMMAND`)".to_owned()
        }
        // A workload's name or a command was typed where a spec comes first.
        io::ErrorKind::NotFound if path.extension().is_none() => {
            let word = path.display();
            format!(
                "the first word is a spec: `moat run {DEFAULT_SPEC} {word}` runs its workload {word}, \
                 `moat run -- {word}` a command"
            )
        }
        io::ErrorKind::NotFound => "see that the path is right".to_owned(),
        io::ErrorKind::PermissionDenied => "see that this user may read it".to_owned(),
        io::ErrorKind::IsADirectory => "name the file in it".to_owned(),
        _ => "see that it is a file that can be read".to_owned(),
    };
    Fault::new(Code::Spec, format!("{} can't be read", path.display())).hint(hint).because(error)
}

/// The directory by which relative paths of the spec go, absolute.
fn base(path: &Path) -> Result<PathBuf, Fault> {
    let failed = |error| {
        Fault::new(Code::Spec, format!("the directory of {} can't be told", path.display()))
            .because(error)
    };
    let whole = std::path::absolute(path).map_err(failed)?;
    Ok(whole.parent().unwrap_or(Path::new("/")).to_owned())
}
