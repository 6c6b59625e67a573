//! The agent's session, whole, on this machine: the agent in a process of its own behind a socket
//! pair instead of vsock, the workload in its namespaces over this machine's root.
//!
//! Needs to be root, to mount. Runs one test after the other without threads, since the agent
//! clones itself.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use moat_core::sandbox::{
    Exit, ExitStatus, Label, Limits, Lower, Process, Rootfs, Sandbox, Seccomp, StartError,
    TerminalSize,
};
use moat_core::spec::{Bytes, Cpus, GuestPath, Resources, Signal, User};
use moat_core::wire::{Decoder, FromGuest, Message, Start, Stream, ToGuest, VERSION, Window};
use moat_guest::{Surroundings, serve};
use moat_init::sys::clone::{Child, Namespaces, Options, spawn};

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
    libtest_mimic::run(&arguments, TESTS.map(trial).into()).exit_code()
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
    let FromGuest::Failed(error) = host.message() else { panic!("it did not fail") };
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
    host.feed(&bytes);
    host.send(&ToGuest::StdinEnd);
    let ended = host.until_exit();
    assert_eq!(ended.exit, Some(code(0)));
    assert!(ended.stdout == bytes, "{} bytes of {}", ended.stdout.len(), bytes.len());
}

fn an_unread_stream_holds_up_nothing_else() {
    let script = "yes >&2 & sleep 0.3; echo done; kill -TERM $$";
    let mut host = Host::start(sandbox(&["sh", "-c", script]), false);
    host.gives_credit = false;
    host.started();
    while host.ended.stdout != b"done\n" {
        let message = host.message();
        assert!(!matches!(message, FromGuest::Exited(_)), "{message:?}");
    }
    host.gives_credit = true;
    host.grant_all(Stream::Stderr);
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
    host.send(&ToGuest::Signal(Signal::TERM));
    let by_signal = Exit { status: ExitStatus::Signal(Signal::TERM), oom: false };
    assert_eq!(host.until_exit().exit, Some(by_signal));

    let script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    for reaper in [true, false] {
        let mut sandbox = sandbox(&["sh", "-c", script]);
        sandbox.reaper = reaper;
        let mut host = Host::start(sandbox, false);
        host.started();
        host.until_stdout("ready\n");
        host.send(&ToGuest::Signal(Signal::INT));
        let ended = host.until_exit();
        assert_eq!((ended.exit, ended.stdout), (Some(code(3)), b"ready\ncaught\n".to_vec()));
    }
}

fn terminal_and_its_size() {
    let script = "test -t 0 && test -t 1 && test -t 2 && stty size; read line; stty size";
    let mut host = Host::start(on_terminal(&["sh", "-c", script]), false);
    host.started();
    host.until_stdout("25 80\r\n");
    host.send(&ToGuest::Resize(TerminalSize { columns: 132, rows: 43 }));
    host.send(&ToGuest::Stdin(b"go\n".to_vec()));
    let ended = host.until_exit();
    assert_eq!(ended.exit, Some(code(0)));
    let text = String::from_utf8(ended.stdout).unwrap();
    assert!(text.ends_with("43 132\r\n"), "{text:?}");
}

fn end_of_input_on_a_terminal() {
    let mut host = Host::start(on_terminal(&["sh", "-c", "cat; echo end"]), false);
    host.started();
    host.send(&ToGuest::Stdin(b"x\n".to_vec()));
    host.send(&ToGuest::StdinEnd);
    let ended = host.until_exit();
    assert_eq!(ended.exit, Some(code(0)));
    assert!(ended.stdout.ends_with(b"end\r\n"), "{:?}", String::from_utf8(ended.stdout));
}

fn a_closed_stream_is_sigpipe() {
    let mut host = Host::start(sandbox(&["yes"]), false);
    host.started();
    host.send(&ToGuest::CloseStream(Stream::Stdout));
    let pipe = ExitStatus::Signal(Signal::from_number(13).unwrap());
    assert_eq!(host.until_exit().exit, Some(Exit { status: pipe, oom: false }));
}

fn stdin_that_nobody_reads() {
    let mut host = Host::start(sandbox(&["sh", "-c", "exec <&-; sleep 0.2; exit 5"]), false);
    host.started();
    host.send(&ToGuest::Stdin(vec![b'x'; 64 << 10]));
    host.send(&ToGuest::Stdin(vec![b'x'; 64 << 10]));
    assert_eq!(host.until_exit().exit, Some(code(5)));
}

