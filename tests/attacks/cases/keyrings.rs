//! Keys are not kept apart by namespaces, and so kept away.

use nix::errno::Errno;

use crate::call::{
    Arg::{B, N, S},
    call,
};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    cve: Some("CVE-2014-9529"),
    ..Case::new("keyrings", "adds a key, asks for one, and looks up its session's keyring", attack)
};

/// linux/keyctl.h
const PROCESS_KEYRING: i64 = -2;
const SESSION_KEYRING: i64 = -3;
const GET_KEYRING_ID: i64 = 0;

fn attack(tries: &Tries, _: &[&str]) {
    let key = [S(c"user"), S(c"moat-attack"), B(b"x"), N(1), N(PROCESS_KEYRING)];
    tries.of("add_key", call(libc::SYS_add_key, key).map(|_| "added"));
    let id = call(libc::SYS_keyctl, [N(GET_KEYRING_ID), N(SESSION_KEYRING), N(0)]);
    tries.door("keyctl", id.map(|_| "session keyring"), &[Errno::ENOKEY]);
    let asked = call(libc::SYS_request_key, [S(c"user"), S(c"moat-attack-2"), N(0), N(0)]);
    tries.door("request_key", asked, &[Errno::ENOKEY]);
}
