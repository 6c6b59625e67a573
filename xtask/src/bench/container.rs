//! `cargo xtask bench container`: runs `true` to its exit in each contender, in turn, so that what
//! else the machine does hits all alike.

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::peers::{self, FLOOR, Peer, REFERENCE};
use super::report::{Column, Figures, Machine, Outcome, Report, Row, compare, quantile, version};
use super::start::{Contender, Start};
use super::{Format, build};
use crate::order;

/// Run `true` to its exit: fork and exec alone, the kernel's floor, bubblewrap, crun, runc, moat
#[derive(clap::Args)]
pub(super) struct Args {
    /// How often each is started
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// Also start as many with so many under way at any time, and count starts per second
    #[arg(long, value_name = "WIDTH")]
    parallel: Option<u32>,
    /// Measure this moat instead of building one
    #[arg(long, value_name = "FILE")]
    moat: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

const COLUMNS: [Column; 7] = [
    Column("median_ms", 2),
    Column("p10_ms", 2),
    Column("p90_ms", 2),
    Column("to_crun", 2),
    Column("to_floor", 2),
    Column("rss_mib", 1),
    Column("starts_per_s", 0),
];

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(
        nix::unistd::Uid::effective().is_root(),
        "the contenders are set up as root runs them: run it again with sudo"
    );
    let room = build::room()?;
    own_mounts(room.path())?;
    let launch = build::LAUNCH.compile(room.path())?;
    let moat = args.moat.clone().map_or_else(build::moat, Ok);
    let names = moat.as_deref().ok().map(order::still_there).transpose()?;
    let peers = peers::all(room.path(), moat)?;
    let machine = Machine::here()?;
    let mut rows = measure(peers, &launch, args);
    compare(&mut rows, REFERENCE, "median_ms", "to_crun");
    compare(&mut rows, FLOOR, "median_ms", "to_floor");
    let failed = rows.iter().any(|row| matches!(row.outcome, Outcome::Failed(_)));
    let mut versions: Vec<_> = ["crun", "runc", "bwrap"].into_iter().filter_map(version).collect();
    versions.extend(names.map(|(there, listed)| {
        format!("{there} of the {listed} names in {} are moat's", order::LIST)
    }));
    let report = Report {
        benchmark: "container",
        method: format!("`true` to its exit, {} rounds, each contender in turn", args.rounds),
        versions,
        machine,
        rows,
    };
    let shown = COLUMNS.len() - usize::from(args.parallel.is_none());
    report.print(&COLUMNS[..shown], args.format)?;
    Ok(ExitCode::from(u8::from(failed)))
}

/// Arranges the mounts, for this process and all that it starts, as every contender needs them.
fn own_mounts(room: &Path) -> Result<()> {
    const HYBRID: &str = "/sys/fs/cgroup/unified";
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).context("make mounts private")?;
    // crun refuses cgroup v1 as long as it sees v2 beside it, even without controllers.
    if Path::new(HYBRID).is_dir() {
        umount(HYBRID).context(HYBRID)?;
    }
    // All keep their state there, and on machines with systemd it is in memory.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .context("/run")?;
    // crun gives what is its stdin and stdout to the container's user: this machine's /dev/null.
    let null = room.join("null");
    let (kind, mode) = (SFlag::S_IFCHR, Mode::from_bits_truncate(0o666));
    mknod(&null, kind, mode, makedev(1, 3)).context("make a null device")?;
    mount(Some(&null), "/dev/null", none, MsFlags::MS_BIND, none).context("/dev/null")
}

fn measure(peers: Vec<Peer>, launch: &Path, args: &Args) -> Vec<Row> {
    let mut running: Vec<(Peer, Vec<Start>, Option<String>)> =
        peers.into_iter().map(|peer| (peer, Vec::new(), None)).collect();
    // Round 0 warms caches and is not counted.
    for round in 0..=args.rounds {
        for (peer, starts, failure) in &mut running {
            let Ok(contender) = &peer.contender else { continue };
            if failure.is_some() {
                continue;
            }
            match contender.start(launch) {
                Ok(start) if round > 0 => starts.push(start),
                Ok(_) => {}
                Err(error) => *failure = Some(format!("round {round}: {error:#}")),
            }
        }
    }
    let rows = running.into_iter().map(|(peer, starts, failure)| {
        let outcome = match (peer.contender, failure) {
            (Err(outcome), _) => outcome,
            (Ok(_), Some(failure)) => Outcome::Failed(failure),
            (Ok(contender), None) => figures(&contender, &starts, launch, args),
        };
        Row { name: peer.name.to_owned(), outcome, note: peer.note.map(str::to_owned) }
    });
    rows.collect()
}

fn figures(contender: &Contender, starts: &[Start], launch: &Path, args: &Args) -> Outcome {
    let times: Vec<f64> = starts.iter().map(|start| start.ms).collect();
    let memory: Vec<f64> = starts.iter().map(|start| start.rss_mib).collect();
    let mut figures = Figures::from([
        ("median_ms".to_owned(), quantile(&times, 50)),
        ("p10_ms".to_owned(), quantile(&times, 10)),
        ("p90_ms".to_owned(), quantile(&times, 90)),
        ("rss_mib".to_owned(), quantile(&memory, 50)),
    ]);
    if let Some(width) = args.parallel {
        match contender.throughput(launch, args.rounds, width) {
            Ok(rate) => figures.insert("starts_per_s".to_owned(), rate),
            Err(error) => return Outcome::Failed(format!("{width} at a time: {error:#}")),
        };
    }
    Outcome::Figures(figures)
}
