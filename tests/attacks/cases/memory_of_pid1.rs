//! PID 1's memory can't be read or written.

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::call::{
    Arg::{B, N},
    call,
};
use crate::cases::Case;
use crate::inside::{Tries, open, read};

pub(super) const CASE: Case = Case::new(
    "memory_of_pid1",
    "reads /proc/1/maps and /proc/1/mem, calls process_vm_readv and process_vm_writev on PID 1",
    attack,
);

fn attack(tries: &Tries, _: &[&str]) {
    let maps = read("/proc/1/maps").map(|maps| format!("{} bytes", maps.len()));
    tries.of("maps", maps);
    tries.of("mem", open("/proc/1/mem", OFlag::O_RDWR).map(|_| "opened for writing"));
    // Each a struct iovec. At that address there is nothing, which is found out after all checks.
    let mut room = [0_u8; 8];
    let local = [room.as_mut_ptr() as u64, 8].map(u64::to_ne_bytes).concat();
    let remote = [0x1000_u64, 8].map(u64::to_ne_bytes).concat();
    for (name, number) in [
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("process_vm_writev", libc::SYS_process_vm_writev),
    ] {
        let moved = call(number, [N(1), B(&local), N(1), B(&remote), N(1), N(0)]);
        tries.door(name, moved, &[Errno::EFAULT]);
    }
}