fn the_host_hangs_up() {
    let marker = format!("{}", 100_000 + std::process::id());
    let mut host = Host::start(sandbox(&["sleep", &marker]), false);
    host.started();
    assert!(runs(&marker));
    host.hang_up();
    let deadline = Instant::now() + LIMIT;
    while runs(&marker) {
        assert!(Instant::now() < deadline, "the workload outlived its host");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn a_host_that_breaks_the_protocol() {
    let start = || ToGuest::Start(Box::new(order(sandbox(&["sleep", "1000"]), false)));
    let stdin = ToGuest::Stdin(vec![b'x']);
    let orders: [&[ToGuest]; 3] = [&[stdin], &[start(), start()], &[ToGuest::StdinEnd]];
    for messages in orders {
        let mut host = Host::connect();
        messages.iter().for_each(|message| host.send(message));
        assert_eq!(host.agent.wait(), Ok(ExitStatus::Code(1)));
    }
    let mut host = Host::connect();
    host.socket.write_all(&[0xff; 64]).unwrap();
    assert_eq!(host.agent.wait(), Ok(ExitStatus::Code(1)));
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

/// All that came out of a workload.
#[derive(Debug, Default)]
struct Ended {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit: Option<Exit>,
}

/// The host's side, in the plainest way that keeps the rules.
struct Host {
    socket: UnixStream,
    agent: Child,
    staging: tempfile::TempDir,
    decoder: Decoder,
    windows: [Window; 2],
    unread: [usize; 2],
    gives_credit: bool,
    stdin_credit: usize,
    ended: Ended,
}

impl Host {
    /// An agent that has said that it is ready.
    fn connect() -> Self {
        let (socket, inside) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let staging = tempfile::tempdir().unwrap();
        let surroundings =
            Surroundings { staging: staging.path().into(), cgroups: None, own_machine: false };
        let options = Options { namespaces: Namespaces::NONE, cgroup: None };
        let closing = socket.try_clone().unwrap();
        let agent = spawn(options, || {
            drop(closing);
            nix::unistd::close(std::os::fd::AsRawFd::as_raw_fd(&socket)).unwrap();
            u8::from(serve(inside.into(), &surroundings).is_err())
        })
        .unwrap();
        let mut host = Self {
            socket,
            agent,
            staging,
            decoder: Decoder::new(),
            windows: [Window::new(), Window::new()],
            unread: [0, 0],
            gives_credit: true,
            stdin_credit: 256 << 10,
            ended: Ended::default(),
        };
        let FromGuest::Ready { version, kernel } = host.message() else { panic!("not ready") };
        assert_eq!(version, VERSION);
        assert!(!kernel.is_empty());
        host
    }

    fn start(sandbox: Sandbox, merge_output: bool) -> Self {
        let mut host = Self::connect();
        host.send(&ToGuest::Start(Box::new(order(sandbox, merge_output))));
        host
    }

    fn send(&mut self, message: &ToGuest) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        self.socket.write_all(&bytes).unwrap();
    }

    /// The next message; stream data is kept, and paid for with credit.
    fn message(&mut self) -> FromGuest {
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                self.keep(&message);
                return message;
            }
            let mut buffer = [0; 64 << 10];
            match self.socket.read(&mut buffer) {
                Ok(0) => panic!("the agent hung up, {:?}", self.ended.stderr),
                Ok(count) => self.decoder.feed(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no message: {error}"),
            }
        }
    }

    fn keep(&mut self, message: &FromGuest) {
        let (stream, bytes) = match message {
            FromGuest::Stdout(bytes) => (Stream::Stdout, bytes),
            FromGuest::Stderr(bytes) => (Stream::Stderr, bytes),
            FromGuest::Credit(bytes) => {
                self.stdin_credit += usize::try_from(*bytes).unwrap();
                return;
            }
            _ => return,
        };
        let index = usize::from(stream == Stream::Stderr);
        self.windows[index].receive(bytes.len()).unwrap();
        self.unread[index] += bytes.len();
        let kept = if index == 0 { &mut self.ended.stdout } else { &mut self.ended.stderr };
        kept.extend(bytes);
        if self.gives_credit {
            self.grant_all(stream);
        }
    }

    fn grant_all(&mut self, stream: Stream) {
        let index = usize::from(stream == Stream::Stderr);
        let unread = std::mem::take(&mut self.unread[index]);
        if let Some(credit) = self.windows[index].consume(unread) {
            // The agent may be gone already when its last output is taken.
            let mut bytes = Vec::new();
            ToGuest::Credit(stream, credit).encode(&mut bytes).unwrap();
            let _ = self.socket.write_all(&bytes);
        }
    }

    fn started(&mut self) {
        let message = self.message();
        assert_eq!(message, FromGuest::Started);
    }

    /// Sends stdin as the agent's credit allows, and takes what comes meanwhile.
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            while self.stdin_credit == 0 {
                self.message();
            }
            let (piece, rest) = bytes.split_at(bytes.len().min(self.stdin_credit).min(64 << 10));
            self.stdin_credit -= piece.len();
            self.send(&ToGuest::Stdin(piece.to_vec()));
            bytes = rest;
        }
    }

    fn until_stdout(&mut self, end: &str) {
        while !self.ended.stdout.ends_with(end.as_bytes()) {
            let message = self.message();
            assert!(!matches!(message, FromGuest::Exited(_)), "{:?}", self.ended);
        }
    }

    fn until_exit(mut self) -> Ended {
        loop {
            if let FromGuest::Exited(exit) = self.message() {
                self.ended.exit = Some(exit);
                let ended = std::mem::take(&mut self.ended);
                self.hang_up();
                return ended;
            }
        }
    }

    /// The agent ends without complaint.
    fn hang_up(self) {
        drop(self.socket);
        assert_eq!(self.agent.wait(), Ok(ExitStatus::Code(0)));
        drop(self.staging);
    }
}
