//! Runs one command in a micro-VM by the backend's own traits: moat without its command line.
//!
//! ```text
//! workload GUEST-BINARY DATA-DIR INSTANCE-DIR [--kernel NAME] [--memory MIB] [--volume DIR]
//!          [--read-only-volume DIR] [--vcpus N] [--kill-vmm] -- COMMAND..
//! ```
//! `--kill-vmm` kills the VMM a second after the start, to see a lost guest reported.
#![allow(clippy::print_stderr)]

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use moat_core::policy::{Facts, builtin, decide};
use moat_core::spec::{
    Bytes, GuestPath, Level, Propagation, Resolved, Signal, Volume, VolumeSource,
};
use moat_core::workload::{Backend, Workload};
use moat_microvm::backend::Microvm;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("workload: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  caused by: {error}");
                cause = error.source();
            }
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<u8, Failure> {
    let mut args = std::env::args().skip(1);
    let mut next = |what: &str| args.next().ok_or(format!("no {what} given"));
    let (guest, data, dir) = (next("guest")?, next("data")?, PathBuf::from(next("directory")?));
    let mut options = Vec::new();
    loop {
        match next("--")?.as_str() {
            "--" => break,
            "--kill-vmm" => options.push(("--kill-vmm".to_owned(), String::new())),
            option => options.push((option.to_owned(), next("value")?)),
        }
    }
    let argv = args.collect();
    let mut workload = Resolved::for_command(argv, "/mnt".into(), Some(Level::Vm))
        .map_err(|problems| format!("{problems:?}"))?;
    workload.volumes.clear();
    workload.working_dir = GuestPath::root();
    let mut kill = false;
    for (option, value) in options {
        match option.as_str() {
            "--kernel" => workload.vm.kernel = Some(value),
            "--memory" => workload.resources.memory = Bytes::mib(value.parse()?),
            "--vcpus" => workload.vm.vcpus = value.parse()?,
            "--kill-vmm" => kill = true,
            option => workload.volumes.push(Volume {
                source: VolumeSource::Bind(value.into()),
                target: format!("/volume{}", workload.volumes.len()).parse()?,
                read_only: option == "--read-only-volume",
                propagation: Propagation::Private,
            }),
        }
    }
    let policy = builtin("dev").ok_or("no policy")?;
    let facts = Facts {
        container: Vec::new(),
        vm: Vec::new(),
        memory: Bytes::mib(4096),
        committed_memory: Bytes::new(0),
    };
    let approved = decide(&policy, &workload, &facts).map_err(|refusal| format!("{refusal:?}"))?;
    let backend = Microvm::new(fs::read(guest)?.leak(), data.as_ref());
    let begin = Instant::now();
    let plan = backend.plan(&approved, None)?;
    fs::create_dir_all(&dir)?;
    let mut instance = plan.create(&dir)?;
    eprintln!("created after {} ms", begin.elapsed().as_millis());
    let ended = lives(instance.as_mut(), begin, kill);
    instance.destroy()?;
    if fs::read_dir(&dir)?.next().is_some() {
        return Err("something was left in the instance's directory".into());
    }
    ended
}

fn lives(instance: &mut dyn Workload, begin: Instant, kill: bool) -> Result<u8, Failure> {
    let pid = instance.start()?;
    eprintln!("started after {} ms", begin.elapsed().as_millis());
    if kill {
        instance.wait(None, Some(Duration::from_secs(1)))?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
        let pidfd = moat_init::sys::clone::open_pid(pid)?;
        moat_init::sys::clone::signal_pidfd(std::os::fd::AsFd::as_fd(&pidfd), Signal::KILL)?;
    }
    let exit = loop {
        if let Some(exit) = instance.wait(None, Some(Duration::from_secs(600)))? {
            break exit;
        }
    };
    eprintln!("ended after {} ms: {exit:?}", begin.elapsed().as_millis());
    Ok(exit.shell_status())
}
