//! A set-user-ID program of the image gives a plain user nothing.

use anyhow::Result;

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::{Field, told};
use crate::inside::{self, Tries};

pub(super) const CASE: Case = Case {
    behind: |field| run(field, ""),
    open: |field| run(field, "[workload.case.security]\nno_new_privileges = false"),
    ..Case::new(
        "setuid_program",
        "runs a program of the image that is root's and has the set-user-ID bit, as user 1000",
        attack,
    )
};

fn attack(tries: &Tries, _: &[&str]) {
    let user = nix::unistd::geteuid();
    let how = format!("effective user {user}");
    if user.is_root() { tries.got("become root", how) } else { tries.refused("become root", how) }
}

fn run(field: &Field<'_>, more: &str) -> Result<Vec<Evidence>> {
    field.place_attacker("raise", 0o4755)?;
    field.space.spec(&format!("user = \"1000\"\n{more}"))?;
    told(&field.space.run(&["/raise", inside::ASKED, CASE.name])?)
}
