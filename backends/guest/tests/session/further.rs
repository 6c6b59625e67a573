//! Further processes of a workload.

use std::time::{Duration, Instant};

use moat_core::sandbox::{Exit, ExitStatus, StartError, TerminalSize};
use moat_core::spec::Signal;
use moat_core::wire::{FromGuest, Stream, ToGuest};

use crate::host::Host;
use crate::{OWN, code, on_terminal, sandbox};

pub(crate) const TESTS: [(&str, fn()); 12] = [
    ("further processes", further_processes),
    ("further processes that do not start", further_processes_that_do_not_start),
    (
        "what is written at once comes after the start",
        what_is_written_at_once_comes_after_the_start,
    ),
    ("many further processes at once", many_further_processes_at_once),
    ("signals to a further process", signals_to_a_further_process),
    ("a further process on a terminal", a_further_process_on_a_terminal),
    ("a terminal whose host hangs up", a_terminal_whose_host_hangs_up),
    ("one that is given up before it runs", one_that_is_given_up_before_it_runs),
    ("the workload's end is that of all", the_workloads_end_is_that_of_all),
    ("a further process that nobody reads", a_further_process_that_nobody_reads),
    ("what a further process leaves running", what_a_further_process_leaves_running),
    ("figures and the clock", figures_and_the_clock),
];

fn further_processes() {
    let mut host = Host::running();
    let script = "echo out; echo err >&2; read line; echo $line; exit 3";
    let first = host.exec(1, sandbox(&["sh", "-c", script]));
    host.session_started(first);
    host.send(&ToGuest::Stdin(first, b"typed\n".to_vec()));
    let ended = host.until_end_of(first);
    assert_eq!(ended.exit, Some(code(3)));
    assert_eq!(ended.stdout, b"out\ntyped\n");
    assert_eq!(ended.stderr, b"err\n");
    // In the workload's own pid namespace, where its reaper is 1 and its command 2.
    let second = host.exec(5, sandbox(&["sh", "-c", "cat /proc/1/comm /proc/2/comm"]));
    let ended = host.until_end_of(second);
    assert!(ended.stdout.ends_with(b"\ncat\n"), "{ended:?}");
    // A half-closed stdin.
    let third = host.exec(6, sandbox(&["sh", "-c", "wc -c; echo after"]));
    host.session_started(third);
    let bytes = vec![b'x'; 3 << 20];
    host.feed(third, &bytes);
    host.send(&ToGuest::StdinEnd(third));
    assert_eq!(host.until_end_of(third).stdout, b"3145728\nafter\n");
    // Much output, and a status of its own.
    let fourth = host.exec(7, sandbox(&["sh", "-c", "head -c 3145728 /dev/zero; kill -9 $$"]));
    let ended = host.until_end_of(fourth);
    let killed = Exit { status: ExitStatus::Signal(Signal::KILL), oom: false };
    assert_eq!((ended.exit, ended.stdout.len()), (Some(killed), 3 << 20));
    // What is said of one that has ended is passed over.
    host.send(&ToGuest::Signal(first, Signal::TERM));
    host.send(&ToGuest::Credit(fourth, Stream::Stdout, 1));
    host.send(&ToGuest::HangUp(third));
    host.finish();
}

fn further_processes_that_do_not_start() {
    let mut host = Host::running();
    let session = host.exec(1, sandbox(&["no-such-command"]));
    let program = "no-such-command".to_owned();
    assert_eq!(host.until_failure_of(session), StartError::NotFound { program });
    let session = host.exec(2, sandbox(&["/etc/passwd"]));
    let error = host.until_failure_of(session);
    assert!(matches!(error, StartError::NotExecutable { .. }), "{error}");
    let mut elsewhere = sandbox(&["true"]);
    elsewhere.process.working_dir = "/no/such".parse().unwrap();
    let session = host.exec(3, elsewhere);
    let error = host.until_failure_of(session).to_string();
    assert!(error.contains("working directory /no/such"), "{error}");
    host.finish();
}

fn many_further_processes_at_once() {
    let mut host = Host::running();
    let sessions: Vec<_> = (1..=60)
        .map(|number| {
            let script = format!("read x; echo $x; echo {number} >&2; exit {number}");
            host.exec(number, sandbox(&["sh", "-c", &script]))
        })
        .collect();
    for session in &sessions {
        host.feed(*session, format!("to {}\n", session.0).as_bytes());
    }
    for session in sessions {
        let ended = host.until_end_of(session);
        assert_eq!(ended.exit, Some(code(u8::try_from(session.0).unwrap())));
        assert_eq!(ended.stdout, format!("to {}\n", session.0).as_bytes());
        assert_eq!(ended.stderr, format!("{}\n", session.0).as_bytes());
    }
    host.feed(OWN, b"still there\n");
    host.until_stdout("still there\n");
    host.finish();
}

fn what_is_written_at_once_comes_after_the_start() {
    let mut host = Host::running();
    // The first have long written when the agent comes to hear them.
    let sessions: Vec<_> = (1..=60).map(|number| host.exec(number, sandbox(&["pwd"]))).collect();
    for session in sessions {
        let ended = host.until_end_of(session);
        assert_eq!((ended.exit, ended.stdout.as_slice()), (Some(code(0)), b"/\n".as_slice()));
    }
    host.finish();
}

