//! moat started by a plain user.

use std::path::Path;
use std::process::{Command, Stdio};

use moat_core::spec::{Propagation, Volume, VolumeSource};

use super::Named;
use crate::run::{Case, Outcome};

/// Nobody's on any machine.
const UID: u32 = 54_321;

pub(super) const CASES: &[Named] = &[
    ("a plain user's container runs in the host's root", host_root),
    ("a plain user's container runs in a directory", directory),
    ("a plain user has only user 0 to give", other_user),
    ("killing a plain user's monitor ends the container", killed),
    ("a plain user's container has the ids set aside for that user", subordinate),
    ("as far as they go, from several lines", few_subordinate),
    ("where nothing gives them, it has user 0 alone, and the plan says why", no_helpers),
    ("where they are refused while it is made, it has user 0 alone, with a warning", refused),
    ("a file that is mounted over in /etc costs nothing else of the host's root", split_root),
    ("a user that has an id set aside keeps nothing of moat's caller", set_aside_user),
];

fn host_root() {
    let script = "id -u; test -e /etc/passwd && test -d /usr/bin && echo x > /tmp/x && cat /tmp/x; \
        touch /usr/new 2>/dev/null; cat /proc/self/uid_map | tr -s ' '; uname -n; \
        test -e /etc/shadow && echo shadow; stat -c %a /tmp";
    let outcome = Case::shell(script).user(UID).run();
    outcome.says(&format!("0\nx\n 0 {UID} 1\nsrc\n1777"));
}

fn directory() {
    let case = Case::busybox("id -u; touch /etc/new && rm /etc/passwd && ls /etc").user(UID);
    case.run().says("0\ngroup\nhostname\nhosts\nnew\nresolv.conf");
}

fn other_user() {
    let case = Case::shell("id").user(UID);
    let case = case.with(|workload| workload.user = "1000:1000".parse().unwrap());
    case.run().ends_with(125).complains("only user 0");
}

fn killed() {
    let mark = format!("sleep 50{}", std::process::id());
    let case = Case::host(&mark.split(' ').collect::<Vec<_>>()).user(UID);
    let mut monitor = case.spawn();
    crate::run::eventually("the workload runs", || crate::run::is_running(&mark));
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    crate::run::eventually("the workload is gone", || !crate::run::is_running(&mark));
}

