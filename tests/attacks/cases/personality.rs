//! Protections of its own memory stay on.

use crate::call::{Arg::N, call};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case::new(
    "personality",
    "turns off address randomisation, and makes all that is readable executable, by personality(2)",
    attack,
);

/// sys/personality.h
const ADDR_NO_RANDOMIZE: i64 = 0x004_0000;
const READ_IMPLIES_EXEC: i64 = 0x040_0000;

fn attack(tries: &Tries, _: &[&str]) {
    for (what, flag) in
        [("ADDR_NO_RANDOMIZE", ADDR_NO_RANDOMIZE), ("READ_IMPLIES_EXEC", READ_IMPLIES_EXEC)]
    {
        tries.of(what, call(libc::SYS_personality, [N(flag)]).map(|_| "set"));
    }
    // Beside a value that is allowed.
    let both = call(libc::SYS_personality, [N(8 | ADDR_NO_RANDOMIZE)]);
    tries.of("beside another", both.map(|_| "set"));
}
