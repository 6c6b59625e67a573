//! `moat exec`

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use moat_container::relay::Relay;
use moat_core::control::{NewProcess, Reply, Request};
use moat_core::diagnose::{Code, Fault};
use moat_core::sandbox::{Exit, ExitStatus, TerminalSize};
use moat_core::spec::Signal;
use moat_core::workload::Terminal;
use moat_host::socket::{Connection, Incoming};
use moat_host::terminal;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::args::Exec;
use crate::host::Host;
use crate::instance::{self, PATIENCE, ended, misunderstood, silent, unexpected};
use crate::monitor::{INSISTENT, Signals};
use crate::output::Output;
use crate::{Failure, stdio};

/// Starts one more process in a running workload, waits for its end and gives its status.
pub(crate) fn exec(output: Output, args: &Exec) -> Result<u8, Failure> {
    stdio::check()?;
    let terminal = terminal_for(args)?;
    let process = NewProcess {
        argv: args.command.clone(),
        env: variables(&args.env)?,
        user: args.user.clone(),
        working_dir: args.workdir.clone(),
        terminal,
    };
    let host = Host::open()?;
    host.sweep(output)?;
    let signals = Signals::hold()?;
    let connection = instance::connect(&host.store, &args.name)?;
    let status = Client::begin(connection, signals, process)?.attend()?;
    Ok(Exit { status, oom: false }.shell_status())
}

/// Found by itself, as for `moat run`.
fn terminal_for(args: &Exec) -> Result<Option<TerminalSize>, Fault> {
    if args.no_tty {
        return Ok(None);
    }
    match stdio::terminal() {
        None if args.tty => Err(Fault::new(
            Code::Usage,
            "a terminal is asked for, but moat is not in the foreground of one",
        )
        .hint("leave `--tty` out: a terminal is found by itself")),
        size => Ok(size),
    }
}

/// `KEY=VALUE`, or `KEY` for the value that moat itself has; a variable that it has not stays out.
fn variables(given: &[String]) -> Result<BTreeMap<String, String>, Fault> {
    let mut all = BTreeMap::new();
    for text in given {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text.as_str(), env::var(text).ok()),
        };
        if key.is_empty() {
            return Err(Fault::new(Code::Usage, format!("{text:?} names no variable"))
                .hint("write `--env KEY=VALUE`, or `--env KEY` to pass one on"));
        }
        all.extend(value.map(|value| (key.to_owned(), value)));
    }
    Ok(all)
}

/// moat's own streams and signals on one side, a process in the workload on the other.
struct Client {
    connection: Connection,
    signals: Signals,
    relay: Relay,
    /// Ready when a signal or a word of the monitor has come.
    ready: Epoll,
    /// Whether the process runs.
    started: bool,
    /// Whether the monitor tells its terminal of a new size.
    resized_by_monitor: bool,
    /// What came before that.
    held: Vec<Signal>,
    /// How often SIGINT has come.
    interrupts: u8,
}

impl Client {
    fn begin(connection: Connection, signals: Signals, process: NewProcess) -> Result<Self, Fault> {
        let failed = |errno: Errno| Fault::new(Code::State, "can't wait").because(errno);
        let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let readable = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        ready.add(signals.as_fd(), readable).map_err(failed)?;
        ready.add(&connection, readable).map_err(failed)?;
        let with_terminal = process.terminal.is_some();
        // Whether a user of this machine is one of the workload's, only its monitor knows.
        let (streams, relay) = Relay::stdio(with_terminal, |_| true).map_err(taken)?;
        let streams = streams.each_ref().map(AsFd::as_fd);
        let streams = if with_terminal { &[][..] } else { &streams };
        connection.send(&Request::Exec(process), streams).map_err(misunderstood)?;
        Ok(Self {
            connection,
            signals,
            relay,
            ready,
            started: false,
            resized_by_monitor: false,
            held: Vec::new(),
            interrupts: 0,
        })
    }

    /// Waits for the process's end.
    fn attend(mut self) -> Result<ExitStatus, Fault> {
        let answer_by = Instant::now() + PATIENCE;
        loop {
            let until = (!self.started).then_some(answer_by);
            let came = self.relay.pass_on(self.ready.0.as_fd(), until);
            if !came.map_err(|error| Fault::new(Code::State, "can't wait").because(error))? {
                return Err(silent());
            }
            while let Some(signal) = self.signals.next()? {
                self.interrupts = self.interrupts.saturating_add(u8::from(signal == Signal::INT));
                if self.started {
                    self.pass_on(signal)?;
                } else if self.interrupts >= INSISTENT {
                    return Ok(ExitStatus::Signal(signal));
                } else {
                    // It may be running already, though that was not heard yet.
                    self.held.push(signal);
                }
            }
            if let Some(status) = self.listen()? {
                self.relay.drain();
                return self.relay.loss().map_or(Ok(status), Err);
            }
        }
    }

    /// Hears the monitor; gives the status once there is one.
    fn listen(&mut self) -> Result<Option<ExitStatus>, Fault> {
        match self.connection.receive_now().map_err(misunderstood)? {
            Incoming::NotYet => Ok(None),
            Incoming::Message(Reply::Started, mut descriptors) => {
                self.started = true;
                if let Some(master) = descriptors.pop() {
                    self.resized_by_monitor = !nix::unistd::isatty(&master).unwrap_or(false);
                    self.relay.serve(master).map_err(taken)?;
                }
                self.relay.begin();
                for signal in std::mem::take(&mut self.held) {
                    self.pass_on(signal)?;
                }
                Ok(None)
            }
            Incoming::Message(Reply::Exited(status), _) => Ok(Some(status)),
            Incoming::Message(Reply::Failed(failure), _) => Err(failure.into()),
            Incoming::Message(..) => Err(unexpected()),
            // Its monitor is gone, and the workload with it.
            Incoming::End if self.started => Ok(Some(ExitStatus::Signal(Signal::KILL))),
            Incoming::End => Err(ended()),
        }
    }

    /// Passes a signal on to the process. The third SIGINT ends it at once, for there must be a way
    /// out.
    fn pass_on(&mut self, signal: Signal) -> Result<(), Fault> {
        let signal = if self.interrupts >= INSISTENT { Signal::KILL } else { signal };
        if signal == Signal::CONT {
            self.relay.resume();
        }
        if matches!(signal, Signal::CONT | Signal::WINCH)
            && let Some(size) = terminal::size(io::stdout())
        {
            if self.resized_by_monitor {
                self.connection.send(&Request::Resize(size), &[]).map_err(misunderstood)?;
            } else {
                self.relay.resize(size)?;
            }
        }
        if signal == Signal::WINCH {
            // The terminal tells of it.
            return Ok(());
        }
        self.connection.send(&Request::Signal(signal), &[]).map_err(misunderstood)
    }
}

fn taken(error: io::Error) -> Fault {
    Fault::new(Code::State, "can't take over stdin, stdout and stderr").because(error)
}
