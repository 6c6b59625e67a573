//! A filter of the user's own, by what its actions really do.

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// Several actions, one of them for some arguments alone: `chmod` with the bit for set-user-id.
const DENYING: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30, "args": [
            {"index": 1, "value": 2048, "valueTwo": 2048, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30, "args": [
            {"index": 2, "value": 2048, "valueTwo": 2048, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["mknod", "mknodat"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["sync"], "action": "SCMP_ACT_TRAP"},
        {"names": ["sethostname"], "action": "SCMP_ACT_TRACE"},
        {"names": ["link", "linkat"], "action": "SCMP_ACT_LOG"},
        {"names": ["open_the_door"], "action": "SCMP_ACT_KILL"}
    ]
}"#;

const TRIED: &str = "cd /tmp; mkdir d; ln -s a b; touch f; chmod 755 f && echo mode; chmod 4755 f; \
    ln f g && echo linked; mkfifo p; echo $?; sync; echo $?; hostname other; mount -t tmpfs t /home";

/// Docker's form: nothing is allowed but what is listed, by capabilities and kernels.
const ALLOWING: &str = r#"{
    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 11,
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        {"names": ["execve", "exit_group", "exit", "brk", "mmap", "munmap", "mprotect", "read",
            "readv", "write", "writev", "close", "open", "openat", "fstat", "newfstatat", "stat",
            "arch_prctl", "set_tid_address", "set_robust_list", "prlimit64", "rseq", "fcntl",
            "ioctl", "getuid", "geteuid", "getgid", "getegid", "rt_sigaction", "rt_sigprocmask",
            "getpid", "getppid", "getcwd", "poll", "readlink", "getrandom", "prctl"],
            "action": "SCMP_ACT_ALLOW"},
        {"names": ["chdir"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_CHOWN"]}},
        {"names": ["umask"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["kill"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}}
    ]
}"#;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let mut all = Vec::new();
    space.write("deny.json", DENYING)?;
    space.write("allow.json", ALLOWING)?;
    for further in ["", ", no_new_privileges = false"] {
        space.spec(&format!("security = {{ seccomp = \"./deny.json\"{further} }}"))?;
        let seen = space.sh(TRIED)?;
        seen.stderr_has("deny.json names what is no system call")?.stderr_has("open_the_door")?;
        for line in [
            "mkdir: can't create directory 'd': Permission denied",
            "ln: b: Operation not permitted",
            "chmod: f: Read-only file system",
            "Function not implemented",
        ] {
            seen.stderr_has(line)?;
        }
        // 128 + SIGSYS, by which both the killed and the trapped end.
        ensure!(seen.out() == "mode\nlinked\n159\n159\n", "{}", seen.shown());
        // The kernel's own refusal is what is left.
        seen.stderr_has("mount: permission denied")?;
        all.push(Seen { stderr: Vec::new(), ..seen });
    }
    space.spec("security = { seccomp = \"./allow.json\" }")?;
    let seen = space.sh("cd /; umask 022 && echo masked; kill -0 $$; echo $?")?;
    ensure!(seen.status(0)?.out() == "masked\n1\n", "{}", seen.shown());
    seen.stderr_has("Resource temporarily unavailable")?;
    all.push(Seen { stderr: Vec::new(), ..seen });
    space.spec("security = { seccomp = \"./none.json\" }")?;
    space.run(&["true"])?.refused(3, "spec")?.stderr_has("none.json can't be read")?;
    space.write("wrong.json", r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#)?;
    space.spec("security = { seccomp = \"./wrong.json\" }")?;
    space.run(&["true"])?.refused(3, "spec")?.stderr_has("SCMP_ACT_NOTIFY needs an agent")?;
    Ok(all)
}
