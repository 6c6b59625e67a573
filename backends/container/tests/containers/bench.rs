//! `MOAT_TEST_BENCH=N`: N times /bin/true to its exit in a root of one static program, in one
//! process; medians on stdout.

use std::path::PathBuf;
use std::time::Instant;

use moat_container::Container;
use moat_core::spec::Root;
use moat_core::workload::Backend;

use crate::monitor::approved;
use crate::run::Case;

pub(crate) fn asked() -> Option<usize> {
    std::env::var("MOAT_TEST_BENCH").ok()?.parse().ok()
}

pub(crate) fn run(rounds: usize) {
    let mut case = Case::busybox("true");
    if std::env::var_os("MOAT_TEST_BENCH_HOST").is_some() {
        case.workload.root = Root::Host;
    }
    case.workload.argv = vec!["/bin/true".to_owned()];
    let names = ["plan", "create", "start", "wait", "destroy", "all"];
    let mut samples: Vec<Vec<u128>> = vec![Vec::new(); names.len()];
    for round in 0..rounds {
        let dir: PathBuf = case.dir.path().join(format!("bench-{}-{round}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let approved = approved(&case.workload);
        let mut times = vec![Instant::now()];
        let mut lap = || times.push(Instant::now());
        let plan = Container::new().plan(&approved, None).unwrap();
        lap();
        let mut created = plan.create(&dir).unwrap();
        lap();
        created.start().unwrap();
        lap();
        let exit = created.wait(None, None).unwrap().unwrap();
        lap();
        created.destroy().unwrap();
        lap();
        assert_eq!(exit.shell_status(), 0);
        for (index, pair) in times.windows(2).enumerate() {
            samples[index].push((pair[1] - pair[0]).as_micros());
        }
        samples[5].push((*times.last().unwrap() - times[0]).as_micros());
    }
    for (name, mut samples) in names.into_iter().zip(samples) {
        samples.sort_unstable();
        println!("{name:8} {:6} us", samples[samples.len() / 2]);
    }
}
