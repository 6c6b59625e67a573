//! What a guest says of further processes, true and false.

use std::io::Read;

use moat_core::sandbox::ExitStatus;
use moat_core::workload::MAX_SESSIONS;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use proptest::prelude::*;

use super::*;

/// A session that was begun, and the client's end of its stdout.
fn begun(all: &mut Furthers) -> (Session, std::fs::File) {
    let null = || std::fs::File::open("/dev/null").unwrap().into();
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
    fcntl(&write, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    (all.begin(Some([null(), write, null()])).unwrap(), read.into())
}

fn stdout(session: Session, count: usize) -> FromGuest {
    FromGuest::Stdout(session, vec![b'x'; count])
}

const OVER: ExitStatus = ExitStatus::Code(3);

fn failed() -> StartError {
    StartError::NotFound { program: "command".to_owned() }
}

fn refuses(all: &mut Furthers, session: Session, message: FromGuest) {
    let name = message.name();
    let error = all.take(session, message).unwrap_err();
    assert!(
        matches!(error, WireError::Session { message, session: of } if message == name && of == session.0),
        "{error}"
    );
}

#[test]
fn nothing_is_taken_of_one_that_there_is_not() {
    let mut all = Furthers::default();
    let (session, _client) = begun(&mut all);
    for stranger in [Session(0), Session(session.0 + 1), Session(u32::MAX)] {
        refuses(&mut all, stranger, stdout(stranger, 1));
        refuses(&mut all, stranger, FromGuest::Started(stranger));
        refuses(&mut all, stranger, FromGuest::Failed(stranger, failed()));
        refuses(&mut all, stranger, FromGuest::Ended(stranger, OVER));
        refuses(&mut all, stranger, FromGuest::Credit(stranger, 1));
    }
    assert!(!all.have_news() && !all.is_empty());
}

#[test]
fn one_that_does_not_run_yet_has_neither_output_nor_end() {
    let mut all = Furthers::default();
    let (session, _client) = begun(&mut all);
    refuses(&mut all, session, stdout(session, 1));
    refuses(&mut all, session, FromGuest::Stderr(session, vec![1]));
    refuses(&mut all, session, FromGuest::Credit(session, 1));
    refuses(&mut all, session, FromGuest::Ended(session, OVER));
    assert!(!all.have_news());
}

#[test]
fn one_starts_once_and_ends_once() {
    let mut all = Furthers::default();
    let (session, _client) = begun(&mut all);
    all.take(session, FromGuest::Started(session)).unwrap();
    assert!(matches!(all.next(), Some((_, SessionEvent::Started { terminal: None }))));
    refuses(&mut all, session, FromGuest::Started(session));
    refuses(&mut all, session, FromGuest::Failed(session, failed()));
    // The client has not taken this when the end comes.
    all.take(session, stdout(session, 9)).unwrap();
    all.take(session, FromGuest::Ended(session, OVER)).unwrap();
    refuses(&mut all, session, FromGuest::Ended(session, OVER));
    refuses(&mut all, session, stdout(session, 1));
    refuses(&mut all, session, FromGuest::Started(session));
    assert!(!all.is_living(session) && !all.is_empty());
}

#[test]
fn one_that_failed_is_no_more() {
    let mut all = Furthers::default();
    let (session, _client) = begun(&mut all);
    all.take(session, FromGuest::Failed(session, failed())).unwrap();
    assert!(matches!(all.next(), Some((_, SessionEvent::Failed(_)))));
    refuses(&mut all, session, FromGuest::Failed(session, failed()));
    refuses(&mut all, session, FromGuest::Started(session));
    assert!(all.is_empty());
}

#[test]
fn no_more_is_held_than_was_granted() {
    let mut all = Furthers::default();
    let (session, mut client) = begun(&mut all);
    all.take(session, FromGuest::Started(session)).unwrap();
    let granted = usize::try_from(session.credit()).unwrap();
    all.take(session, stdout(session, granted)).unwrap();
    let error = all.take(session, stdout(session, 1)).unwrap_err();
    assert!(matches!(error, WireError::Credit { bytes: 1, open: 0 }), "{error}");
    // And the host never sends more than it may, whatever it is granted.
    let error = all.take(session, FromGuest::Credit(session, u32::MAX)).unwrap_err();
    assert!(matches!(error, WireError::Grant { .. }), "{error}");
    assert!(client.read(&mut [0; 1]).is_err(), "nothing was written yet");
}

#[test]
fn the_workloads_end_is_that_of_all() {
    let mut all = Furthers::default();
    let (entering, _a) = begun(&mut all);
    let (running, _b) = begun(&mut all);
    all.take(running, FromGuest::Started(running)).unwrap();
    let _ = all.next();
    all.end();
    let mut news: Vec<_> = std::iter::from_fn(|| all.next()).collect();
    news.sort_by_key(|(of, _)| of.0);
    let killed = ExitStatus::Signal(Signal::KILL);
    assert!(matches!(
        news.as_slice(),
        [(first, SessionEvent::Failed(_)), (second, SessionEvent::Ended(status))]
            if *first == id(entering) && *second == id(running) && *status == killed
    ));
    assert!(all.is_empty());
}

#[test]
fn there_are_only_so_many() {
    let mut all = Furthers::default();
    let kept: Vec<_> = (0..MAX_SESSIONS).map(|_| begun(&mut all)).collect();
    let null = || std::fs::File::open("/dev/null").unwrap().into();
    assert!(all.begin(Some([null(), null(), null()])).is_err());
    let (first, _) = kept.first().unwrap();
    all.take(*first, FromGuest::Failed(*first, failed())).unwrap();
    // A number is not used twice.
    assert_eq!(begun(&mut all).0, Session(u32::try_from(MAX_SESSIONS).unwrap() + 1));
}

fn any_message() -> impl Strategy<Value = FromGuest> {
    let session = || (0_u32..5).prop_map(Session);
    prop_oneof![
        session().prop_map(FromGuest::Started),
        session().prop_map(|session| FromGuest::Failed(session, failed())),
        (session(), 0_usize..70_000).prop_map(|(session, count)| stdout(session, count)),
        (session(), 0_usize..300).prop_map(|(of, count)| FromGuest::Stderr(of, vec![0; count])),
        (session(), any::<u32>()).prop_map(|(session, bytes)| FromGuest::Credit(session, bytes)),
        session().prop_map(|session| FromGuest::Ended(session, OVER)),
    ]
}

fn session_of(message: &FromGuest) -> Session {
    match message {
        FromGuest::Started(of)
        | FromGuest::Failed(of, _)
        | FromGuest::Stdout(of, _)
        | FromGuest::Stderr(of, _)
        | FromGuest::Credit(of, _)
        | FromGuest::Ended(of, _) => *of,
        other => unreachable!("{other:?}"),
    }
}

proptest! {
    /// Whatever it says in whatever order: each of three is told one start at most before one end or
    /// failure at most, and nothing of a fourth.
    #[test]
    fn clients_hear_a_true_story(messages in prop::collection::vec(any_message(), 0..60)) {
        let mut all = Furthers::default();
        let _clients: Vec<_> = (0..3).map(|_| begun(&mut all)).collect();
        for message in messages {
            // What it may not say ends the micro-VM; here the lies go on.
            let _ = all.take(session_of(&message), message);
        }
        all.end();
        all.give_up();
        let mut heard: BTreeMap<u64, Vec<char>> = BTreeMap::new();
        while let Some((of, event)) = all.next() {
            heard.entry(of.0).or_default().push(match event {
                SessionEvent::Started { .. } => 's',
                SessionEvent::Failed(_) => 'f',
                SessionEvent::Ended(_) => 'e',
            });
        }
        prop_assert_eq!(heard.keys().copied().collect::<Vec<_>>(), vec![1, 2, 3]);
        for story in heard.values() {
            let story: String = story.iter().collect();
            prop_assert!(story == "f" || story == "se", "{}", story);
        }
        prop_assert!(all.is_empty());
    }
}
