//! moat started by a plain user.

use super::Named;
use crate::run::Case;

/// Nobody's on any machine.
const UID: u32 = 54_321;

pub(super) const CASES: &[Named] = &[
    ("a plain user's container runs in the host's root", host_root),
    ("a plain user's container runs in a directory", directory),
    ("a plain user has only user 0 to give", other_user),
    ("killing a plain user's monitor ends the container", killed),
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
    case.run().says("0\ngroup\nhosts\nnew");
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
