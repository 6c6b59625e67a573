//! `image = "host"` shows the host's files, but not its secrets nor its services.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use moat_tests::host;
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// What a home holds that is nobody else's business.
const SECRETS: [&str; 8] = [
    ".ssh/id_ed25519",
    ".aws/credentials",
    ".gnupg/private-keys-v1.d/key",
    ".config/gcloud/credentials.db",
    ".docker/config.json",
    ".kube/config",
    ".netrc",
    ".git-credentials",
];

/// What is as harmless as the rest of the host.
const PLAIN: [&str; 2] = [".profile", "project/main.c"];

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.host_spec("")?;
    // Not in the workspace, which in the bed is below /run, hidden as a whole.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    for file in SECRETS.iter().chain(&PLAIN) {
        let path = home.path().join(file);
        fs::create_dir_all(path.parent().context("a file has a parent")?)?;
        fs::write(path, "secret\n")?;
    }
    let at = home.path().display();
    let script = format!(
        "cd {at} || exit; for f in {} {}; do [ -e $f ] && echo $f; done; \
         cat /etc/shadow /etc/gshadow /etc/ssh/ssh_host_*_key 2>/dev/null; \
         ls -A /run; ls -A /root/.ssh /root/.gnupg 2>/dev/null; \
         mkdir .ssh && echo own > .ssh/id_ed25519 && cat .ssh/id_ed25519",
        SECRETS.join(" "),
        PLAIN.join(" ")
    );
    // The guest kernels are where they always are.
    let moat = space.moat(&["sh", "-c", &script])?.env("XDG_DATA_HOME", host::data_home()?);
    let seen = moat.env("HOME", home.path()).run()?;
    seen.status(0)?.stdout(&format!("{}\n{}\nown\n", PLAIN[0], PLAIN[1]))?.stderr("")?;
    for file in SECRETS {
        let kept = fs::read_to_string(home.path().join(file))?;
        ensure!(kept == "secret\n", "{file} was changed on the host");
    }
    ensure!(Path::new("/etc/shadow").exists(), "/etc/shadow is gone from the host");
    // Its paths name a directory that differs from run to run.
    Ok(vec![Seen { stderr: Vec::new(), ..seen }])
}
