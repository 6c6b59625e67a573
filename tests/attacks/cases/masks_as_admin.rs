//! What is masked stays so even for a workload that was given the right to mount.

use crate::cases::{Case, masks_remounted, masks_unmounted, proc_mounted_anew};
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    name: "masks_as_admin",
    does: "mounts, remounts and unmounts /proc, /sys and their masks with CAP_SYS_ADMIN added",
    cve: None,
    hole: Some("the masks are in a mount namespace that the workload's own user namespace owns"),
    attack,
    behind: |field| Ok(field.moat_as_admin()?.unwrap_or_default()),
    open: |field| field.naive(|naive| naive.masks = true),
};

fn attack(tries: &Tries, arguments: &[&str]) {
    let all = [proc_mounted_anew::CASE, masks_remounted::CASE, masks_unmounted::CASE];
    for case in all {
        tries.apart(case.name, |tries| (case.attack)(tries, arguments));
    }
}
