//! `moat run`, where all is well.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use moat_tests::moat::Moat;
use moat_tests::remains::Watched;
use moat_tests::workspace::Workspace;
use nix::sys::signal::Signal;

const CONTAINER: Option<&str> = Some("container");

#[test]
fn a_spec_says_how_it_is_isolated_and_why() -> Result<()> {
    let space = Workspace::new(None)?;
    space.spec("command = [\"echo\", \"hello\"]")?;
    let seen = space.verb(&["run"])?.run()?;
    seen.status(0)?.stdout("hello\n")?;
    ensure!(
        seen.err() == "isolation: container (rule trusted-prefers-container)\n",
        "{}",
        seen.shown()
    );
    let quiet = space.verb(&["run", "moat.toml", "--quiet"])?.run()?;
    quiet.status(0)?.stdout("hello\n")?;
    ensure!(quiet.stderr.is_empty(), "{}", quiet.shown());
    Ok(())
}

#[test]
fn a_command_without_a_spec_has_this_directory() -> Result<()> {
    let here = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    fs::write(here.path().join("given"), "given\n")?;
    let args = ["run", "--isolation", "container", "--", "sh", "-c"];
    let script = "cat given; echo made > made; echo no > /etc/moat-case-probe; pwd";
    let seen = Moat::new(args.into_iter().chain([script]))?.dir(here.path()).run()?;
    seen.status(0)?.stdout_has("given\n")?;
    ensure!(fs::read_to_string(here.path().join("made"))? == "made\n", "it was not made here");
    ensure!(!fs::exists("/etc/moat-case-probe")?, "the host's root was written to");
    Ok(())
}

#[test]
fn a_home_is_not_mounted_unasked() -> Result<()> {
    let space = Workspace::new(None)?;
    space.write("home/project/file", "")?;
    let home = space.path().join("home");
    let above = [space.path(), &home];
    for dir in above {
        let moat = space.verb(&["run", "--", "ls"])?.dir(dir).env("HOME", &home);
        moat.run()?.refused(2, "usage")?.stderr_has("home")?;
    }
    for dir in ["/", "/etc", "/usr/bin"] {
        let moat = space.verb(&["run", "--", "ls"])?.dir(Path::new(dir)).env("HOME", &home);
        moat.run()?.refused(2, "usage")?.stderr_has(dir)?;
    }
    let below = space.verb(&["run", "--", "ls"])?.dir(&home.join("project")).env("HOME", &home);
    below.run()?.status(0)?.stdout("file\n")?;
    Ok(())
}

#[test]
fn what_a_spec_shows_of_what_is_hidden_is_said() -> Result<()> {
    let space = Workspace::new(None)?;
    let spec = |volume: &str| {
        format!(
            "[workload.case]\nrootfs = \"root\"\ncommand = [\"true\"]\nvolumes = [\"{volume}\"]\n"
        )
    };
    space.whole_spec(spec("/etc:/host:ro"))?;
    let warning = "warning: volume /etc shows the workload /etc/shadow";
    space.verb(&["run", "moat.toml"])?.run()?.status(0)?.stderr_has(warning)?;
    let told = space.verb(&["explain", "moat.toml"])?.run()?;
    told.stdout_has("warning:   volume /etc shows")?;
    space.whole_spec(spec("./root:/host:ro"))?;
    space.verb(&["run", "moat.toml"])?.run()?.status(0)?.stderr_lacks("warning")?;
    Ok(())
}

#[test]
fn without_a_home_there_is_the_one_on_record() -> Result<()> {
    let space = Workspace::new(None)?;
    space.spec("")?;
    let args = ["-u", "HOME", "-u", "XDG_DATA_HOME", "--"];
    let moat = space.through(&[&["env"], &args[..4]].concat(), &["run", "moat.toml"])?;
    moat.run()?.status(0)?.stderr_lacks("HOME")?;
    Ok(())
}

#[test]
fn what_nohup_ignores_stays_ignored() -> Result<()> {
    let space = Workspace::new(Some("container"))?;
    space.spec("")?;
    let args = space.run_args(&["sh", "-c", "echo ready; sleep 1; echo done"]);
    let mut live = space.through(&["nohup"], &args)?.start()?;
    live.wait_for("ready\n")?;
    live.signal(Signal::SIGHUP)?;
    live.finish()?.status(0)?.stdout("ready\ndone\n")?;
    Ok(())
}

