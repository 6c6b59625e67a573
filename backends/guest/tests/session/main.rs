//! The agent's session, whole, on this machine: the agent in a process of its own behind a socket
//! pair instead of vsock, the workload in its namespaces over this machine's root.
//!
//! Needs to be root, to mount. Runs one test after the other without threads, since the agent
//! clones itself.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod further;
mod host;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use moat_core::sandbox::{
    Exit, ExitStatus, Label, Limits, Lower, Process, Rootfs, Sandbox, Seccomp, StartError,
    TerminalSize,
};
use moat_core::spec::{Bytes, Cpus, GuestPath, Resources, Signal, User};
use moat_core::wire::{FromGuest, Further, Session, Start, Stream, ToGuest};

use crate::host::{Ended, Host};

/// The workload's own session.
const OWN: Session = Session::WORKLOAD;

/// Each test ends within this time, or fails.
const LIMIT: Duration = Duration::from_secs(60);

const TESTS: [(&str, fn()); 16] = [
    ("output and exit status", output_and_exit_status),
    ("every kind of end", every_kind_of_end),
    ("a command that is not there", a_command_that_is_not_there),
    ("stdout and stderr apart", stdout_and_stderr_apart),
    ("merged output keeps its order", merged_output_keeps_its_order),
    ("much through stdin and stdout", much_through_stdin_and_stdout),
    ("an unread stream holds up nothing else", an_unread_stream_holds_up_nothing_else),
    ("a grandchild with stdout open", a_grandchild_with_stdout_open),
    ("without a reaper", without_a_reaper),
    ("signals", signals),
    ("terminal and its size", terminal_and_its_size),
    ("end of input on a terminal", end_of_input_on_a_terminal),
    ("a closed stream is SIGPIPE", a_closed_stream_is_sigpipe),
    ("stdin that nobody reads", stdin_that_nobody_reads),
    ("the host hangs up", the_host_hangs_up),
    ("a host that breaks the protocol", a_host_that_breaks_the_protocol),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One after the other in this very thread: the agent clones itself.
    arguments.test_threads = Some(1);
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        println!("skipped: session: mounting needs root");
    }
    let trial = |(name, test): (&str, fn())| {
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(!is_root)
    };
    let tests = TESTS.into_iter().chain(further::TESTS);
    libtest_mimic::run(&arguments, tests.map(trial).collect()).exit_code()
}

fn output_and_exit_status() {
    let ended = run(&["echo", "hello", "wörld"]);
    assert_eq!(ended.exit, Some(code(0)));
    assert_eq!(ended.stdout, "hello wörld\n".as_bytes());
    assert_eq!(ended.stderr, b"");
}

fn every_kind_of_end() {
    for status in [1, 42, 255] {
        assert_eq!(run(&["sh", "-c", &format!("exit {status}")]).exit, Some(code(status)));
    }
    let ended = run(&["sh", "-c", "kill -9 $$"]);
    assert_eq!(ended.exit, Some(Exit { status: ExitStatus::Signal(Signal::KILL), oom: false }));
}

fn a_command_that_is_not_there() {
    let mut host = Host::start(sandbox(&["no-such-command"]), false);
    let FromGuest::Failed(OWN, error) = host.message() else { panic!("it did not fail") };
    assert_eq!(error, StartError::NotFound { program: "no-such-command".to_owned() });
    host.hang_up();
}

fn stdout_and_stderr_apart() {
    let ended = run(&["sh", "-c", "echo out; echo err >&2; echo out2"]);
    assert_eq!(ended.stdout, b"out\nout2\n");
    assert_eq!(ended.stderr, b"err\n");
}

fn merged_output_keeps_its_order() {
    let script = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done";
    let mut host = Host::start(sandbox(&["sh", "-c", script]), true);
    host.started();
    let ended = host.until_exit();
    let expected: String = (1..=9).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), expected);
    assert_eq!(ended.stderr, b"");
}

