//! A program of a hundred bytes that becomes the workload's command.
//!
//! The process that calls execve(2) is what `/proc/self/exe` is on the way: as the command itself,
//! as what a script's first line names, or as what an ELF file asks for as its interpreter. Were
//! that moat's own program, it would run as the workload's, and whoever then opens
//! `/proc/PID/exe` has the file, past every mount (the class of CVE-2019-5736). Writing to it is
//! refused as long as it runs, but its owner may change its mode, owner and attributes at once and
//! keep a descriptor until later. So where the workload's ids include the owner, moat becomes this
//! program first. It lies in memory, is made anew for each process, and has nothing to protect.
//!
//! It is started with `FILE ARGUMENT...` as its arguments, marks the descriptor [`report`] so that
//! it closes with the next program, and becomes FILE. When it can't, it writes two bytes to that
//! descriptor, 0 and the kernel's error number, and ends.
//!
//! Unsafe because the image is assembled into this program, as read-only data between two symbols.
//! Nothing here ever runs it; it is only copied.
//!
//! [`report`]: Trampoline::make
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, FdFlag, OFlag, SealFlag, fcntl, openat};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::unistd::{execve, execveat};

use super::mount::{self, Attributes};

/// `MFD_EXEC` of linux/memfd.h: the file can be executed whatever `vm.memfd_noexec` says, unless
/// it says 2. Kernels before 6.3 do not know it.
const MFD_EXEC: MFdFlags = MFdFlags::from_bits_retain(0x10);

/// The room for the file where memory files can't be executed, in bytes.
const SIZE: u64 = 64 << 10;

// An ELF file (elf(5)) of one segment, mapped at 4 MiB. System calls by the x86-64 ABI: the number
// in rax, arguments in rdi, rsi, rdx, the answer in rax. At the entry rsp points to argc, after
// which come the arguments, a null, and the environment.
std::arch::global_asm!(
    ".pushsection .rodata.moat_trampoline, \"a\", @progbits",
    ".balign 8",
    ".globl moat_trampoline_begin",
    ".hidden moat_trampoline_begin",
    "moat_trampoline_begin:",
    // Elf64_Ehdr: 64-bit, little-endian, executable, x86-64.
    ".byte 0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0",
    ".short 2, 62",
    ".long 1",
    ".quad 0x400000 + 3f - moat_trampoline_begin",
    ".quad 64, 0",
    ".long 0",
    ".short 64, 56, 2, 0, 0, 0",
    // Elf64_Phdr: PT_LOAD, readable and executable, the whole file.
    ".long 1, 5",
    ".quad 0, 0x400000, 0x400000",
    ".quad moat_trampoline_end - moat_trampoline_begin",
    ".quad moat_trampoline_end - moat_trampoline_begin",
    ".quad 0x1000",
    // Elf64_Phdr: PT_GNU_STACK, not executable.
    ".long 0x6474e551, 6",
    ".quad 0, 0, 0, 0, 0, 16",
    // fcntl(report, F_SETFD, FD_CLOEXEC)
    "3:",
    "mov edi, dword ptr [rip + 5f]",
    "mov esi, 2",
    "mov edx, 1",
    "mov eax, 72",
    "syscall",
    "test eax, eax",
    "js 4f",
    // execve(argv[0], argv + 1, envp)
    "mov rcx, qword ptr [rsp]",
    "mov rdi, qword ptr [rsp + 8]",
    "lea rsi, [rsp + 16]",
    "lea rdx, [rsp + rcx * 8 + 16]",
    "mov eax, 59",
    "syscall",
    // write(report, { 0, -rax }, 2)
    "4:",
    "neg eax",
    "shl eax, 8",
    "push rax",
    "mov rsi, rsp",
    "mov edi, dword ptr [rip + 5f]",
    "mov edx, 2",
    "mov eax, 1",
    "syscall",
    // exit_group(127)
    "mov edi, 127",
    "mov eax, 231",
    "syscall",
    // The descriptor, put here by `image`.
    "5:",
    ".long -1",
    ".globl moat_trampoline_end",
    ".hidden moat_trampoline_end",
    "moat_trampoline_end:",
    ".popsection",
);

unsafe extern "C" {
    static moat_trampoline_begin: u8;
    static moat_trampoline_end: u8;
}

/// The file, for a process that reports to this descriptor.
fn image(report: BorrowedFd<'_>) -> Vec<u8> {
    let (begin, end) = (&raw const moat_trampoline_begin, &raw const moat_trampoline_end);
    // SAFETY: the symbols are the two ends of one object of read-only data, above.
    let image = unsafe { std::slice::from_raw_parts(begin, end.offset_from_unsigned(begin)) };
    let report = report.as_raw_fd().to_le_bytes();
    let (program, _) = image.split_at(image.len().saturating_sub(report.len()));
    [program, &report].concat()
}

/// The program, ready to be started once.
#[derive(Debug)]
pub(crate) struct Trampoline<'r> {
    file: OwnedFd,
    report: BorrowedFd<'r>,
}

impl<'r> Trampoline<'r> {
    /// Makes it. Must have the rights of user 0 of the mount namespace's user namespace, for hosts
    /// on which files in memory can't be executed.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn make(report: BorrowedFd<'r>) -> nix::Result<Self> {
        let image = image(report);
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let made = match memfd_create(c"moat", flags | MFD_EXEC) {
            Err(Errno::EINVAL) => memfd_create(c"moat", flags),
            made => made,
        };
        let file = match made {
            Ok(memory) => sealed(memory, &image)?,
            Err(Errno::EACCES | Errno::EPERM) => elsewhere(&image)?,
            Err(errno) => return Err(errno),
        };
        Ok(Self { file, report })
    }

    /// Keeps the line to report on open over the way. Before a filter of the user's is in force,
    /// which may let less pass; the program itself needs no more than fcntl(2), execve(2) and, to
    /// tell that it failed, write(2).
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn hold_line(&self) -> nix::Result<()> {
        fcntl(self.report, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
    }

    /// Becomes it, and through it `file`; after [`Trampoline::hold_line`]. Gives the kernel's
    /// reason if not even the first works. `proc_is_ours` tells whether the workload can't have put
    /// anything else at /proc.
    pub(crate) fn become_command(
        &self,
        file: &CString,
        argv: &[CString],
        env: &[CString],
        proc_is_ours: bool,
    ) -> Errno {
        let argv: Vec<_> = [file].into_iter().chain(argv).collect();
        if !proc_is_ours {
            let Err(errno) = execveat(&self.file, c"", &argv, env, AtFlags::AT_EMPTY_PATH);
            return errno;
        }
        // Else not so: a filter of the user's that lets no more than execve(2) pass will do.
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let Ok(own) = CString::new(own) else { return Errno::EINVAL };
        let Err(errno) = execve(&own, &argv, env);
        errno
    }
}

fn sealed(memory: OwnedFd, image: &[u8]) -> nix::Result<OwnedFd> {
    let mut file = File::from(memory);
    file.write_all(image).map_err(errno)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// On a filesystem of its own, in memory and attached nowhere.
fn elsewhere(image: &[u8]) -> nix::Result<OwnedFd> {
    let attributes = Attributes::NO_SUID.and(Attributes::NO_DEV);
    let place = mount::tmpfs(SIZE, 0o755, (0, 0), attributes)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let file = openat(&place, c"moat", flags, Mode::from_bits_truncate(0o555))?;
    File::from(file).write_all(image).map_err(errno)?;
    // What is open for writing can't be executed.
    openat(place.as_fd(), c"moat", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
