//! The limits of the container table: held, or refused with the reason.

use std::path::{Path, PathBuf};

use moat_core::cgroup::{Controller, Version};
use moat_core::spec::{Bytes, IoMax, Propagation, Volume, VolumeSource};

use super::Named;
use crate::disk::Disk;
use crate::run::{Case, Outcome};

/// Nobody's on any machine.
const UID: u32 = 54_321;

pub(super) const CASES: &[Named] = &[
    ("a set of processors is kept to", cpuset),
    ("a processor that is not there is refused", missing_processor),
    ("swap has its limit", swap),
    ("there is no swap unless it is asked for", no_swap),
    ("a disk is written no faster than it may be", io_max),
    ("a disk is used no more often than it may be", iops),
    ("a path that is no disk is refused", no_disk),
    ("a disk named twice is refused", disk_twice),
    ("a weight is held where a disk shares by weight, and else refused", io_weight),
    ("a plain user's limit that can't be held is refused", plain_user),
    ("a plain user to whom a group is delegated has it all", delegated),
    ("a start without such limits makes no further group", only_what_is_needed),
];

fn line<'o>(outcome: &'o Outcome, key: &str) -> &'o str {
    let mut lines = outcome.err.lines();
    let found = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no {key} in {outcome:?}"))
}

/// Whether a controller is in the tree of cgroup v2: they may be split.
fn on_v2(controller: Controller) -> bool {
    moat_host::cgroup::everywhere().0[&controller].version == Version::V2
}

fn cpuset() {
    let script = "grep Cpus_allowed_list /proc/self/status; nproc";
    for set in ["0", "1"] {
        let case = Case::shell(script);
        let case = case.with(|workload| workload.container.cpuset = Some(set.parse().unwrap()));
        if set == "1" && std::thread::available_parallelism().unwrap().get() == 1 {
            println!("skipped: this machine has one processor");
            return;
        }
        case.run().says(&format!("Cpus_allowed_list:\t{set}\n1"));
    }
}

fn missing_processor() {
    let case = Case::shell("true");
    let case = case.with(|workload| workload.container.cpuset = Some("0,4000".parse().unwrap()));
    case.run().ends_with(5).complains("no processor 4000").complains("hint: choose among 0");
}

fn swap() {
    let case = Case::shell("sleep 0.4")
        .var("MOAT_TEST_ORDERS", "show memory.swap.max; show memory.memsw.limit_in_bytes");
    let case = case.with(|workload| {
        workload.resources.memory = Bytes::mib(64);
        workload.container.swap = Bytes::mib(32);
    });
    let outcome = case.run();
    outcome.ends_with(0);
    if on_v2(Controller::Memory) {
        assert_eq!(line(&outcome, "memory.swap.max"), "33554432");
    } else {
        assert_eq!(line(&outcome, "memory.memsw.limit_in_bytes"), "100663296");
    }
}

fn no_swap() {
    let case = Case::shell("sleep 0.4")
        .var("MOAT_TEST_ORDERS", "show memory.swap.max; show memory.memsw.limit_in_bytes");
    let outcome = case.with(|workload| workload.resources.memory = Bytes::mib(64)).run();
    if on_v2(Controller::Memory) {
        assert_eq!(line(&outcome, "memory.swap.max"), "0");
    } else {
        assert_eq!(line(&outcome, "memory.memsw.limit_in_bytes"), "67108864");
    }
}

/// A case with a disk of its own at /disk, limited.
fn with_disk(script: &str, max: IoMax) -> Option<(Case, Disk)> {
    let case = Case::shell(script);
    let disk = Disk::make(case.dir.path())?;
    let case = case.with(|workload| {
        let source = VolumeSource::Bind(disk.files.clone());
        let (target, propagation) = ("/disk".parse().unwrap(), Propagation::Private);
        workload.volumes.push(Volume { source, target, read_only: false, propagation });
        workload.container.io_max.insert(disk.device.clone(), max);
    });
    Some((case, disk))
}

