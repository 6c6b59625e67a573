//! From the command line to workloads as meant.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::{env, fs};

use moat_core::diagnose::{Code, Fault};
use moat_core::policy::{self, Policy};
use moat_core::spec::{self, Context, Resolved, Spec, Trust};

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
    let mut all = all(selection, command)?;
    match (all.pop(), all.is_empty()) {
        (Some(workload), true) => Ok(workload),
        (last, _) => {
            let names: Vec<_> = all.iter().chain(&last).map(|workload| workload.name.as_str()).collect();
            Err(Fault::new(Code::Usage, format!("the spec has {} workloads", names.len()))
                .hint(format!("name one of them: {}", names.join(", ")))
                .into())
        }
    }
}

/// The selected workload, or all of the spec's when none is named.
pub(crate) fn all(selection: &Selection, command: &[String]) -> Result<Vec<Resolved>, Failure> {
    let mut workloads = match (&selection.spec, command) {
        (None, [_, ..]) => vec![without_spec(command)?],
        (spec, _) => {
            let path = spec.as_deref().unwrap_or(Path::new(DEFAULT_SPEC));
            from_spec(path, selection.name.as_deref(), spec.is_none())?
        }
    };
    for workload in &mut workloads {
        if !command.is_empty() {
            workload.argv = command.to_vec();
        }
        workload.isolation.flag = selection.isolation.map(Into::into);
        if let Some(trust) = selection.trust {
            workload.trust = workload.trust.min(Trust::from(trust));
        }
    }
    Ok(workloads)
}

fn without_spec(command: &[String]) -> Result<Resolved, Failure> {
    let here = env::current_dir()
        .map_err(|error| Fault::new(Code::Usage, "this directory can't be told").because(error))?;
    Resolved::for_command(command.to_vec(), &here).map_err(Failure::Spec)
}

fn from_spec(path: &Path, name: Option<&str>, by_default: bool) -> Result<Vec<Resolved>, Failure> {
    let text = read(path).map_err(|error| unreadable(path, error, by_default))?;
    let spec = spec::parse(&text, &path.display().to_string()).map_err(Failure::Spec)?;
    let base = base(path)?;
    let home = env::var_os("HOME").map(PathBuf::from);
    let read_env = |path: &Path| fs::read_to_string(path);
    let context = Context { base_dir: base, home, read_file: &read_env };
    names(&spec, name, path)?
        .into_iter()
        .map(|name| spec.resolve(&name, &context).map_err(Failure::Spec))
        .collect()
}

/// Reads at most one byte more than a spec may have: the parser refuses it by its size then.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(spec::SIZE_LIMIT.saturating_add(1)).read_to_end(&mut text)?;
    Ok(text)
}

fn unreadable(path: &Path, error: io::Error, by_default: bool) -> Fault {
    let hint = match error.kind() {
        io::ErrorKind::NotFound if by_default => {
            "name a spec (`moat run FILE`), or give a command (`moat run -- COMMAND`)"
        }
        io::ErrorKind::NotFound => "see that the path is right",
        io::ErrorKind::PermissionDenied => "see that this user may read it",
        io::ErrorKind::IsADirectory => "name the file in it",
        _ => "see that it is a file that can be read",
    };
    Fault::new(Code::Spec, format!("{} can't be read", path.display())).hint(hint).because(error)
}

/// The directory by which relative paths of the spec go, absolute.
fn base(path: &Path) -> Result<PathBuf, Fault> {
    let failed = |error| {
        Fault::new(Code::Spec, format!("the directory of {} can't be told", path.display())).because(error)
    };
    let whole = std::path::absolute(path).map_err(failed)?;
    Ok(whole.parent().unwrap_or(Path::new("/")).to_owned())
}

fn names(spec: &Spec, wanted: Option<&str>, path: &Path) -> Result<Vec<String>, Fault> {
    let names: Vec<String> = spec.names().map(str::to_owned).collect();
    match wanted {
        None => Ok(names),
        Some(name) if names.iter().any(|known| known == name) => Ok(vec![name.to_owned()]),
        Some(name) => Err(Fault::new(Code::Usage, format!("{} has no workload {name:?}", path.display()))
            .hint(format!("it has {}", names.join(", ")))),
    }
}

