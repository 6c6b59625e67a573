//! /etc/hosts, /etc/hostname and /etc/resolv.conf are the workload's own: what the root has there is
//! covered, its symlinks are not followed, everyone may read them whatever moat's umask is, and a
//! volume may stand in for each.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use moat_tests::moat::Moat;
use moat_tests::seen::Seen;

use crate::wall::Wall;

const SHOW: &str = "cd /etc; cat hostname; grep -v '^#' resolv.conf; grep -c 'network.mode' resolv.conf; \
    grep web hosts; grep kept hosts; stat -c '%n %F %a %u:%g' hosts hostname resolv.conf";

const FILES: &str = "hosts regular file 644 0:0\nhostname regular file 644 0:0\n\
    resolv.conf regular file 644 0:0\n";

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let etc = space.root().join("etc");
    space.write("root/etc/hosts", "10.1.2.3 kept\n")?;
    space.write("root/etc/hostname", "the-host\n")?;
    space.write("root/run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n")?;
    symlink("../run/systemd/resolve/stub-resolv.conf", etc.join("resolv.conf"))?;
    space.spec("hostname = \"web\"")?;
    let plain = space.sh(SHOW)?;
    let shown = format!("web\n1\n127.0.1.1 web\n10.1.2.3 kept\n{FILES}");
    plain.status(0)?.stdout(&shown)?.stderr("")?;

    // Symlinks out of the root, as a hostile image may have, and a strict umask.
    space.write("target", "untouched\n")?;
    for name in ["hosts", "hostname", "resolv.conf"] {
        let _ = fs::remove_file(etc.join(name));
        symlink(space.path().join("target"), etc.join(name))?;
    }
    let mut args = vec!["-c", "umask 077; exec \"$@\"", "sh"];
    let moat = moat_tests::moat::executable()?;
    args.push(moat.to_str().unwrap_or_default());
    let run = ["sh", "-c", SHOW];
    args.extend(space.run_args(&run));
    let links = Moat::program("sh", args).dir(space.path()).run()?;
    links.status(0)?.stdout(&format!("web\n1\n127.0.1.1 web\n{FILES}"))?;
    ensure!(space.read("target")? == "untouched\n", "a symlink was followed");
    ensure!(etc.join("hosts").is_symlink(), "the root was changed");

    space.write("resolv.conf", "nameserver 192.0.2.1\n")?;
    space.spec(
        "hostname = \"web\"\nread_only = true\n\
         volumes = [\"./resolv.conf:/etc/resolv.conf:ro\"]",
    )?;
    let volume = space.sh("cat /etc/resolv.conf /etc/hostname; echo x > /etc/hostname")?;
    volume.stdout("nameserver 192.0.2.1\nweb\n")?;
    volume.stderr("sh: can't create /etc/hostname: Read-only file system\n")?;

    // A root that has no /etc at all.
    fs::remove_dir_all(&etc)?;
    let none = space.run(&["cat", "/etc/hostname", "/etc/hosts"])?;
    none.status(0)?.stdout("web\n127.0.0.1 localhost\n::1 localhost\n127.0.1.1 web\n")?;
    Ok(vec![plain, links, volume, none])
}
