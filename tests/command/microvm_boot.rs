//! `moat microvm boot`, with guests of a few instructions, which any KVM runs.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use moat_tests::host;
use moat_tests::moat::Moat;
use moat_tests::seen::Seen;
use moat_tests::terminal::Terminal;
use moat_tests::workspace::Workspace;

use crate::starters::{FALSE_KVM, NO_KVM, in_mounts};

/// Where the guests' code is loaded, and begins in 64-bit mode.
const CODE: u64 = 0x10_0000;

/// Writes 0x34 to port 0x600: ACPI's soft off.
const POWER_OFF: &[u8] = &[0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee];
/// Writes 0xfe to port 0x64: the keyboard controller's reset.
const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64];
const TRIPLE_FAULT: &[u8] = &[0x0f, 0x0b];
const HALT: &[u8] = &[0xfa, 0xf4];
const LOOP: &[u8] = &[0xeb, 0xfe];

/// Writes this to COM1.
fn say(text: &str) -> Vec<u8> {
    let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
    for byte in text.bytes() {
        code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    code
}

/// Sends back what is typed, up to `q`, and then switches off.
fn echo() -> Vec<u8> {
    let mut code = vec![
        0x66, 0xba, 0xfd, 0x03, // wait: mov dx, 0x3fd
        0xec, // in al, dx
        0xa8, 0x01, // test al, 1
        0x74, 0xf7, // jz wait
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xec, // in al, dx
        0xee, // out dx, al
        0x3c, b'q', // cmp al, 'q'
        0x75, 0xed, // jne wait
    ];
    code.extend(POWER_OFF);
    code
}

/// An ELF kernel without a PVH note: this code alone.
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let size = u64::try_from(code.len()).unwrap_or_default();
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend(2u16.to_le_bytes()); // ET_EXEC
    elf.extend(62u16.to_le_bytes()); // EM_X86_64
    elf.extend(1u32.to_le_bytes());
    for field in [CODE, 64, 0] {
        elf.extend(field.to_le_bytes()); // entry, program headers, section headers
    }
    elf.extend(0u32.to_le_bytes());
    for field in [64u16, 56, 1, 64, 0, 0] {
        elf.extend(field.to_le_bytes());
    }
    elf.extend(1u32.to_le_bytes()); // PT_LOAD
    elf.extend(7u32.to_le_bytes());
    for field in [HEADERS, CODE, CODE, size, size, 4096] {
        elf.extend(field.to_le_bytes());
    }
    elf.extend(code);
    elf
}

/// `moat microvm boot` of this code.
fn boot(space: &Workspace, code: &[&[u8]]) -> Result<Moat> {
    space.write("kernel", elf(&code.concat()))?;
    space.verb(&["microvm", "boot", "--kernel", "kernel", "--discovery", "cmdline"])
}

