//! What there is: instances that run, and those that are kept.

use std::path::PathBuf;

use moat_core::diagnose::{Code, Fault};
use moat_core::lifecycle::Phase;
use moat_core::spec::{Isolation, Name};
use moat_host::kept::Kept;
use moat_host::state::{Found, Header};

use crate::host::Host;
use crate::instance::list;

/// An instance.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) id: String,
    /// `None` where what is kept of it is damaged.
    pub(crate) name: Option<Name>,
    /// Where it is kept after its end.
    pub(crate) project: Option<Name>,
    pub(crate) isolation: Option<Isolation>,
    pub(crate) phase: Phase,
    /// What its living monitor has written down.
    pub(crate) running: Option<(PathBuf, Header)>,
    /// The process that stands for it on the host, while there is one.
    pub(crate) pid: Option<u32>,
    /// What is kept of it.
    pub(crate) kept: Option<Kept>,
}

impl Known {
    /// `None` for one without a living monitor, or of which nothing is left but its record.
    fn of(found: Found) -> Option<Self> {
        let header = found.header.filter(|_| found.owned)?;
        let phase = found.mark.map_or(Phase::Creating, |mark| mark.phase);
        (phase != Phase::Destroyed).then(|| Self {
            id: header.id.clone(),
            name: Some(header.name.clone()),
            project: header.project.clone(),
            isolation: Some(header.decision.isolation),
            phase,
            pid: found.mark.and_then(|mark| mark.pid),
            running: Some((found.dir, header)),
            kept: None,
        })
    }

    fn kept(kept: Kept) -> Self {
        let identity = kept.identity.as_ref();
        Self {
            id: kept.id(),
            name: identity.map(|identity| identity.name.clone()),
            project: identity.map(|identity| identity.project.clone()),
            isolation: identity.map(|identity| identity.decided.isolation),
            phase: kept.phase(),
            running: None,
            pid: None,
            kept: Some(kept),
        }
    }

    /// `web (0123456789ab)`.
    pub(crate) fn shown(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} ({})", self.id),
            None => self.id.clone(),
        }
    }

    /// Whether something acts for it.
    pub(crate) fn lives(&self) -> bool {
        self.running.is_some() || self.kept.as_ref().is_some_and(|kept| kept.lives)
    }

    fn is_called(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|own| own.as_str() == name)
    }

    fn is_in(&self, project: Option<&Name>) -> bool {
        project.is_none() || self.project.as_ref() == project
    }
}

/// Every instance that runs, by name.
pub(crate) fn running(host: &Host) -> Result<Vec<Known>, Fault> {
    let mut all: Vec<_> = host.store.list()?.into_iter().filter_map(Known::of).collect();
    sort(&mut all);
    Ok(all)
}

/// Every instance that runs or is kept, by name.
pub(crate) fn all(host: &Host) -> Result<Vec<Known>, Fault> {
    // What is kept is looked at last: what ends meanwhile is there for sure, and once.
    let mut all = running(host)?;
    for kept in host.shelf.list()? {
        match all.iter_mut().find(|known| known.id == kept.id()) {
            Some(known) if kept.lives => known.kept = Some(kept),
            Some(known) => *known = Known::kept(kept),
            None => all.push(Known::kept(kept)),
        }
    }
    sort(&mut all);
    Ok(all)
}

fn sort(all: &mut [Known]) {
    all.sort_by(|one, other| {
        (&one.name, &one.project, &one.id).cmp(&(&other.name, &other.project, &other.id))
    });
}

/// The one that is meant by its name, or by how its id begins.
pub(crate) fn find(host: &Host, name: &str, project: Option<&Name>) -> Result<Known, Fault> {
    let all = all(host)?;
    // A name that looks like the beginning of an id is a name first.
    let named = all.iter().any(|known| known.is_called(name) && known.is_in(project));
    let is_meant = |known: &Known| {
        let by_id = !name.is_empty() && known.id.starts_with(name);
        known.is_in(project) && if named { known.is_called(name) } else { by_id }
    };
    let (mut meant, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_meant);
    match (meant.pop(), meant.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(one), false) => {
            meant.push(one);
            let what = format!("{} workloads are meant by {name}", meant.len());
            let shown = meant.iter().map(|known| match &known.project {
                Some(project) => format!("{} (project {project})", known.id),
                None => format!("{} (in the foreground)", known.id),
            });
            Err(Fault::new(Code::NotRunning, what)
                .hint(format!("name one by its id: {}", list(shown))))
        }
        (None, _) => {
            let hint = match others.is_empty() {
                true => "nothing of this user runs or is kept; another user's workloads are that \
                         user's and root's alone"
                    .to_owned(),
                false => format!("there are: {}", list(others.iter().map(Known::shown))),
            };
            let place = project.map_or(String::new(), |project| format!(" in project {project}"));
            let what = format!("no workload is called {name:?}{place}");
            Err(Fault::new(Code::NotRunning, what).hint(hint))
        }
    }
}