fn much_through_stdin_and_stdout() {
    let bytes: Vec<u8> = (0..3u32 << 20)
        .flat_map(|i| u64::from(i).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect();
    let mut host = Host::start(sandbox(&["cat"]), false);
    host.started();
    host.feed(OWN, &bytes);
    host.send(&ToGuest::StdinEnd(OWN));
    let ended = host.until_exit();
    assert_eq!(ended.exit, Some(code(0)));
    assert!(ended.stdout == bytes, "{} bytes of {}", ended.stdout.len(), bytes.len());
}

fn an_unread_stream_holds_up_nothing_else() {
    let script = "yes >&2 & sleep 0.3; echo done; kill -TERM $$";
    let mut host = Host::start(sandbox(&["sh", "-c", script]), false);
    host.gives_credit = false;
    host.started();
    while host.own().stdout != b"done\n" {
        let message = host.message();
        assert!(!matches!(message, FromGuest::Exited(_)), "{message:?}");
    }
    host.gives_credit = true;
    host.grant_all(OWN, Stream::Stderr);
    assert!(host.until_exit().exit.is_some());
}

fn a_grandchild_with_stdout_open() {
    let ended = run(&["sh", "-c", "sleep 1000 & echo started"]);
    assert_eq!((ended.exit, ended.stdout), (Some(code(0)), b"started\n".to_vec()));
}

fn without_a_reaper() {
    let mut sandbox = sandbox(&["sh", "-c", "echo $$; exit 7"]);
    sandbox.reaper = false;
    let mut host = Host::start(sandbox, false);
    host.started();
    let ended = host.until_exit();
    assert_eq!((ended.exit, ended.stdout), (Some(code(7)), b"1\n".to_vec()));
}

fn signals() {
    let mut host = Host::start(sandbox(&["sleep", "1000"]), false);
    host.started();
    host.send(&ToGuest::Signal(OWN, Signal::TERM));
    let by_signal = Exit { status: ExitStatus::Signal(Signal::TERM), oom: false };
    assert_eq!(host.until_exit().exit, Some(by_signal));

    let script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    for reaper in [true, false] {
        let mut sandbox = sandbox(&["sh", "-c", script]);
        sandbox.reaper = reaper;
        let mut host = Host::start(sandbox, false);
        host.started();
        host.until_stdout("ready\n");
        host.send(&ToGuest::Signal(OWN, Signal::INT));
        let ended = host.until_exit();
        assert_eq!((ended.exit, ended.stdout), (Some(code(3)), b"ready\ncaught\n".to_vec()));
    }
}

fn terminal_and_its_size() {
    let script = "test -t 0 && test -t 1 && test -t 2 && stty size; read line; stty size";
    let mut host = Host::start(on_terminal(&["sh", "-c", script]), false);
    host.started();
    host.until_stdout("25 80\r\n");
    host.send(&ToGuest::Resize(OWN, TerminalSize { columns: 132, rows: 43 }));
    host.send(&ToGuest::Stdin(OWN, b"go\n".to_vec()));
    let ended = host.until_exit();
    assert_eq!(ended.exit, Some(code(0)));
    let text = String::from_utf8(ended.stdout).unwrap();
    assert!(text.ends_with("43 132\r\n"), "{text:?}");
}

fn end_of_input_on_a_terminal() {
    let mut host = Host::start(on_terminal(&["sh", "-c", "cat; echo end"]), false);
    host.started();
    host.send(&ToGuest::Stdin(OWN, b"x\n".to_vec()));
    host.send(&ToGuest::StdinEnd(OWN));
    let ended = host.until_exit();
    assert_eq!(ended.exit, Some(code(0)));
    assert!(ended.stdout.ends_with(b"end\r\n"), "{:?}", String::from_utf8(ended.stdout));
}

fn a_closed_stream_is_sigpipe() {
    let mut host = Host::start(sandbox(&["yes"]), false);
    host.started();
    host.send(&ToGuest::CloseStream(OWN, Stream::Stdout));
    let pipe = ExitStatus::Signal(Signal::from_number(13).unwrap());
    assert_eq!(host.until_exit().exit, Some(Exit { status: pipe, oom: false }));
}

fn stdin_that_nobody_reads() {
    let mut host = Host::start(sandbox(&["sh", "-c", "exec <&-; sleep 0.2; exit 5"]), false);
    host.started();
    host.send(&ToGuest::Stdin(OWN, vec![b'x'; 64 << 10]));
    host.send(&ToGuest::Stdin(OWN, vec![b'x'; 64 << 10]));
    assert_eq!(host.until_exit().exit, Some(code(5)));
}

fn the_host_hangs_up() {
    let marker = format!("{}", 100_000 + std::process::id());
    let mut host = Host::start(sandbox(&["sleep", &marker]), false);
    host.started();
    // execve(2) closes what tells of it a moment before it sets the new command line.
    until("the workload does not run", || runs(&marker));
    host.hang_up();
    until("the workload outlived its host", || !runs(&marker));
}

fn until(late: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{late}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn a_host_that_breaks_the_protocol() {
    let start = || ToGuest::Start(Box::new(order(sandbox(&["sleep", "1000"]), false)));
    let stdin = ToGuest::Stdin(OWN, vec![b'x']);
    let never_begun = Session(7);
    let further = |session, argv: &[&str]| {
        let process = sandbox(argv).process;
        ToGuest::Exec(session, Box::new(Further { process, merge_output: false }))
    };
    let orders: [&[ToGuest]; 10] = [
        &[stdin],
        &[start(), start()],
        &[ToGuest::StdinEnd(OWN)],
        &[ToGuest::Stats],
        &[further(Session(1), &["true"])],
        // Not while the workload is set up, as these are.
        &[start(), ToGuest::Stats],
        &[start(), ToGuest::Signal(never_begun, Signal::TERM)],
        &[start(), ToGuest::Stdin(never_begun, vec![b'x'])],
        &[start(), further(Session(1), &["true"])],
        &[start(), ToGuest::HangUp(OWN)],
    ];
    for messages in orders {
        let mut host = Host::connect();
        messages.iter().for_each(|message| host.send(message));
        assert_eq!(host.agent.wait(), Ok(ExitStatus::Code(1)));
    }
    let mut host = Host::connect();
    host.socket.write_all(&[0xff; 64]).unwrap();
    assert_eq!(host.agent.wait(), Ok(ExitStatus::Code(1)));
    let too_many: Vec<_> =
        (1..=129).map(|number| further(Session(number), &["sleep", "1000"])).collect();
    let much = vec![0; usize::try_from(Session(1).credit()).unwrap()];
    let orders: [&[ToGuest]; 7] = [
        &[further(OWN, &["true"])],
        &[further(Session(2), &["true"]), further(Session(2), &["true"])],
        &[further(Session(2), &["true"]), further(Session(1), &["true"])],
        &[ToGuest::Signal(never_begun, Signal::TERM)],
        &[ToGuest::HangUp(never_begun)],
        &[
            further(Session(1), &["sleep", "1000"]),
            ToGuest::Stdin(Session(1), much.clone()),
            ToGuest::Stdin(Session(1), much),
        ],
        &too_many,
    ];
    for messages in orders {
        let mut host = Host::running();
        messages.iter().for_each(|message| host.send(message));
        assert_eq!(host.agent.wait(), Ok(ExitStatus::Code(1)));
    }
}

/// Whether a process of this machine has this word in its command line.
fn runs(word: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    })
}

