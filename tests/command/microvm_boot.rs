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
use crate::tiny_guest::{
    HALT, HIGH_MEMORY, LOOP, POWER_OFF, RESET, TRIPLE_FAULT, bzimage, echo, elf, say, start_others,
};

/// `moat microvm boot` of this code.
fn boot(space: &Workspace, code: &[&[u8]]) -> Result<Moat> {
    space.write("kernel", elf(&code.concat(), false))?;
    space.verb(&[
        "microvm",
        "boot",
        "--kernel",
        "kernel",
        "--discovery",
        "cmdline",
        "--console",
        "serial",
    ])
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
fn every_kind_of_kernel_is_entered_in_its_way() -> Result<()> {
    if !has_kvm() {
        moat_tests::skip!("there is no /dev/kvm that can be opened");
    }
    let space = Workspace::new(None)?;
    // The same bytes mean the same in 32-bit mode, in which PVH begins, but for this: there it is
    // `dec eax` before a compare, and here a prefix of it.
    let is_64_bit = [
        0x31, 0xc0, // xor eax, eax
        0x48, 0x83, 0xf8, 0x00, // cmp rax, 0; or dec eax, and cmp eax, 0
        0xb0, b'3', // mov al, '3'
        0x75, 0x02, // jne over it
        0xb0, b'6', // mov al, '6'
        0x66, 0xba, 0xf8, 0x03, 0xee, // mov dx, 0x3f8; out dx, al
    ];
    let code = [&is_64_bit, POWER_OFF].concat();
    for (kernel, seen) in [(elf(&code, true), "3"), (elf(&code, false), "6"), (bzimage(&code), "6")]
    {
        for discovery in ["acpi", "cmdline"] {
            let mut args = vec!["microvm", "boot", "--kernel", "kernel", "--console", "serial"];
            args.extend(["--discovery", discovery]);
            space.write("kernel", &kernel)?;
            let moat = space.verb(&args)?;
            moat.run()?.status(0)?.stdout(seen)?.stderr("")?;
        }
    }
    Ok(())
}

#[test]
fn one_vcpu_starts_31_others() -> Result<()> {
    for (cpus, others) in [("1", 0), ("2", 1), ("32", 31)] {
        let (_space, moat) = guest!(&[&start_others(others), &say("all are here"), POWER_OFF]);
        moat.arg("--cpus").arg(cpus).run()?.status(0)?.stdout("all are here")?;
    }
    Ok(())
}

#[test]
fn memory_goes_on_above_4_gib() -> Result<()> {
    let (_space, moat) = guest!(&[HIGH_MEMORY, POWER_OFF]);
    moat.arg("--memory").arg("4GiB").run()?.status(0)?.stdout("hi")?;
    // And not where there is none.
    let (_space, moat) = guest!(&[HIGH_MEMORY, POWER_OFF]);
    let seen = moat.arg("--memory").arg("3GiB").run()?;
    ensure!(seen.stdout != b"hi", "{}", seen.shown());
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
    let (space, _moat) = guest!(&[&say("hello\n"), POWER_OFF]);
    for console in ["none", "virtio"] {
        let args = ["microvm", "boot", "--kernel", "kernel", "--discovery", "acpi", "--console"];
        let seen = space.verb(&args)?.arg(console).arg("--rng").arg("--balloon").run()?;
        seen.status(0)?.stdout("")?.stderr("")?;
    }
    Ok(())
}

#[test]
fn kernels_that_are_none() -> Result<()> {
    let space = Workspace::new(None)?;
    space.write("text", "this is no kernel\n")?;
    space.write("cut", &elf(LOOP, false)[..100])?;
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
    ] {
        let (_space, moat) = guest!(&[POWER_OFF]);
        let seen = moat.arg(arg).arg(value).run()?;
        seen.refused(2, "usage")?.stderr_has(told)?;
    }
    Ok(())
}

#[test]
fn no_more_devices_than_interrupts() -> Result<()> {
    let (_space, moat) = guest!(&[POWER_OFF]);
    let with = |mut moat: Moat, count: usize| {
        for index in 0..count {
            moat = moat.arg("--share").arg(format!("share{index}=root"));
        }
        moat.run()
    };
    with(moat, 20)?.refused(2, "usage")?.stderr_has("at most 19 virtio devices")?;
    let (_space, moat) = guest!(&[POWER_OFF]);
    with(moat, 19)?.status(0)?.stderr("")?;
    Ok(())
}

#[test]
fn the_socket_of_streams_goes_with_the_machine() -> Result<()> {
    let (space, moat) = guest!(&[&say("up\n"), LOOP]);
    let socket = space.path().join("socket");
    let mut live = moat.arg("--vsock").arg("socket").start()?;
    live.wait_for("up")?;
    ensure!(socket.exists(), "no socket");
    // What is there already stays, and is no place for another's.
    let (_space, second) = guest!(&[POWER_OFF]);
    second.arg("--vsock").arg(&socket).run()?.refused(125, "microvm")?.stderr_has("socket")?;
    ensure!(socket.exists(), "another's end has removed it");
    live.signal(nix::sys::signal::Signal::SIGTERM)?;
    live.finish()?.status(143)?;
    ensure!(!socket.exists(), "it is left behind");
    // A machine that can't be made leaves none, either.
    let moat = space.verb(&["microvm", "boot", "--kernel", "kernel", "--vsock", "socket"])?;
    moat.arg("--cpus").arg("33").run()?.refused(2, "usage")?;
    ensure!(!socket.exists(), "it is left behind by a machine that never was");
    Ok(())
}

#[test]
fn what_the_guest_is_given_is_not_there() -> Result<()> {
    for (arg, value, code, told) in [
        ("--initramfs", "nosuch", "kernel", "nosuch"),
        ("--initramfs", "/", "kernel", "not a regular file"),
        ("--vsock", "nosuch/socket", "microvm", "nosuch/socket"),
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
    space.write("kernel", elf(POWER_OFF, false))?;
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
