//! What one workload leaves on a volume gives the plain user of another nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::{Field, told};
use crate::inside::{self, Tries, number};

pub(super) const CASE: Case = Case {
    behind: |field| run(field, ""),
    open: |field| run(field, "[workload.case.security]\nno_new_privileges = false"),
    ..Case::new(
        "setuid_left_on_volume",
        "leaves a set-user-ID program on a volume, which another workload's user 1000 runs",
        attack,
    )
};

const LEFT: &str = "/volume/raise";

fn attack(tries: &Tries, _: &[&str]) {
    if std::env::args().next().as_deref() != Some(LEFT) {
        let left = fs::copy("/attack", LEFT)
            .and_then(|_| fs::set_permissions(LEFT, fs::Permissions::from_mode(0o4755)));
        tries.door("leave it", left.map(|()| "left").map_err(|error| number(&error)), &[]);
        return;
    }
    let user = nix::unistd::geteuid();
    let how = format!("effective user {user}");
    if user.is_root() { tries.got("become root", how) } else { tries.refused("become root", how) }
}

fn run(field: &Field<'_>, more: &str) -> Result<Vec<Evidence>> {
    fs::create_dir(field.space.path().join("volume"))?;
    let volume = "volumes = [\"./volume:/volume\"]";
    // That much is every root's right.
    field.moat(volume)?;
    field.space.spec(&format!("{volume}\nuser = \"1000\"\n{more}"))?;
    told(&field.space.run(&[LEFT, inside::ASKED, CASE.name])?)
}