fn code(code: u8) -> Exit {
    Exit { status: ExitStatus::Code(code), oom: false }
}

fn sandbox(argv: &[&str]) -> Sandbox {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let env = [path, "LC_ALL=C"].map(|pair| pair.split_once('=').unwrap());
    Sandbox {
        hostname: "guest".parse().unwrap(),
        root: Rootfs {
            lowers: vec![Lower { at: GuestPath::root(), source: "/".into() }],
            hidden: Vec::new(),
            upper: Bytes::mib(64),
            read_only: false,
        },
        mounts: Vec::new(),
        reaper: true,
        limits: Limits::from(&Resources {
            cpus: Cpus::from_milli(1000),
            memory: Bytes::mib(64),
            pids: 64,
        }),
        shm_size: Bytes::mib(64),
        process: Process {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: env.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            working_dir: GuestPath::root(),
            user: User::ROOT,
            terminal: None,
            capabilities: Vec::new(),
            no_new_privileges: true,
            ambient: Vec::new(),
            rlimits: Vec::new(),
            seccomp: Seccomp::Default,
            landlock: None,
            label: Label::None,
        },
    }
}

fn on_terminal(argv: &[&str]) -> Sandbox {
    let mut sandbox = sandbox(argv);
    sandbox.process.terminal = Some(TerminalSize { columns: 80, rows: 25 });
    sandbox
}

fn order(sandbox: Sandbox, merge_output: bool) -> Start {
    Start { sandbox, merge_output, clock_nanos: 0, entropy: [0; 32] }
}

fn run(argv: &[&str]) -> Ended {
    let mut host = Host::start(sandbox(argv), false);
    host.started();
    host.until_exit()
}
