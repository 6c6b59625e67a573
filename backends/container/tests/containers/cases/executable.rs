//! moat's own executable and what can be reached of it (the class of CVE-2019-5736). The program
//! that is attacked is a copy of this one, owned by whoever starts it.
//!
//! These bite: with `launch` never taking the way over another program, the script of a plain user
//! said `chmod done`, `setxattr done` and `utimes done`, that of root with the identity map
//! `chown done` too, and the file was changed: on the host, moat could be made setuid root. Writing
//! was refused since it ran. With a range of its own, root's container can do nothing to it either
//! way, and an ELF file's interpreter is not what /proc/PID/exe shows.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use moat_core::spec::{Landlock, Propagation, Volume, VolumeSource};

use super::Named;
use crate::run::{Case, Outcome, argv, copy_program};

/// Nobody's on any machine.
const UID: u32 = 54_321;

pub(super) const CASES: &[Named] = &[
    ("moat's executable is not to be had as the command", as_command),
    ("nor as a script's interpreter", as_interpreter),
    ("nor as an ELF file's interpreter", as_elf_interpreter),
    ("nor through PID 1", through_reaper),
    ("PID 1 shows nothing of the host", no_trace),
    ("on the way over another program, arguments, status and streams are the same", same),
    ("and so is what is said of a command that can't be run", same_errors),
    ("and so it is with Landlock, and where privileges may be gained", restricted),
    ("where memory can't be executed, it is a file", without_memory),
];

/// Who starts moat, and what of the host's ids the workload has.
const STARTERS: [&str; 3] = ["plain user", "root, mapped", "root, identity"];

/// A case with a root of busybox and moat as a file of its own.
fn case(starter: &str, script: &str) -> Case {
    let case = Case::busybox(script).with_own_program();
    match starter {
        "plain user" => case.user(UID).with_own_program(),
        "root, identity" => identity(case),
        _ => case,
    }
}

/// sysfs can't be seen through an id map.
fn identity(case: Case) -> Case {
    case.with(|workload| {
        workload.volumes.push(Volume {
            source: VolumeSource::Bind("/sys/kernel".into()),
            target: "/v".parse().unwrap(),
            read_only: true,
            propagation: Propagation::Private,
        });
    })
}

/// All that could have been changed of a file.
fn state(path: &Path) -> (Vec<u8>, [u64; 5], bool) {
    let found = fs::metadata(path).unwrap();
    let numbers =
        [found.mode().into(), found.uid().into(), found.gid().into(), found.size(), found.ino()];
    let times = found.mtime() == 0;
    let mut room = [0; 256];
    let attributes = rustix::fs::listxattr(path, &mut room[..]).unwrap();
    let named = String::from_utf8_lossy(&room[..attributes]).contains("user.moat");
    (fs::read(path).unwrap(), numbers, times || named)
}

/// Runs it; its program must be as it was.
#[track_caller]
fn unchanged(case: &Case, starter: &str) -> Outcome {
    let program: PathBuf = case.program();
    let before = state(&program);
    let outcome = case.run();
    assert!(before == state(&program), "{starter}: {} was changed: {outcome:?}", program.display());
    assert!(!outcome.out.contains("done"), "{starter}: {outcome:?}");
    outcome
}

fn executable(path: &Path, bytes: &[u8]) {
    let plain = path.with_extension("plain");
    fs::write(&plain, bytes).unwrap();
    copy_program(&plain, path);
}

fn attacked(case: Case, command: &[&str]) -> Case {
    case.with(|workload| {
        workload.argv = argv(command);
        workload.env.insert("MOAT_TEST_ATTACK".into(), "1".into());
    })
}

fn as_command() {
    for starter in STARTERS {
        let case = case(starter, "");
        symlink("/proc/self/exe", case.dir.path().join("rootfs/bin/tool")).unwrap();
        for command in ["/proc/self/exe", "/proc/thread-self/exe", "tool"] {
            let mut workload = case.workload.clone();
            workload.argv = argv(&[command]);
            let case = attacked(self::case(starter, "").with(|to| *to = workload), &[command]);
            let outcome = unchanged(&case, starter);
            outcome.ends_with(126).complains("it is moat's own program");
        }
    }
}

fn as_interpreter() {
    for starter in STARTERS {
        let case = attacked(case(starter, ""), &["/script"]).var("MOAT_TEST_STEPS", "1");
        executable(&case.dir.path().join("rootfs/script"), b"#!/proc/self/exe\n");
        let outcome = unchanged(&case, starter);
        // On a filesystem that can't be id-mapped that is root's only way too.
        if starter == "root, mapped" && !outcome.out.contains("each to itself") {
            // It is moat's own program that runs, but as somebody to whom it does not belong.
            assert!(outcome.out.contains("\nattack\n"), "{outcome:?}");
        } else {
            outcome.ends_with(127);
        }
    }
}

fn as_elf_interpreter() {
    for starter in STARTERS {
        let case = attacked(case(starter, ""), &["/elf"]);
        executable(&case.dir.path().join("rootfs/elf"), &elf("/proc/self/exe"));
        unchanged(&case, starter);
    }
}