fn signals_to_a_further_process() {
    let mut host = Host::running();
    let script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    let session = host.exec(1, sandbox(&["sh", "-c", script]));
    host.until_stdout_of(session, "ready\n");
    host.send(&ToGuest::Signal(session, Signal::INT));
    let ended = host.until_end_of(session);
    assert_eq!((ended.exit, ended.stdout), (Some(code(3)), b"ready\ncaught\n".to_vec()));
    host.finish();
}

fn a_further_process_on_a_terminal() {
    let mut host = Host::running();
    let script = "trap 'echo changed' WINCH; tty; stty size; echo ready; \
                  until [ \"$(stty size)\" = '43 132' ]; do sleep 0.05; done; read line; \
                  echo \"line: $line\"; exit 4";
    let session = host.exec(1, on_terminal(&["sh", "-c", script]));
    host.session_started(session);
    host.until_stdout_of(session, "ready\r\n");
    host.send(&ToGuest::Resize(session, TerminalSize { columns: 132, rows: 43 }));
    host.until_stdout_of(session, "changed\r\n");
    host.send(&ToGuest::Stdin(session, b"typed\n".to_vec()));
    let ended = host.until_end_of(session);
    assert_eq!(ended.exit, Some(code(4)));
    let text = String::from_utf8(ended.stdout).unwrap();
    assert!(text.starts_with("/dev/pts/0\r\n25 80\r\n"), "{text:?}");
    assert!(text.ends_with("line: typed\r\n"), "{text:?}");
    host.finish();
}

fn a_terminal_whose_host_hangs_up() {
    let mut host = Host::running();
    let script = "trap 'exit 5' HUP; echo ready; while :; do sleep 0.05; done";
    let session = host.exec(1, on_terminal(&["sh", "-c", script]));
    host.until_stdout_of(session, "ready\r\n");
    host.send(&ToGuest::HangUp(session));
    assert_eq!(host.until_end_of(session).exit, Some(code(5)));
    // Without a terminal it goes on.
    let session = host.exec(2, sandbox(&["sh", "-c", "echo ready; read x; echo $x"]));
    host.until_stdout_of(session, "ready\n");
    host.send(&ToGuest::HangUp(session));
    host.send(&ToGuest::Stdin(session, b"on\n".to_vec()));
    assert_eq!(host.until_end_of(session).stdout, b"ready\non\n");
    host.finish();
}

fn one_that_is_given_up_before_it_runs() {
    let mut host = Host::running();
    for number in 1..=20 {
        let process = sandbox(&["touch", "/tmp/ran"]);
        let session = host.exec(number, process);
        host.send(&ToGuest::HangUp(session));
        // It may just have come so far already.
        loop {
            match host.message() {
                FromGuest::Failed(..) | FromGuest::Ended(..) => break,
                _ => {}
            }
        }
    }
    host.finish();
}

fn the_workloads_end_is_that_of_all() {
    let mut host = Host::running();
    let runs = host.exec(1, sandbox(&["sh", "-c", "echo ready; exec sleep 1000"]));
    host.until_stdout_of(runs, "ready\n");
    // Another is in the middle of entering.
    let enters = host.exec(2, sandbox(&["sleep", "1000"]));
    host.send(&ToGuest::StdinEnd(OWN));
    let (mut first, mut second) = (None, None);
    let exit = loop {
        match host.message() {
            FromGuest::Ended(session, status) if session == runs => first = Some(status),
            FromGuest::Ended(session, _) | FromGuest::Failed(session, _) if session == enters => {
                second = Some(());
            }
            FromGuest::Exited(exit) => break exit,
            _ => {}
        }
    };
    assert_eq!(first, Some(ExitStatus::Signal(Signal::KILL)));
    assert_eq!((second, exit), (Some(()), code(0)));
    host.hang_up();
}

fn a_further_process_that_nobody_reads() {
    let mut host = Host::running();
    host.gives_credit = false;
    let session = host.exec(1, sandbox(&["yes"]));
    host.session_started(session);
    // As much as it has credit for, and then nothing; the workload goes on, and ends.
    let credit = usize::try_from(session.credit()).unwrap();
    while host.sessions[&session].ended.stdout.len() < credit {
        host.message();
    }
    host.feed(OWN, b"still there\n");
    host.until_stdout("still there\n");
    let began = Instant::now();
    host.finish();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

fn what_a_further_process_leaves_running() {
    let mut host = Host::running();
    let script = "yes > /dev/null & yes & echo $!; sleep 0.1; exit 6";
    let session = host.exec(1, sandbox(&["sh", "-c", script]));
    let ended = host.until_end_of(session);
    assert_eq!(ended.exit, Some(code(6)));
    host.finish();
}

fn figures_and_the_clock() {
    let mut host = Host::running();
    host.send(&ToGuest::Clock(7));
    host.send(&ToGuest::Stats);
    // This agent has no cgroup to count anything.
    assert_eq!(host.message(), FromGuest::Figures(Err("it has no cgroup".to_owned())));
    host.finish();
}
