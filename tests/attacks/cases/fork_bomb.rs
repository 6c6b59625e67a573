//! Processes without end end at the limit, and the host lives.

use crate::call;
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    open: |field| field.moat("[workload.case.resources]\npids = 2000"),
    ..Case::new(
        "fork_bomb",
        "makes processes that make no end, up to 700; the default limit is 512",
        attack,
    )
};

/// More than `resources.pids` is by default, and few enough for any machine.
const MANY: u32 = 700;

fn attack(tries: &Tries, _: &[&str]) {
    let mut count = 0;
    let ended = loop {
        if count == MANY {
            break Ok(format!("{MANY} processes"));
        }
        let child = call::child(|| {
            nix::unistd::pause();
            0
        });
        match child {
            Ok(_) => count += 1,
            Err(errno) => break Err(errno),
        }
    };
    let what = "more processes than allowed";
    match ended {
        Ok(how) => tries.got(what, how),
        Err(errno) => tries.refused(what, format!("{errno:?} after {count}")),
    }
}
