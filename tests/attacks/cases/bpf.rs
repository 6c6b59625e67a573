//! No program gets into the kernel.

use nix::errno::Errno;

use crate::call::{
    Arg::{B, N},
    call,
};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    cve: Some("CVE-2021-3490"),
    ..Case::new("bpf", "makes a BPF map and loads a socket filter program by bpf(2)", attack)
};

/// linux/bpf.h
const MAP_CREATE: i64 = 0;
const PROG_LOAD: i64 = 5;
const PROG_GET_NEXT_ID: i64 = 11;

fn attack(tries: &Tries, _: &[&str]) {
    // union bpf_attr of BPF_MAP_CREATE: an array of one value of 4 bytes.
    let map: Vec<u8> = [2_u32, 4, 4, 1].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let map = call(libc::SYS_bpf, [N(MAP_CREATE), B(&map), N(16)]);
    tries.of("make a map", map.map(|_| "made"));
    // An empty program is refused, but only to those who may load one.
    let program = [0; 48];
    let loaded = call(libc::SYS_bpf, [N(PROG_LOAD), B(&program), N(48)]);
    tries.door("load a program", loaded, &[Errno::EINVAL, Errno::E2BIG, Errno::EFAULT]);
    let next = [0; 12];
    let next = call(libc::SYS_bpf, [N(PROG_GET_NEXT_ID), B(&next), N(12)]);
    tries.door("list programs", next, &[Errno::ENOENT]);
}