/// Seconds that dd says it took.
fn seconds(outcome: &Outcome) -> f64 {
    let (_, rest) = outcome.out.split_once("copied, ").unwrap_or_else(|| panic!("{outcome:?}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

const DIRECT: &str = "dd if=/dev/zero of=/disk/file bs=1M count=4 oflag=direct 2>&1";

fn io_max() {
    let max = IoMax { write_bps: Some(Bytes::mib(2)), ..IoMax::default() };
    let Some((case, disk)) = with_disk(DIRECT, max) else { return };
    let file = disk.files.join("file");
    let orders = format!(
        "show io.max; show blkio.throttle.write_bps_device; grow {}; stats",
        file.display()
    );
    let outcome = case.var("MOAT_TEST_ORDERS", &orders).run();
    outcome.ends_with(0);
    let number = disk.number();
    if on_v2(Controller::Io) {
        let expected = format!("{number} rbps=max wbps=2097152 riops=max wiops=max");
        assert_eq!(line(&outcome, "io.max"), expected);
    } else {
        let expected = format!("{number} 2097152");
        assert_eq!(line(&outcome, "blkio.throttle.write_bps_device"), expected);
    }
    assert!(seconds(&outcome) > 1.0, "4 MiB at 2 MiB in a second: {outcome:?}");
    let figures = super::pause::figures(&outcome);
    let written = figures[0].io.unwrap().written;
    assert!((Bytes::mib(1)..Bytes::mib(8)).contains(&written), "{written} of 4 MiB were written");
    // The same without a limit is what shows that it was the limit.
    let Some((case, _disk)) = with_disk(DIRECT, IoMax::default()) else { return };
    let outcome = case.with(|workload| workload.container.io_max.clear()).run();
    assert!(seconds(&outcome) < 1.0, "without a limit: {outcome:?}");
}

fn iops() {
    let script = "dd if=/dev/zero of=/disk/file bs=4k count=30 oflag=direct 2>&1";
    let max = IoMax { write_iops: Some(20), read_bps: Some(Bytes::mib(1)), ..IoMax::default() };
    let Some((case, _disk)) = with_disk(script, max) else { return };
    let outcome = case.run();
    outcome.ends_with(0);
    assert!(seconds(&outcome) > 0.7, "30 writes at 20 in a second: {outcome:?}");
}

fn no_disk() {
    for (path, why) in [("/dev/null", "is no block device"), ("/dev/nothing", "can't be looked at")]
    {
        let max = IoMax { read_iops: Some(1), ..IoMax::default() };
        let case = Case::shell("true")
            .with(|workload| workload.container.io_max = [(PathBuf::from(path), max)].into());
        let outcome = case.run();
        outcome.ends_with(5).complains("container.io_max").complains(why).complains("hint: ");
    }
}

fn disk_twice() {
    let max = IoMax { read_iops: Some(1), ..IoMax::default() };
    let Some((case, disk)) = with_disk("true", max) else { return };
    let other = case.dir.path().join("other-name");
    std::os::unix::fs::symlink(&disk.device, &other).unwrap();
    let case = case.with(|workload| workload.container.io_max.extend([(other, max)]));
    case.run().ends_with(5).complains("twice");
}

fn io_weight() {
    let any = moat_host::block::by_scheduler().0;
    let case = || {
        Case::shell("sleep 0.4")
            .var("MOAT_TEST_ORDERS", "show io.bfq.weight; show blkio.bfq.weight")
            .with(|workload| workload.container.io_weight = Some(1200))
    };
    if any.is_empty() {
        case().run().ends_with(5).complains("container.io_weight").complains("bfq");
    }
    let case = case();
    let Some(disk) = Disk::make(case.dir.path()) else { return };
    if !disk.schedule("bfq") {
        println!("skipped: this kernel has no bfq");
        return;
    }
    let outcome = case.run();
    outcome.ends_with(0);
    let file = if on_v2(Controller::Io) { "io.bfq.weight" } else { "blkio.bfq.weight" };
    assert!(["default 200", "200"].contains(&line(&outcome, file)), "{outcome:?}");
}

fn plain_user() {
    let case = Case::shell("true").user(UID);
    let case = case.with(|workload| workload.container.cpuset = Some("0".parse().unwrap()));
    case.run().ends_with(5).complains("`container.cpuset` can't be held on this host");
}

fn delegated() {
    let Some(group) = Delegated::make() else { return };
    let orders = "show memory.max; show cpuset.cpus; stats; pause; resume; destroy";
    let case = Case::shell("sleep 600").user(UID).var("MOAT_TEST_ORDERS", orders);
    let case = case.with(|workload| {
        workload.resources.memory = Bytes::mib(48);
        workload.container.cpuset = Some("0".parse().unwrap());
    });
    let outcome = group.run(&case);
    outcome.ends_with(0);
    assert_eq!(line(&outcome, "memory.max"), "50331648");
    assert_eq!(line(&outcome, "cpuset.cpus"), "0");
    assert_eq!(super::pause::figures(&outcome)[0].memory_limit, Bytes::mib(48));
}

/// A group of cgroup v2 that belongs to a plain user, who is in a group below it.
struct Delegated(PathBuf);

impl Delegated {
    fn make() -> Option<Self> {
        let root = PathBuf::from("/sys/fs/cgroup");
        if !on_v2(Controller::Memory) || !root.join("cgroup.controllers").exists() {
            println!("skipped: only groups of cgroup v2 are delegated");
            return None;
        }
        let enable = |dir: &Path| {
            for name in ["memory", "cpu", "pids", "cpuset", "io"] {
                std::fs::write(dir.join("cgroup.subtree_control"), format!("+{name}")).unwrap();
            }
        };
        enable(&root);
        let all = Self(root.join(format!("moat-test-{}", std::process::id())));
        let session = all.0.join("session");
        std::fs::create_dir_all(&session).unwrap();
        enable(&all.0);
        for dir in [&all.0, &session] {
            for name in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                std::os::unix::fs::chown(dir.join(name), Some(UID), Some(UID)).unwrap();
            }
        }
        Some(all)
    }

    /// Runs a case's monitor in it.
    fn run(&self, case: &Case) -> Outcome {
        let plain = case.command();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        command.arg(self.0.join("session/cgroup.procs"));
        command.arg(plain.get_program()).args(plain.get_args());
        command.envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let output = command.output().unwrap();
        Outcome {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        // What the container left would keep these from going.
        for name in ["moat", "session", ""] {
            let dir = self.0.join(name);
            if dir.exists() {
                std::fs::remove_dir(&dir).unwrap();
            }
        }
    }
}

fn only_what_is_needed() {
    let case = Case::shell("sleep 0.4");
    let case =
        case.var("MOAT_TEST_ORDERS", "show cpuset.mems; show blkio.bfq.weight; show freezer.state");
    let outcome = case.run();
    outcome.ends_with(0);
    // The group of v2 may have files that an earlier one has asked for.
    let v1 = [
        ("cpuset.mems", !on_v2(Controller::Cpuset)),
        ("blkio.bfq.weight", !on_v2(Controller::Io)),
        ("freezer.state", true),
    ];
    for (file, _) in v1.into_iter().filter(|(_, is_v1)| *is_v1) {
        assert_eq!(line(&outcome, file), "not there");
    }
}
