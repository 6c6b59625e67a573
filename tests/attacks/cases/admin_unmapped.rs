//! Where ids can't be mapped, the right to mount is refused: user 0 would own the kernel's settings.

use anyhow::Result;

use crate::cases::{Case, masks_remounted, masks_unmounted};
use crate::evidence::Evidence;
use crate::field::Field;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    name: "admin_unmapped",
    does: "has CAP_SYS_ADMIN added, and a volume for which ids can't be mapped: makes /proc/sys writable and opens core_pattern",
    cve: Some("CVE-2022-0811"),
    hole: None,
    attack,
    behind,
    open: |field| field.naive(|naive| naive.masks = true),
};

fn attack(tries: &Tries, arguments: &[&str]) {
    (masks_remounted::CASE.attack)(tries, arguments);
    (masks_unmounted::CASE.attack)(tries, arguments);
}

/// sysfs can't be seen through a map.
fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    field
        .space
        .spec("volumes = [\"/sys/kernel:/volume:ro\"]\nsecurity = { cap_add = [\"SYS_ADMIN\"] }")?;
    let seen = field.space.run(&field.command(&[]))?;
    let mut found = Evidence::parse(&seen.out());
    if found.is_empty() {
        seen.refused(125, "container")?;
        let refusal = seen.err().lines().find(|line| line.starts_with("error")).map(str::to_owned);
        found.push(Evidence::refused("core_pattern after that", refusal.unwrap_or_default()));
    }
    Ok(found)
}
