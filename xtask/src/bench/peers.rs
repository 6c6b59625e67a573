//! The ways to run `true` in a container, and what each can't do as the others do.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

use super::oci::{MASKED, READ_ONLY};
use super::report::Outcome;
use super::start::Contender;
use super::{build, oci};

/// A contender, or what became of it before the first round.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) contender: Result<Contender, Outcome>,
    pub(super) note: Option<&'static str>,
}

/// What the others are compared with.
pub(super) const REFERENCE: &str = "crun";

/// The least that the kernel takes.
pub(super) const FLOOR: &str = "floor";

/// All of them, with their files in `room`.
pub(super) fn all(room: &Path, moat: Result<PathBuf>) -> Result<Vec<Peer>> {
    let root = build::rootfs(room)?;
    let bundle = oci::bundle(room, &root)?;
    let floor = build::FLOOR.compile(room)?;
    let (root, bundle) = (root.display().to_string(), bundle.display().to_string());
    let failed = |error: anyhow::Error| Outcome::Failed(format!("{error:#}"));
    let moat = moat.map_err(failed);
    let bare = moat.as_ref().map(|moat| without_spec(moat, room)).map_err(Clone::clone);
    let moat =
        |keys| self::moat(moat.as_ref().map_err(Clone::clone)?, room, &root, keys).map_err(failed);
    let floor = floor.display().to_string();
    let in_place = Contender::new([&floor, "--in-place", &root, "/bin/true"]);
    let peers = [
        ("fork + exec", Ok(Contender::new([format!("{root}/bin/true")])), None),
        ("floor, in place", Ok(in_place), Some(IN_PLACE_NOTE)),
        (FLOOR, Ok(Contender::new([&floor, &root, "/bin/true"])), Some(FLOOR_NOTE)),
        ("bubblewrap", bubblewrap(&root), Some(BUBBLEWRAP_NOTE)),
        ("crun, no cgroup", crun(&bundle, &["--cgroup-manager=disabled"]), Some("no limits")),
        (REFERENCE, crun(&bundle, &[]), Some(OCI_NOTE)),
        ("runc", runc(&bundle), Some("the same bundle")),
        ("moat run", moat(""), Some(MOAT_NOTE)),
        ("moat run, no reaper", moat("init = false"), Some("with `init = false`")),
        ("moat run -- true", bare, Some(BARE_NOTE)),
    ];
    Ok(peers.map(|(name, contender, note)| Peer { name, contender, note }).into())
}

const IN_PLACE_NOTE: &str = "the namespaces, mounts, masked paths and change of root alone, as \
    little as crun's; no cgroup, capabilities, seccomp filter or state";

const FLOOR_NOTE: &str = "the same, with moat's root: copy-on-write and id-mapped";

const BUBBLEWRAP_NOTE: &str = "no cgroup limits, no seccomp filter (it has none of its own), all \
    capabilities dropped, one user mapped";

const OCI_NOTE: &str = "moat's namespaces, ids, limits, capabilities, masked paths and devices, a \
    seccomp filter as long; root written in place, with the host's owners";

const MOAT_NOTE: &str = "more than the others: the root is copy-on-write and id-mapped, moat's \
    reaper is PID 1, policy decides, and a journal of the run is kept while it lasts";

const BARE_NOTE: &str = "no spec: this machine's root copy-on-write with its secrets hidden, a \
    writable volume, this machine's own dynamically linked `true`";

fn bubblewrap(root: &str) -> Result<Contender, Outcome> {
    let program = installed("bwrap", "bubblewrap")?;
    let mut argv: Vec<String> = [&program, "--unshare-all", "--unshare-user", "--die-with-parent"]
        .map(str::to_owned)
        .into();
    let mut add = |words: &[&str]| argv.extend(words.iter().map(|word| (*word).to_owned()));
    add(&["--hostname", "bench", "--cap-drop", "ALL", "--clearenv", "--setenv", "PATH", "/bin"]);
    add(&["--bind", root, "/", "--proc", "/proc", "--dev", "/dev", "--mqueue", "/dev/mqueue"]);
    add(&["--tmpfs", "/dev/shm", "--ro-bind", "/sys", "/sys"]);
    for path in MASKED {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => add(&["--tmpfs", path]),
            Ok(_) => add(&["--ro-bind", "/dev/null", path]),
            Err(_) => {}
        }
    }
    for path in READ_ONLY.iter().filter(|path| Path::new(path).exists()) {
        add(&["--ro-bind", path, path]);
    }
    add(&["/bin/true"]);
    Ok(Contender::new(argv))
}

fn crun(bundle: &str, options: &[&str]) -> Result<Contender, Outcome> {
    let program = installed("crun", "crun")?;
    let line = [&program].into_iter().map(String::as_str).chain(options.iter().copied());
    let mut contender = Contender::new(line.chain(["run", "--bundle", bundle]));
    contender.named = true;
    Ok(contender)
}

fn runc(bundle: &str) -> Result<Contender, Outcome> {
    let program = installed("runc", "runc")?;
    let mut contender = Contender::new([&program, "run", "--bundle", bundle]);
    contender.named = true;
    Ok(contender)
}

/// moat with the same limits as the bundle has; `keys` go below the workload's own.
fn moat(moat: &Path, room: &Path, root: &str, keys: &str) -> Result<Contender> {
    let file = room.join(format!("moat{}.toml", keys.len()));
    fs::write(&file, spec(root, 512, keys)).with_context(|| file.display().to_string())?;
    let [moat, file] = [moat, &file].map(|path| path.display().to_string());
    Ok(Contender::new([moat, "run".to_owned(), file]))
}

/// The spec of `true` on the directory `root`.
pub(crate) fn spec(root: &str, memory_mib: u32, keys: &str) -> String {
    format!(
        "[workload.bench]\nrootfs = \"{root}\"\ncommand = [\"/bin/true\"]\nhostname = \"bench\"\n\
         {keys}\n[workload.bench.resources]\ncpus = 1\nmemory = \"{memory_mib}MiB\"\npids = 512\n"
    )
}

/// What a user types who has no spec: the current directory becomes a volume, so it is the room.
fn without_spec(moat: &Path, room: &Path) -> Contender {
    let mut contender = Contender::new([&moat.display().to_string(), "run", "--", "/bin/true"]);
    contender.dir = Some(room.to_owned());
    contender
}

fn installed(program: &str, package: &str) -> Result<String, Outcome> {
    let path = std::env::var("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .map(|file| file.display().to_string())
        .ok_or_else(|| Outcome::Skipped(format!("{program} is not installed (package {package})")))
}