/// Runs it on a machine where user UID is called `plain`, with these lines in /etc/subuid and
/// /etc/subgid, and after this script; says what it lacks to be such a machine.
fn on_machine(case: &Case, ids: &str, script: &str) -> Option<Outcome> {
    if !Path::new("/usr/bin/newuidmap").exists() {
        println!("skipped: newuidmap is not installed (cargo xtask setup)");
        return None;
    }
    let dir = case.dir.path();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let passwd = format!("{passwd}plain:x:{UID}:{UID}::/:/bin/sh\n");
    for (name, text) in [("passwd", passwd.as_str()), ("subuid", ids), ("subgid", ids)] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let inner = case.command();
    let mut command = Command::new("unshare");
    let binds: String = ["passwd", "subuid", "subgid"]
        .map(|name| format!("mount --bind {0}/{name} /etc/{name}; ", dir.display()))
        .concat();
    let script = format!("touch /etc/subuid /etc/subgid; {binds} cd {}; {script}", dir.display());
    command.args(["--mount", "sh", "-ec", &format!("{script} exec \"$@\""), "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    for (key, value) in inner.get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    case.assert_nothing_left();
    Some(Outcome {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

const WHOLE: &str = "plain:1000000:65536\n";

fn subordinate() {
    let script = "id -u; for m in uid gid; do cat /proc/self/${m}_map | tr -s ' '; done; \
        touch /etc/f; busybox chown 1000:65535 /etc/f; stat -c '%u %g' /etc/f; \
        cat /proc/self/setgroups";
    let case = Case::busybox(script).user(UID);
    let Some(outcome) = on_machine(&case, WHOLE, "") else { return };
    let map = format!(" 0 {UID} 1\n 1 1000000 65535");
    outcome.says(&format!("0\n{map}\n{map}\n1000 65535\nallow"));
    assert_eq!(outcome.err, "", "{outcome:?}");
    let case = Case::busybox("id -u; id -g; id -G; touch /tmp/f; stat -c '%u %g' /tmp/f; exit 9");
    let case = case.user(UID).with(|workload| {
        workload.user = "ann".parse().unwrap();
        workload.tmpfs = vec!["/tmp:1MiB".parse().unwrap()];
    });
    let outcome = on_machine(&case, WHOLE, "").unwrap();
    outcome.ends_with(9);
    assert_eq!(outcome.out, "1000\n1000\n1000 10\n1000 1000\n", "{outcome:?}");
}

fn few_subordinate() {
    let ids = format!("plain:1000000:5\nbroken\n{UID}:2000000:1001\nplain:2000500:9");
    let case = |user: &str| {
        let case = Case::busybox("id -u; id -g; tr -s ' ' < /proc/self/uid_map").user(UID);
        let user = user.parse().unwrap();
        case.var("MOAT_TEST_STEPS", "1").with(|workload| workload.user = user)
    };
    let Some(outcome) = on_machine(&case("1006:7"), &ids, "") else { return };
    let tail = format!("\n1006\n7\n 0 {UID} 1\n 1 1000000 5\n 6 2000000 1001\n");
    assert!(outcome.out.ends_with(&tail), "{outcome:?}");
    let step = "1..1006 are what is set aside for that user: 1000000.., 2000000..";
    assert!(outcome.out.contains(step), "{outcome:?}");
    for user in ["1007", "0:1007", "4294967294", "65534"] {
        let outcome = on_machine(&case(user), &ids, "").unwrap();
        outcome.ends_with(125).complains("the workload's ids end at 1006").complains("hint: ");
    }
}

fn no_helpers() {
    let false_setuid = "cp /bin/false x; chmod 4755 x; mount --bind x /usr/bin/newgidmap;";
    for (ids, script, reason) in [
        ("other:1000000:65536\n", "", "/etc/subuid sets no ids aside for plain"),
        (WHOLE, "mount --bind /dev/null /usr/bin/newuidmap;", "newuidmap is not installed"),
        (WHOLE, "cp /bin/true x; mount --bind x /usr/bin/newgidmap;", "neither setuid root nor"),
        (
            WHOLE,
            "mount --bind /usr/bin /usr/bin; mount -o remount,bind,nosuid /usr/bin;",
            "mounted nosuid",
        ),
        (WHOLE, "set -- setpriv --no-new-privs \"$@\";", "no_new_privs"),
        // What the user has first along PATH is nothing to moat.
        (
            WHOLE,
            "cp /bin/true newuidmap; chmod 4755 newuidmap; export PATH=.:$PATH; \
             mount --bind /dev/null /usr/bin/newuidmap;",
            "newuidmap is not installed",
        ),
    ] {
        let case = Case::busybox("tr -s ' ' < /proc/self/uid_map").user(UID);
        let case = case.var("MOAT_TEST_STEPS", "1");
        let Some(outcome) = on_machine(&case, ids, script) else { return };
        assert!(outcome.out.ends_with(&format!("\n 0 {UID} 1\n")), "{outcome:?}");
        assert!(outcome.out.contains(reason), "{reason}: {outcome:?}");
        assert_eq!(outcome.err, "", "{outcome:?}");
    }
    // One that is there and does nothing is found out when it is used.
    let case = Case::busybox("tr -s ' ' < /proc/self/gid_map; exit 4").user(UID);
    let outcome = on_machine(&case, WHOLE, false_setuid).unwrap();
    outcome.ends_with(4).complains("/usr/bin/newgidmap gave no ids");
    assert_eq!(outcome.out, format!(" 0 {UID} 1\n"), "{outcome:?}");
}

fn refused() {
    // The program's own check: the range is not this user's any more when it looks.
    let script = "printf '#!/bin/sh\\n' > x; cp /bin/false x; chmod 4755 x; \
        mount --bind x /usr/bin/newuidmap; cp x y; chmod 4755 y; mount --bind y /usr/bin/newgidmap;";
    let case = Case::busybox(
        "for m in uid gid; do tr -s ' ' < /proc/self/${m}_map; done; \
        cat /proc/self/setgroups",
    );
    let case = case.user(UID);
    let Some(outcome) = on_machine(&case, WHOLE, script) else { return };
    outcome.says(&format!(" 0 {UID} 1\n 0 {UID} 1\ndeny"));
    outcome.complains("fewer users and groups").complains("/usr/bin/newuidmap gave no ids");
    // Another user is refused then as ever.
    let case = Case::busybox("id").user(UID);
    let case = case.with(|workload| workload.user = "ann".parse().unwrap());
    on_machine(&case, WHOLE, script).unwrap().ends_with(125).complains("only user 0");
}

fn split_root() {
    // The machine's own /etc/passwd, subuid and subgid are mounted over here; others are not.
    let script = "ls -d /usr/bin /var/lib /etc/ssl; head -c 5 /etc/group; echo; test -x /bin/ls; \
        echo $?; ls /etc/passwd 2>/dev/null; test -e /etc/shadow; echo $?; echo x >> /etc/group; \
        grep -c ^x$ /etc/group; chown 7:7 /etc/group && stat -c %u /etc/group";
    let Some(outcome) = on_machine(&Case::shell(script).user(UID), WHOLE, "") else { return };
    outcome.says("/etc/ssl\n/usr/bin\n/var/lib\nroot:\n0\n1\n1\n7");
    // Its other users too, whatever the caller lets others do with new files.
    let case = Case::shell("id -u; head -c 5 /etc/group; test -x /bin/ls && ls /etc >/dev/null");
    let case = case.user(UID).with(|workload| workload.user = "1234:5".parse().unwrap());
    on_machine(&case, WHOLE, "umask 077;").unwrap().says("1234\nroot:");
}

fn set_aside_user() {
    let script = "cat /v/secret; echo x > /v/new; grep -E '^(Groups|CapEff):' /proc/self/status | tr -d '\\t '";
    let case = Case::busybox(script).user(UID);
    let volume = case.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("secret"), "x").unwrap();
    let mode = |path: &Path, mode| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(path, Some(UID), Some(UID)).unwrap();
    };
    mode(&volume.join("secret"), 0o600);
    mode(&volume, 0o755);
    let case = case.with(|workload| {
        workload.user = "1234:77".parse().unwrap();
        workload.volumes.push(Volume {
            source: VolumeSource::Bind(volume.clone()),
            target: "/v".parse().unwrap(),
            read_only: false,
            propagation: Propagation::Private,
        });
    });
    let Some(outcome) = on_machine(&case, WHOLE, "") else { return };
    outcome.ends_with(0);
    assert_eq!(outcome.out, "Groups:\nCapEff:0000000000000000\n", "{outcome:?}");
    assert!(!volume.join("new").exists(), "{outcome:?}");
}