/// An ELF file of nothing but the wish for an interpreter (elf(5)).
fn elf(interpreter: &str) -> Vec<u8> {
    let path = format!("{interpreter}\0");
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    bytes.resize(16, 0);
    let header = |bytes: &mut Vec<u8>, kind: u32, size: u64, offset: u64| {
        bytes.extend([kind, 5].iter().flat_map(|word| word.to_le_bytes()));
        let words = [offset, 0x1_0000 + offset, 0x1_0000 + offset, size, size, 1];
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    };
    bytes.extend([2u16, 62].iter().flat_map(|half| half.to_le_bytes()));
    bytes.extend(1u32.to_le_bytes());
    bytes.extend([0x1_0000u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(0u32.to_le_bytes());
    bytes.extend([64u16, 56, 2, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    header(&mut bytes, 3, path.len().try_into().unwrap(), 176);
    header(&mut bytes, 1, 0x1000, 0);
    bytes.extend(path.bytes());
    bytes.resize(0x1000, 0);
    bytes
}

fn through_reaper() {
    let script = "for f in exe root cwd fd/0 environ maps mem auxv ns/user; do \
        cat /proc/1/$f >/dev/null 2>&1 && echo read $f; ls /proc/1/$f/ >/dev/null 2>&1 && \
        echo entered $f; done; touch /proc/1/exe 2>/dev/null && echo touched; \
        ls -l /proc/1/exe 2>/dev/null | grep -c monitor; echo end";
    for starter in STARTERS {
        let outcome = unchanged(&case(starter, script), starter);
        outcome.says("0\nend");
    }
}

fn no_trace() {
    let script = "cat /proc/1/cmdline | tr -d '\\0'; echo; cat /proc/1/comm; \
        grep -l OF_THE_HOS[T] /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null; echo end";
    for starter in STARTERS {
        case(starter, script).var("SECRET", "OF_THE_HOST").run().says("moat-init\nmoat-init\nend");
    }
}

fn same() {
    for init in [true, false] {
        let script =
            "echo \"$0|$1|$2\"; echo err >&2; ls /proc/self/fd | wc -l; echo $HOME; exit 7";
        let case = case("plain user", "").with(|workload| {
            workload.init = init;
            workload.argv = argv(&["sh", "-c", script, "", "a b", "é"]);
        });
        let outcome = case.run();
        outcome.ends_with(7);
        assert_eq!(outcome.out, "|a b|é\n4\n/root\n", "{outcome:?}");
        assert_eq!(outcome.err, "err\n", "{outcome:?}");
    }
}

fn same_errors() {
    for init in [true, false] {
        let case = |command: &str| {
            case("plain user", "").with(|workload| {
                workload.init = init;
                workload.argv = argv(&[command]);
            })
        };
        case("no-such").run().ends_with(127).complains("command not found: no-such");
        case("/etc/passwd").run().ends_with(126).complains("no execute bit");
        let of = |name: &str, text: &[u8]| {
            let case = case(&format!("/{name}"));
            executable(&case.dir.path().join("rootfs").join(name), text);
            case.run()
        };
        of("junk", b"junk").ends_with(126).complains("in no format that this kernel can execute");
        let outcome = of("script", b"#!/no/such/sh -x\n");
        outcome.ends_with(126).complains("its interpreter");
        if init {
            outcome.complains("/script can't be executed: its interpreter /no/such/sh does not");
        }
    }
}

fn without_memory() {
    let held = "/proc/sys/vm/memfd_noexec";
    if fs::read_to_string(held).is_err() {
        println!("skipped: this kernel can execute what is in memory (before Linux 6.3)");
        return;
    }
    // The setting is a pid namespace's, and those below it can only be stricter.
    let case = case("plain user", "echo $0; exit 3");
    let inner = case.command();
    let mut command = std::process::Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "sh", "-ec"]);
    command.arg(format!("echo 2 > {held}; exec \"$@\"")).arg("sh");
    command.arg(inner.get_program()).args(inner.get_args());
    for (key, value) in inner.get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(output.stdout, b"/bin/sh\n", "{output:?}");
}

/// What else a plain user's process may be given does not stand in the way.
fn restricted() {
    let landlock = Landlock {
        read: vec!["/bin".parse().unwrap(), "/proc".parse().unwrap()],
        write: vec!["/dev".parse().unwrap()],
    };
    for init in [true, false] {
        let case = case("plain user", "echo in; cat /etc/passwd; echo $?").with(|workload| {
            workload.init = init;
            workload.security.landlock = Some(landlock.clone());
        });
        let outcome = case.run();
        if outcome.code == Some(125) {
            outcome.complains("Landlock");
            println!("skipped: this kernel has no Landlock");
            continue;
        }
        assert_eq!(outcome.out, "in\n1\n", "{outcome:?}");
    }
    let case = case("plain user", "grep NoNewPrivs /proc/self/status | tr -d '\\t'");
    case.with(|workload| workload.security.no_new_privileges = false).run().says("NoNewPrivs:0");
}
