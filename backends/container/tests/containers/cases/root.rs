//! The root: copy-on-write, hidden paths, volumes, its own kernel filesystems.

use std::os::unix::fs::MetadataExt;

use moat_core::spec::{Bytes, Propagation, Tmpfs, Volume, VolumeSource};

use super::Named;
use crate::run::{Case, read};

pub(super) const CASES: &[Named] = &[
    ("writes do not reach the host's root", copy_on_write),
    ("writes do not reach a directory's root", directory_copy_on_write),
    ("the host's files keep their owners and modes", owners),
    ("the user's secrets and runtime directories are hidden", hidden),
    ("what is hidden can be made anew", made_anew),
    ("directories can be removed and made again", remove_and_make),
    ("a read-only root can't be written", read_only),
    ("a volume is shared, with the host's owners", volume),
    ("a read-only volume can't be written, nor what is mounted below", read_only_volume),
    ("a file can be a volume", file_volume),
    ("one source may be two volumes", twice),
    ("a symlink in the root leads a volume nowhere outside", symlink_target),
    ("tmpfs has its size and mode", tmpfs),
    ("the working directory is made", working_dir),
    ("/dev has its devices", devices),
    ("/proc and /sys are its own, masked and protected", kernel_filesystems),
    ("the host name is set and resolves", hostname),
    ("loopback is up", loopback),
    ("a missing root, volume and command are told", missing),
    ("a root whose /proc is a symlink is refused", hostile_proc),
];

fn copy_on_write() {
    let mark = format!("/etc/moat-test-{}", std::process::id());
    let script = format!("echo x > {mark} && cat {mark} && rm /etc/hostname && ls /etc/hostname");
    let before = read(std::path::Path::new("/etc/hostname"));
    let outcome = Case::shell(&script).run();
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(2), "x\n"), "{outcome:?}");
    assert!(!std::path::Path::new(&mark).exists());
    assert_eq!(read(std::path::Path::new("/etc/hostname")), before);
}

fn directory_copy_on_write() {
    let case = Case::busybox("touch /new /bin/new && rm -r /etc && mkdir /etc && ls /bin/new");
    case.run().says("/bin/new");
    let root = case.dir.path().join("rootfs");
    assert!(!root.join("new").exists() && root.join("etc/passwd").exists());
    let names = std::fs::read_dir(&root).unwrap().count();
    assert_eq!(names, 2, "mount points were made in the directory itself");
}

fn owners() {
    let script =
        "stat -c '%u %g %a' / /etc /etc/passwd /usr /root; stat -c %u /var/lib/apt/lists/partial";
    let outcome = Case::shell(script).run();
    let mut expected = String::new();
    for path in ["/", "/etc", "/etc/passwd", "/usr", "/root"] {
        let found = std::fs::metadata(path).unwrap();
        let mode = found.mode() & 0o7777;
        expected.push_str(&format!("{} {} {mode:o}\n", found.uid(), found.gid()));
    }
    let apt = std::fs::metadata("/var/lib/apt/lists/partial").unwrap();
    outcome.says(&format!("{expected}{}", apt.uid()));
}

fn hidden() {
    let home = std::env::var("HOME").unwrap();
    let secret = std::path::Path::new(&home).join(".pgpass");
    let ours = !secret.exists();
    if ours {
        std::fs::write(&secret, "secret").unwrap();
    }
    let run_mark = format!("/run/moat-test-{}", std::process::id());
    std::fs::write(&run_mark, "x").unwrap();
    let script = format!(
        "for p in {} /etc/shadow {run_mark}; do test -e $p && echo $p; done; \
         ls -a {home} | grep -c pgpass; stat -c '%a %u' /tmp /run /var/tmp; ls /run | wc -l; \
         test -L /var/run && cd /var/run && pwd -P",
        secret.display()
    );
    let outcome = Case::shell(&script).run();
    if ours {
        std::fs::remove_file(&secret).unwrap();
    }
    std::fs::remove_file(&run_mark).unwrap();
    outcome.says("0\n1777 0\n755 0\n1777 0\n0\n/run");
}

fn made_anew() {
    let script = "echo x > /etc/shadow && cat /etc/shadow && mkdir -p /root/.ssh/d && \
        touch /tmp/a /run/b && ls /root/.ssh /tmp /run";
    Case::shell(script).run().says("x\n/root/.ssh:\nd\n\n/run:\nb\n\n/tmp:\na");
}

fn remove_and_make() {
    let script = "rm -rf /usr/share/doc && mkdir /usr/share/doc && ls /usr/share/doc | wc -l && \
        mv /etc/apt /etc/apt2 && ls -d /etc/apt2";
    Case::shell(script).run().says("0\n/etc/apt2");
}

fn read_only() {
    let script = "touch /x 2>&1; touch /etc/x; touch /tmp/x; touch /dev/shm/ok /t/ok && ls /t";
    let outcome = Case::shell(script)
        .with(|workload| {
            workload.read_only = true;
            workload.tmpfs = vec![Tmpfs { target: "/t".parse().unwrap(), size: None }];
            workload.working_dir = "/made/anew".parse().unwrap();
        })
        .run();
    outcome.says("touch: cannot touch '/x': Read-only file system\nok");
}

fn with_volume(case: Case, source: &std::path::Path, target: &str, read_only: bool) -> Case {
    let source = VolumeSource::Bind(source.to_owned());
    let (target, propagation) = (target.parse().unwrap(), Propagation::Private);
    case.with(|workload| workload.volumes.push(Volume { source, target, read_only, propagation }))
}