fn has_kvm() -> bool {
    fs::File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// A test's guest, run, where there is a KVM of any kind.
macro_rules! guest {
    ($code:expr) => {{
        if !has_kvm() {
            moat_tests::skip!("there is no /dev/kvm that can be opened");
        }
        let space = Workspace::new(None)?;
        let moat = boot(&space, $code)?;
        (space, moat)
    }};
}

#[test]
fn a_guest_that_switches_itself_off_is_a_success() -> Result<()> {
    let (_space, moat) = guest!(&[&say("hello\nand a prompt: "), POWER_OFF]);
    moat.run()?.status(0)?.stdout("hello\nand a prompt: ")?.stderr("")?;
    Ok(())
}

#[test]
fn a_reset_is_a_success() -> Result<()> {
    let (_space, moat) = guest!(&[&say("bye\n"), RESET]);
    moat.run()?.status(0)?.stdout("bye\n")?.stderr("")?;
    Ok(())
}

#[test]
fn a_crash_says_what_and_where() -> Result<()> {
    let (_space, moat) = guest!(&[&say("before\n"), TRIPLE_FAULT]);
    let seen = moat.run()?;
    seen.status(125)?.stdout("before\n")?.stderr_has("error[microvm]: ")?;
    seen.stderr_has("triple fault")?.stderr_has("0x1000")?.stderr_has("hint: ")?;
    Ok(())
}

#[test]
fn a_boot_loader_that_gives_up_is_a_crash_and_no_hang() -> Result<()> {
    let (_space, moat) = guest!(&[HALT]);
    moat.run()?.refused(125, "microvm")?.stderr_has("halted for ever")?;
    Ok(())
}

#[test]
fn stdin_is_typed_into_the_console() -> Result<()> {
    let (_space, moat) = guest!(&[&echo()]);
    // More than the port's queue holds.
    let text = format!("{}q", "0123456789\n".repeat(20));
    moat.stdin(text.clone()).run()?.status(0)?.stdout(&text)?;
    Ok(())
}

#[test]
fn ctrl_a_x_ends_it_and_ctrl_c_is_the_guests() -> Result<()> {
    let (_space, moat) = guest!(&[&say("ready"), &echo()]);
    let mut terminal = Terminal::start(moat, 80, 24)?;
    terminal.wait_for("ready")?;
    terminal.send(b"\x03abc\x01\x01")?;
    terminal.wait_for("abc\x01")?;
    terminal.send(b"\x01x")?;
    let (status, screen) = terminal.finish()?;
    ensure!(status == 0 && screen.contains("\x03abc\x01"), "status {status}: {screen:?}");
    Ok(())
}

#[test]
fn sigterm_ends_it() -> Result<()> {
    let (_space, moat) = guest!(&[&say("ready\n"), LOOP]);
    let mut live = moat.start()?;
    live.wait_for("ready\n")?;
    live.signal(nix::sys::signal::Signal::SIGTERM)?;
    live.finish()?.status(143)?;
    Ok(())
}

#[test]
fn without_a_serial_port_nothing_is_heard() -> Result<()> {
    let (_space, moat) = guest!(&[&say("hello\n"), POWER_OFF]);
    moat.arg("--console").arg("none").run()?.status(0)?.stdout("")?.stderr("")?;
    Ok(())
}

#[test]
fn kernels_that_are_none() -> Result<()> {
    let space = Workspace::new(None)?;
    space.write("text", "this is no kernel\n")?;
    space.write("cut", &elf(LOOP)[..100])?;
    for discovery in ["auto", "cmdline"] {
        for kernel in ["nosuch", "text", ".", "/dev/zero"] {
            let args = ["microvm", "boot", "--discovery", discovery, "--kernel", kernel];
            space.verb(&args)?.run()?.refused(125, "kernel")?.stderr_has(kernel)?;
        }
    }
    let seen = space.verb(&["microvm", "boot", "--kernel", "cut"])?.run()?;
    seen.refused(125, "kernel")?.stderr_has("cut")?;
    Ok(())
}

#[test]
fn machines_that_can_not_be() -> Result<()> {
    let (_space, _moat) = guest!(&[POWER_OFF]);
    for (arg, value, told) in [
        ("--cpus", "0", "1 to 32 vCPUs"),
        ("--cpus", "33", "1 to 32 vCPUs"),
        ("--cpus", "300", "--cpus"),
        ("--memory", "1MiB", "33554432"),
        ("--memory", "2TiB", "1099511627776"),
        ("--memory", "33554433B", "whole pages"),
        ("--memory", "256", "unit"),
        ("--share", "/tmp", "TAG=DIR"),
        ("--console", "vga", "serial"),
    ] {
        let (_space, moat) = guest!(&[POWER_OFF]);
        let seen = moat.arg(arg).arg(value).run()?;
        seen.refused(2, "usage")?.stderr_has(told)?;
    }
    Ok(())
}

#[test]
fn what_the_guest_is_given_is_not_there() -> Result<()> {
    for (arg, value, code, told) in [
        ("--initramfs", "nosuch", "kernel", "nosuch"),
        ("--initramfs", "/", "kernel", "not a regular file"),
        ("--disk", "nosuch", "microvm", "nosuch"),
        ("--disk", "root:ro", "microvm", "a file or a block device"),
        ("--net", "a-name-too-long-for-any", "microvm", "1 to 15 bytes"),
        ("--share", "src=nosuch", "microvm", "nosuch"),
        ("--share", "=root", "microvm", "1 to 36 bytes"),
    ] {
        let (_space, moat) = guest!(&[POWER_OFF]);
        moat.arg(arg).arg(value).run()?.refused(125, code)?.stderr_has(told)?;
    }
    Ok(())
}

#[test]
fn no_kvm() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("only root can hide /dev/kvm");
    }
    let space = Workspace::new(None)?;
    space.write("kernel", elf(POWER_OFF))?;
    let args = ["microvm", "boot", "--kernel", "kernel", "--discovery", "acpi"];
    let on = |starter: &'static str| -> Result<Seen> {
        space.through(&in_mounts(starter), &args)?.run()
    };
    on(NO_KVM)?.refused(5, "unavailable")?.stderr_has("/dev/kvm")?;
    if Path::new("/dev/kvm").exists() {
        on(FALSE_KVM)?.refused(5, "unavailable")?;
    }
    Ok(())
}

#[test]
fn help_says_how_to_leave() -> Result<()> {
    let seen = Moat::new(["microvm", "boot", "--help"])?.run()?;
    seen.status(0)?.stdout_has("ctrl-a x")?.stdout_has("Exit status")?.stdout_has("--memory")?;
    Ok(())
}
