//! Exit, signals, streams, environment, user.

use std::collections::BTreeMap;

use moat_core::spec::{Resource, Rlimit};

use super::Named;
use crate::run::{Case, argv};

pub(super) const CASES: &[Named] = &[
    ("exit codes are exact", exit_codes),
    ("death by a signal is told", death_by_signal),
    ("stdout and stderr are apart", streams),
    ("a megabyte through stdin and stdout arrives whole", megabyte),
    ("arguments arrive as they are", arguments),
    ("the environment is the declared one, with HOME", environment),
    ("a missing command is 127", missing_command),
    ("commands that can't be executed are 126, with the reason", not_executable),
    ("user and group by number", user_by_number),
    ("user and group by name, from the root's own files", user_by_name),
    ("an unknown user is named", unknown_user),
    ("the root's own files may be odd, and ids beyond the workload's are refused", odd_users),
    ("resource limits hold", rlimits),
    ("signals are at their defaults", signals_reset),
    ("nothing but stdin, stdout and stderr is open", descriptors),
    ("a signal reaches the workload", signal),
    ("without a reaper the workload is PID 1", no_reaper),
    ("orphans are reaped", orphans),
    ("/dev/stdout can be opened again, by any user", reopen),
];

fn exit_codes() {
    for code in [0, 1, 7, 126, 127, 128, 255] {
        Case::shell(&format!("exit {code}")).run().ends_with(code);
    }
}

fn death_by_signal() {
    for signal in [1, 6, 9, 11, 15, 34, 64] {
        Case::shell(&format!("kill -{signal} $$")).run().ends_with(128 + signal);
    }
}

fn streams() {
    let outcome = Case::shell("echo out; echo err >&2").run();
    outcome.says("out");
    assert_eq!(outcome.err, "err\n");
}

fn megabyte() {
    let input = vec![b'x'; 1 << 20];
    let outcome = Case::host(&["cat"]).run_with(&input);
    assert_eq!(outcome.out.len(), input.len());
}

fn arguments() {
    let words = ["", "a b", "'\"", "line\nline", "é漢", "$HOME", "\\"];
    let mut command = vec!["/usr/bin/printf", "%s|"];
    command.extend(words);
    Case::host(&command).run().says(&format!("{}|", words.join("|")));
}

fn environment() {
    let outcome = Case::host(&["env"])
        .with(|workload| {
            workload.env = BTreeMap::from([
                ("PATH".into(), "/usr/bin:/bin".into()),
                ("MODE".into(), "a=b c".into()),
            ]);
        })
        .run();
    outcome.says("MODE=a=b c\nPATH=/usr/bin:/bin\nHOME=/root");
}

fn missing_command() {
    Case::host(&["no-such-command"]).run().ends_with(127).complains("no-such-command");
    Case::host(&["/no/such"]).run().ends_with(127).complains("/no/such");
}

fn not_executable() {
    Case::host(&["/etc/passwd"]).run().ends_with(126).complains("no execute bit");
    Case::host(&["/etc"]).run().ends_with(126).complains("directory");
    let script = "printf '#!/no/such/sh\\n' > /t; chmod 755 /t; exec /t";
    Case::shell(script).run().ends_with(127);
    let case = Case::busybox("");
    let root = case.dir.path().join("rootfs");
    for (name, text, reason) in
        [("script", "#!/no/such/sh\n", "/no/such/sh"), ("junk", "junk", "format")]
    {
        std::fs::write(root.join(name), text).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut workload = case.workload.clone();
        workload.argv = argv(&[&format!("/{name}")]);
        let other = Case::host(&["x"]).with(|to| *to = workload);
        other.run().ends_with(126).complains(reason);
    }
}

fn user_by_number() {
    let outcome = Case::busybox("id -u; id -g; echo $HOME; grep -i groups /proc/self/status")
        .with(|workload| workload.user = "1234:77".parse().unwrap())
        .run();
    outcome.says("1234\n77\n/\nGroups:\t");
}

fn user_by_name() {
    let outcome = Case::busybox("id -u; id -g; id -G; echo $HOME")
        .with(|workload| workload.user = "ann".parse().unwrap())
        .run();
    outcome.says("1000\n1000\n1000 10\n/home/ann");
}

fn unknown_user() {
    Case::busybox("id")
        .with(|workload| workload.user = "eve".parse().unwrap())
        .run()
        .ends_with(125)
        .complains("no user \"eve\" in the workload's /etc/passwd");
}