fn volume() {
    let case = Case::shell("cat /v/in; echo out > /v/out; stat -c '%u %g' /v /v/in");
    let dir = case.dir.path().join("volume");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("in"), "in\n").unwrap();
    std::os::unix::fs::chown(dir.join("in"), Some(1000), Some(7)).unwrap();
    let case = with_volume(case, &dir, "/v", false);
    case.run().says("in\n0 0\n1000 7");
    assert_eq!(read(&dir.join("out")), "out\n");
    assert_eq!(std::fs::metadata(dir.join("out")).unwrap().uid(), 0, "owned as by the workload");
}

fn read_only_volume() {
    let case = Case::shell("cat /v/in; touch /v/out; touch /v/shm/out; ls /v");
    let dir = case.dir.path().join("volume");
    std::fs::create_dir_all(dir.join("shm")).unwrap();
    std::fs::write(dir.join("in"), "in\n").unwrap();
    let outcome = with_volume(case, &dir, "/v", true).run();
    outcome.says("in\nin\nshm");
    assert_eq!(outcome.err.matches("Read-only").count(), 2, "{outcome:?}");
}

fn file_volume() {
    let case = Case::shell("cat /etc/new/file; echo more >> /etc/new/file");
    let file = case.dir.path().join("file");
    std::fs::write(&file, "text\n").unwrap();
    let case = with_volume(case, &file, "/etc/new/file", false);
    case.run().says("text");
    assert_eq!(read(&file), "text\nmore\n");
}

fn twice() {
    let case = Case::shell("echo x > /a/f; cat /b/f; touch /b/g");
    let dir = case.dir.path().join("volume");
    std::fs::create_dir(&dir).unwrap();
    let case = with_volume(with_volume(case, &dir, "/a", false), &dir, "/b", true);
    let outcome = case.run();
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(1), "x\n"), "{outcome:?}");
}

fn symlink_target() {
    let case = Case::busybox("ls /link/sub");
    let root = case.dir.path().join("rootfs");
    let outside = case.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
    let dir = case.dir.path().join("volume");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("in"), "").unwrap();
    // The link leads to the same path inside the root, where nothing is: that is refused.
    let case = with_volume(case, &dir, "/link/sub", false);
    let outcome = case.run();
    outcome.ends_with(125).complains("/link/sub");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

fn tmpfs() {
    let script = "grep ' /t ' /proc/mounts | tr ' ' '\\n' | tail -3 | head -1 | tr , '\\n' | grep size; \
        stat -c %a /t; head -c 3M /dev/zero > /t/x";
    let outcome = Case::shell(script)
        .with(|workload| {
            workload.tmpfs =
                vec![Tmpfs { target: "/t".parse().unwrap(), size: Some(Bytes::mib(2)) }];
        })
        .run();
    assert_eq!(
        (outcome.code, outcome.out.as_str()),
        (Some(1), "size=2048k\n1777\n"),
        "{outcome:?}"
    );
}

fn working_dir() {
    let case = Case::shell("pwd; stat -c '%u %a' .");
    case.with(|workload| workload.working_dir = "/new/dir".parse().unwrap())
        .run()
        .says("/new/dir\n0 755");
}

fn devices() {
    let script = "echo x > /dev/null; head -c 2 /dev/zero | od -An -tx1; \
        head -c 8 /dev/urandom | wc -c; (echo x > /dev/full) 2>/dev/null || echo full; \
        ls /dev | tr '\\n' ' '; echo; stat -c '%u %a %F' /dev/null; test -w /dev/shm && echo shm";
    let expected = " 00 00\n8\nfull\n\
        core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \n\
        0 666 character special file\nshm";
    Case::shell(script).run().says(expected);
}

fn kernel_filesystems() {
    let script = "cat /proc/1/comm | wc -l; ls /sys/firmware | wc -l; \
        (echo x > /proc/sys/kernel/hostname) 2>/dev/null || echo protected; \
        (mkdir /sys/x) 2>/dev/null || echo protected; ls /sys/class/net; \
        (cat /proc/1/environ; readlink /proc/1/exe) 2>/dev/null || echo closed; \
        ! grep moat /proc/self/cgroup";
    Case::shell(script).run().says("1\n0\nprotected\nprotected\nlo\nclosed");
}

fn hostname() {
    let script = "uname -n; getent hosts boxy | wc -l; getent hosts localhost | wc -l";
    let case = Case::shell(script);
    case.with(|workload| workload.hostname = "boxy".parse().unwrap()).run().says("boxy\n1\n1");
}

fn loopback() {
    let script = "cat /sys/class/net/lo/operstate; python3 -c 'import socket as s; l = s.create_server((\"127.0.0.1\", 80)); c = s.create_connection((\"localhost\", 80)); print(\"connected\")'";
    Case::shell(script).run().says("unknown\nconnected");
}

fn missing() {
    let gone = std::path::PathBuf::from("/no/such/root");
    Case::host(&["true"])
        .with(|workload| workload.root = moat_core::spec::Root::Directory(gone))
        .run()
        .ends_with(3)
        .complains("rootfs /no/such/root does not exist");
    let case = with_volume(Case::host(&["true"]), "/no/such/volume".as_ref(), "/v", false);
    case.run().ends_with(3).complains("mkdir -p /no/such/volume");
}

fn hostile_proc() {
    let case = Case::busybox("true");
    let root = case.dir.path().join("rootfs");
    std::os::unix::fs::symlink("/etc", root.join("proc")).unwrap();
    case.run().ends_with(125).complains("/proc: it is a symlink");
}
