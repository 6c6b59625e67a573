//! What a workload may ask of its kernel, key by key.

use super::section::Section;
use crate::spec::CapabilitySet;
use crate::spec::written::{LandlockTable, SecurityTable};

pub(super) fn security(mut t: Section<'_, '_, '_>) -> SecurityTable {
    let written = SecurityTable {
        cap_add: t.parse_list("cap_add", "\"NET_ADMIN\""),
        cap_drop: t.parse_list("cap_drop", "\"ALL\""),
        no_new_privileges: t.boolean("no_new_privileges"),
        seccomp: t.parse_at("seccomp", "\"default\""),
        landlock: landlock(&mut t),
    };
    let (add, drop) = (&written.cap_add, &written.cap_drop);
    let dropped = |set: &&CapabilitySet| drop.iter().flatten().any(|other| other == *set);
    let both: Vec<String> =
        add.iter().flatten().filter(dropped).map(|set| set.to_string()).collect();
    for set in both {
        t.wrong("cap_drop", format!("{set} is in cap_add too"), "keep it in one of them");
    }
    t.finish();
    written
}

fn landlock(parent: &mut Section<'_, '_, '_>) -> Option<LandlockTable> {
    let mut t = parent.section("landlock");
    let written = LandlockTable {
        read: t.parse_list("read", "\"/usr\""),
        write: t.parse_list("write", "\"/tmp\""),
    };
    let nothing = t.offset("read").is_none() && t.offset("write").is_none();
    t.finish();
    parent.offset("landlock")?;
    if nothing {
        let help = "write what it may use, such as { read = [\"/\"], write = [\"/tmp\"] }";
        parent.wrong("landlock", "names no path, so that nothing could be run", help);
    }
    Some(written)
}