#[test]
fn the_processors_are_those_that_moat_has() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let show = ["sed", "-n", "s/^Cpus_allowed_list:[[:space:]]*//p", "/proc/self/status"];
    let list = String::from_utf8(Command::new(show[0]).args(&show[1..]).output()?.stdout)?;
    let first: String = list.chars().take_while(char::is_ascii_digit).collect();
    // All; one alone; and all of them again, as somebody's wish.
    for (starter, expected) in [
        (vec![], list.clone()),
        (vec!["taskset", "--cpu-list", &first], format!("{first}\n")),
        (vec!["taskset", "--cpu-list", list.trim()], list.clone()),
    ] {
        space.through(&starter, &space.run_args(&show))?.run()?.status(0)?.stdout(&expected)?;
    }
    Ok(())
}

#[test]
fn nothing_is_left_of_a_run() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    let watched = Watched::new(&space)?;
    space.spec(&watched.spec_line())?;
    let mut live =
        watched.watch(space.moat(&["sh", "-c", "echo ready; read x"])?.stdin_open()).start()?;
    live.wait_for("ready\n")?;
    let instances = watched.instances();
    ensure!(instances.len() == 1, "it has no state while it runs: {instances:?}");
    ensure!(watched.processes().len() >= 2, "its processes are not known by their mark");
    live.write(b"\n")?;
    live.finish()?.status(0)?;
    watched.nothing(&space, &instances)?;
    // Of a run that could not start as little.
    let seen = watched.watch(space.moat(&["nosuch"])?).run()?;
    seen.refused(127, "not-found")?;
    watched.nothing(&space, &[])
}

#[test]
fn one_of_several_workloads_must_be_named() -> Result<()> {
    let space = Workspace::new(None)?;
    space.whole_spec(
        "[workload.one]\nrootfs = \"root\"\ncommand = [\"echo\", \"1\"]\n\
         [workload.two]\nrootfs = \"root\"\ncommand = [\"echo\", \"2\"]\n",
    )?;
    let seen = space.verb(&["run", "moat.toml"])?.run()?;
    seen.status(3)?.stdout("")?.stderr_has("error[spec]: ")?.stderr_has("one, two")?;
    space.verb(&["run", "moat.toml", "two"])?.run()?.status(0)?.stdout("2\n")?;
    let seen = space.verb(&["run", "moat.toml", "three"])?.run()?;
    seen.status(3)?.stdout("")?.stderr_has("\"three\"")?.stderr_has("one, two")?;
    Ok(())
}

#[test]
fn a_command_stands_in_for_the_specs_own() -> Result<()> {
    let space = Workspace::new(None)?;
    space.whole_spec("[workload.case]\nrootfs = \"root\"\ncommand = [\"false\"]\n")?;
    let args = ["run", "moat.toml", "--", "echo", "instead"];
    space.verb(&args)?.run()?.status(0)?.stdout("instead\n")?;
    Ok(())
}

#[test]
fn results_go_to_a_reader_that_leaves() -> Result<()> {
    use std::process::Stdio;
    let mut command = Moat::new(["schema"])?.into_command();
    let (read, write) = std::io::pipe()?;
    drop(read);
    command.stdout(write).stderr(Stdio::piped()).stdin(Stdio::null());
    let output = command.spawn()?.wait_with_output()?;
    ensure!(output.status.code() == Some(0), "{output:?}");
    ensure!(output.stderr.is_empty(), "{output:?}");
    Ok(())
}

#[test]
fn a_result_that_can_not_be_written_is_an_error() -> Result<()> {
    use std::process::Stdio;
    let mut command = Moat::new(["schema"])?.into_command();
    command.stdout(fs::File::create("/dev/full")?).stderr(Stdio::piped()).stdin(Stdio::null());
    let output = command.spawn()?.wait_with_output()?;
    ensure!(output.status.code() == Some(125), "{output:?}");
    let err = String::from_utf8_lossy(&output.stderr);
    ensure!(err.starts_with("error[state]: stdout can't be written"), "{err}");
    Ok(())
}

#[test]
fn a_closed_stdout_harms_nobody() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.write("data/kept", "kept\n")?;
    space.spec("volumes = [\"./data:/data\"]")?;
    // The next file that is opened has the number of the one that is closed.
    let closed = ["sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"];
    let args = space.run_args(&["sh", "-c", "echo lost; echo lost >&2; cat /data/kept; exit 3"]);
    let seen = space.through(&closed, &args)?.run()?;
    ensure!(seen.stdout.is_empty() && seen.stderr.is_empty(), "{}", seen.shown());
    ensure!(space.read("data/kept")? == "kept\n", "something was written to another's file");
    Ok(())
}
