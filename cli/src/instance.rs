//! Running workloads, as the verbs that act on one name it, and the way to its monitor.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use moat_core::control::{ControlError, Reply, Request};
use moat_core::diagnose::{Code, Fault};
use moat_core::lifecycle::Phase;
use moat_core::sandbox::Exit;
use moat_core::spec::Name;
use moat_host::socket::{Connection, ConnectionError, Incoming};
use moat_host::state::{Found, Header, Store};
use serde_json::json;

use crate::Failure;
use crate::args::Named;
use crate::host::Host;
use crate::output::Output;

/// How long a monitor may take to answer: it waits for nothing itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a workload may take from its record to its control socket.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// The most instances that an error names.
const NAMED: usize = 8;

/// Connects to the monitor of the running workload that has this name, or an id that begins so.
pub(crate) fn connect(store: &Store, name: &str) -> Result<Connection, Fault> {
    connect_within(store, name, PATIENCE)
}

/// As [`connect`], with another patience for each answer.
pub(crate) fn connect_within(
    store: &Store,
    name: &str,
    patience: Duration,
) -> Result<Connection, Fault> {
    let began = Instant::now();
    loop {
        let (dir, header) = find(store, name, None)?;
        match Connection::open(&dir, patience) {
            Ok(connection) => return Ok(connection),
            // It is about to make it, or has just ended, which the next look tells.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
                    && began.elapsed() < START_PATIENCE =>
            {
                sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(unreachable(&header, &dir).because(error)),
        }
    }
}

fn unreachable(header: &Header, dir: &Path) -> Fault {
    let what = format!("can't reach the moat that runs {} ({})", header.name, header.id);
    Fault::new(Code::State, what).hint(format!(
        "see that {} can be used by this user, and that process {} is not stopped",
        dir.display(),
        header.monitor.pid
    ))
}

/// All that run, by name.
pub(crate) fn all(store: &Store) -> Result<Vec<(PathBuf, Header)>, Fault> {
    let mut running: Vec<_> = store.list()?.into_iter().filter_map(running).collect();
    running.sort_by(|(_, one), (_, other)| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
    Ok(running)
}

/// The one that runs and is meant, in this project or in any.
pub(crate) fn find(
    store: &Store,
    name: &str,
    project: Option<&Name>,
) -> Result<(PathBuf, Header), Fault> {
    let mut running = all(store)?;
    running.retain(|(_, header)| project.is_none() || header.project.as_ref() == project);
    let by_name = |header: &Header| header.name.as_str() == name;
    let by_id = |header: &Header| !name.is_empty() && header.id.starts_with(name);
    // A name that looks like the beginning of an id is a name first.
    let named = running.iter().any(|(_, header)| by_name(header));
    let is_meant = |header: &Header| if named { by_name(header) } else { by_id(header) };
    let (mut meant, others): (Vec<_>, Vec<_>) =
        running.into_iter().partition(|(_, header)| is_meant(header));
    match (meant.pop(), meant.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(one), false) => {
            meant.push(one);
            let ids = meant.iter().map(|(_, header)| header.id.as_str());
            let what = format!("{} running workloads are meant by {name}", meant.len());
            Err(Fault::new(Code::NotRunning, what)
                .hint(format!("name one by its id: {}", list(ids))))
        }
        (None, _) => {
            let all = others.iter().map(|(_, header)| format!("{} ({})", header.name, header.id));
            let hint = match others.is_empty() {
                true => "nothing of this user runs; another user's workloads are that user's \
                         and root's alone"
                    .to_owned(),
                false => format!("these run: {}", list(all)),
            };
            Err(Fault::new(Code::NotRunning, format!("no running workload is called {name:?}"))
                .hint(hint))
        }
    }
}

/// What has a living monitor and is not about to be removed.
fn running(found: Found) -> Option<(PathBuf, Header)> {
    let ended = |phase| matches!(phase, Phase::Ended | Phase::Destroying | Phase::Destroyed);
    let runs = found.owned && !found.mark.is_some_and(|mark| ended(mark.phase));
    Some((found.dir, found.header?)).filter(|_| runs)
}

/// The first of them, and how many more there are.
pub(crate) fn list<T: AsRef<str>>(all: impl ExactSizeIterator<Item = T>) -> String {
    let more = all.len().saturating_sub(NAMED);
    let first: Vec<_> = all.take(NAMED).map(|one| one.as_ref().to_owned()).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    first.join(", ") + &more
}

/// Asks what is answered by one reply.
pub(crate) fn ask(connection: &mut Connection, request: &Request) -> Result<Reply, Fault> {
    connection.send(request, &[]).map_err(misunderstood)?;
    match connection.receive().map_err(misunderstood)? {
        Incoming::Message(Reply::Failed(failure), _) => Err(failure.into()),
        Incoming::Message(reply, _) => Ok(reply),
        Incoming::NotYet => Err(silent()),
        Incoming::End => Err(ended()),
    }
}

/// Has the running workload of this name do what is answered by [`Reply::Done`], after which it is
/// in `state`.
pub(crate) fn order(
    output: Output,
    named: &Named,
    request: &Request,
    state: Phase,
) -> Result<u8, Failure> {
    let host = Host::open()?;
    host.sweep(output)?;
    let (_, header) = find(&host.store, &named.name, named.project.as_ref())?;
    match ask(&mut connect(&host.store, &header.id)?, request)? {
        Reply::Done => {}
        _ => return Err(unexpected().into()),
    }
    let (id, name, state) = (&header.id, &header.name, state.as_str());
    output.result(&json!({ "id": id, "name": name, "state": state }), |_| {
        format!("{name} ({id}) is {state}")
    })?;
    Ok(0)
}

/// Waits until nothing is left of an instance but what is kept; gives how it ended, if that was
/// told. `orders` are sent first, each of which is answered by [`Reply::Done`].
pub(crate) fn attend_end(
    connection: &mut Connection,
    orders: &[Request],
) -> Result<Option<Exit>, Fault> {
    connection.send(&Request::Wait, &[]).map_err(misunderstood)?;
    for order in orders {
        connection.send(order, &[]).map_err(misunderstood)?;
    }
    let (mut heeded, mut outcome) = (0, None);
    loop {
        match connection.receive().map_err(misunderstood)? {
            Incoming::Message(Reply::Done, _) => heeded += 1,
            Incoming::Message(Reply::Ended(exit), _) => outcome = Some(Ok(exit)),
            Incoming::Message(Reply::Failed(failure), _) => outcome = Some(Err(failure.into())),
            Incoming::Message(..) => return Err(unexpected()),
            Incoming::NotYet if heeded < orders.len() => return Err(silent()),
            Incoming::NotYet => {}
            Incoming::End => return outcome.transpose(),
        }
    }
}

/// The monitor answers something else than what was asked.
pub(crate) fn unexpected() -> Fault {
    Fault::new(Code::State, "the moat that runs it answers something else")
        .hint("use the version of moat that it was started with")
}

/// The monitor does not answer.
pub(crate) fn silent() -> Fault {
    let what = format!("the moat that runs it does not answer within {} s", PATIENCE.as_secs());
    Fault::new(Code::State, what).hint("it may be stopped: `fg`, or `kill -CONT` it")
}

/// The monitor is gone.
pub(crate) fn ended() -> Fault {
    Fault::new(Code::NotRunning, "the workload has just ended").hint("run it again")
}

/// The monitor can't be spoken to.
pub(crate) fn misunderstood(error: ConnectionError) -> Fault {
    let hint = match &error {
        ConnectionError::Message { source: ControlError::Version { .. } } => {
            "use the version of moat that it was started with"
        }
        ConnectionError::Message { source: ControlError::TooLong { .. } } => {
            "pass long arguments in a file or over stdin"
        }
        ConnectionError::Socket { source, .. }
            if matches!(source.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
        {
            return ended();
        }
        _ => "run it again",
    };
    Fault::new(Code::State, "can't speak with the moat that runs it").hint(hint).because(error)
}