fn odd_users() {
    let case = |user: &str| {
        let case = Case::busybox("id -u; id -g; id -G; echo $HOME");
        let etc = case.dir.path().join("rootfs/etc");
        let filler = "#".repeat(99) + "\n";
        let passwd =
            "max:x:4294967295:0::/:\nbig:x:70000:0::/:\nneg:x:-1:0::/:\nover:x:4294967296:0::/:\n\
            far:x:5:5::/:\nshort:x:9\n:x:8:8::/:\ntwice:x:7:7::/one:\ntwice:x:6:6::/two:\n"
                .to_owned()
                + &filler.repeat(50_000)
                + "late:x:77:78::/home/late:/bin/sh";
        std::fs::write(etc.join("passwd"), passwd).unwrap();
        std::fs::write(etc.join("group"), "g:x:70000:far\nbad:x:-5:late\nend:x:79:a,late").unwrap();
        case.with(|workload| workload.user = user.parse().unwrap())
    };
    case("late").run().says("77\n78\n78 79\n/home/late");
    case("77").run().says("77\n78\n78 79\n/home/late");
    case("twice").run().says("7\n7\n7\n/one");
    case("late:end").run().says("77\n79\n79\n/home/late");
    case("65535:65535").run().says("65535\n65535\n65535\n/");
    for user in ["max", "big", "65536", "4294967294", "0:65536", "late:g"] {
        let outcome = case(user).run();
        outcome.ends_with(125).complains("the workload's ids end at 65535").complains("hint: ");
    }
    case("far").run().ends_with(125).complains("become a member of group 70000");
    for user in ["neg", "over", "short", "late:bad"] {
        case(user).run().ends_with(125).complains("in the workload's /etc/").complains("hint: ");
    }
    // Files that are none.
    let case = case("late");
    let passwd = case.dir.path().join("rootfs/etc/passwd");
    std::fs::remove_file(&passwd).unwrap();
    for odd in ["/dev/zero", "/proc/kmsg", "passwd", "/proc/self/fd/0"] {
        std::os::unix::fs::symlink(odd, &passwd).unwrap();
        case.run().ends_with(125).complains("no user \"late\"");
        std::fs::remove_file(&passwd).unwrap();
    }
}

fn rlimits() {
    let limit = |resource, soft, hard| Rlimit { resource, soft: Some(soft), hard: Some(hard) };
    let outcome = Case::shell("ulimit -n; ulimit -Hn; ulimit -c")
        .with(|workload| {
            workload.rlimits =
                vec![limit(Resource::Nofile, 1000, 1010), limit(Resource::Core, 0, 0)];
        })
        .run();
    outcome.says("1000\n1010\n0");
    Case::shell("ulimit -n").run().says("1024");
}

fn signals_reset() {
    let outcome = Case::shell("grep -E 'Sig(Blk|Ign)' /proc/self/status").run();
    outcome.says("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000");
}

fn descriptors() {
    Case::shell("ls /proc/self/fd | tr '\\n' ' '").run().says("0 1 2 3");
}

fn signal() {
    let script = "trap 'echo got it; exit 3' TERM; while :; do sleep 0.05; done";
    let outcome = Case::shell(script).var("MOAT_TEST_SIGNAL", "300 15").run();
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(3), "got it\n"), "{outcome:?}");
    Case::shell("sleep 30").var("MOAT_TEST_SIGNAL", "200 15").run().ends_with(143);
    Case::shell("sleep 30").var("MOAT_TEST_SIGNAL", "200 9").run().ends_with(137);
}

fn no_reaper() {
    let bare = |case: Case| case.with(|workload| workload.init = false);
    bare(Case::shell("echo $$; exit 9")).run().ends_with(9);
    bare(Case::shell("test $$ = 1")).run().ends_with(0);
    bare(Case::host(&["no-such"])).run().ends_with(127);
    let script = "trap 'exit 3' TERM; while :; do sleep 0.05; done";
    bare(Case::shell(script)).var("MOAT_TEST_SIGNAL", "300 15").run().ends_with(3);
    Case::shell("test $$ != 1").run().ends_with(0);
}

fn orphans() {
    let script =
        "(sleep 0.1 & echo) >/dev/null; sleep 0.4; cat /proc/[0-9]*/status | grep -c 'State:.Z'";
    let outcome = Case::shell(script).run();
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(1), "0\n"), "{outcome:?}");
}

fn reopen() {
    for user in ["0", "1000"] {
        let case = Case::shell("echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin");
        let case = case.with(|workload| workload.user = user.parse().unwrap());
        let outcome = case.run_with(b"in\n");
        outcome.says("out\nin");
        assert_eq!(outcome.err, "err\n", "{outcome:?}");
    }
}
