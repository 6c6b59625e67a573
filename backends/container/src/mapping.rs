//! How the container's ids stand for the host's.

use std::path::Path;

pub(crate) use moat_host::mapping::{Mapping, own, subordinate};
use moat_init::first::Ids;
use moat_init::inside::Owner;
use moat_init::mapped::Trials;
pub(crate) use moat_init::mapped::{Trial, mapped_tree, user_namespace};
use moat_init::sys::mount::Depth;

/// Chooses a mapping for these sources of a root and volumes.
///
/// # Errors
/// When it could not be tried which of them can be mapped.
pub(crate) fn choose<'p>(sources: impl Iterator<Item = (&'p Path, Depth)>) -> nix::Result<Mapping> {
    let mut trials = Trials::default();
    Mapping::choose(sources.map(|(path, depth)| (path, depth == Depth::All)), |map, path, whole| {
        trials.maps(|pid| map.give_to(pid), path, if whole { Depth::All } else { Depth::One })
    })
}

/// The container's user 0, as the host sees it.
pub(crate) fn owner(mapping: &Mapping) -> Owner {
    let map = mapping.map();
    Owner { uid: map.users.first(), gid: map.groups.first() }
}

/// How many ids the workload has.
pub(crate) fn ids(mapping: &Mapping) -> Ids {
    match mapping {
        Mapping::Mapped { .. } | Mapping::Identity { .. } => Ids::ALL,
        Mapping::Subordinate { map } | Mapping::Single { map, .. } => {
            Ids { users: map.users.count(), groups: map.groups.count() }
        }
    }
}
