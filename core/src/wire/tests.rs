//! The codec under any input: what goes in comes out however it is cut; nothing makes it panic.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::sandbox::{ExitStatus, Label, Limits, Process, Rootfs, Seccomp};
use crate::spec::{Bytes, Cpus, GuestPath, Hostname, Resources, User};
use crate::workload::Io;

fn sandbox(argv: Vec<String>, env: BTreeMap<String, String>) -> Sandbox {
    let hostname: Hostname = postcard::from_bytes(b"\x04moat").unwrap();
    Sandbox {
        hostname,
        root: Rootfs {
            lowers: Vec::new(),
            hidden: Vec::new(),
            upper: Bytes::mib(64),
            read_only: true,
        },
        mounts: Vec::new(),
        reaper: true,
        limits: Limits::from(&Resources {
            cpus: Cpus::from_milli(1500),
            memory: Bytes::mib(64),
            pids: 10,
        }),
        shm_size: Bytes::mib(64),
        process: Process {
            argv,
            env,
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

fn to_guest() -> impl Strategy<Value = ToGuest> {
    let start = (
        prop::collection::vec(".*", 0..8),
        prop::collection::btree_map(".*", ".*", 0..8),
        any::<bool>(),
        any::<u64>(),
        any::<[u8; 32]>(),
    )
        .prop_map(|(argv, env, merge_output, clock_nanos, entropy)| {
            let sandbox = sandbox(argv, env);
            ToGuest::Start(Box::new(Start { sandbox, merge_output, clock_nanos, entropy }))
        });
    let further = (session(), prop::collection::vec(".*", 0..8), any::<bool>()).prop_map(
        |(session, argv, merge_output)| {
            let process = sandbox(argv, BTreeMap::new()).process;
            ToGuest::Exec(session, Box::new(Further { process, merge_output }))
        },
    );
    prop_oneof![
        start,
        further,
        (session(), prop::collection::vec(any::<u8>(), 1..2000))
            .prop_map(|(session, bytes)| ToGuest::Stdin(session, bytes)),
        session().prop_map(ToGuest::StdinEnd),
        (session(), stream(), any::<u32>())
            .prop_map(|(session, stream, bytes)| ToGuest::Credit(session, stream, bytes)),
        (session(), 1..=64i32)
            .prop_map(|(session, n)| ToGuest::Signal(session, Signal::from_number(n).unwrap())),
        (session(), any::<u16>(), any::<u16>()).prop_map(|(session, columns, rows)| {
            ToGuest::Resize(session, TerminalSize { columns, rows })
        }),
        (session(), stream()).prop_map(|(session, stream)| ToGuest::CloseStream(session, stream)),
        session().prop_map(ToGuest::HangUp),
        Just(ToGuest::Stats),
        any::<u64>().prop_map(ToGuest::Clock),
    ]
}

fn session() -> impl Strategy<Value = Session> {
    prop_oneof![Just(0), 1..200u32, any::<u32>()].prop_map(Session)
}

fn stream() -> impl Strategy<Value = Stream> {
    prop_oneof![Just(Stream::Stdin), Just(Stream::Stdout), Just(Stream::Stderr)]
}

fn status() -> impl Strategy<Value = ExitStatus> {
    prop_oneof![
        any::<u8>().prop_map(ExitStatus::Code),
        (1..=64i32).prop_map(|n| ExitStatus::Signal(Signal::from_number(n).unwrap())),
    ]
}

fn figures() -> impl Strategy<Value = Figures> {
    (any::<[u64; 7]>(), any::<Option<u64>>()).prop_map(|(numbers, micros)| {
        let [memory, memory_limit, pids, pids_limit, oom_kills, read, written] = numbers;
        Figures {
            cpu: micros.map(std::time::Duration::from_micros),
            memory: Bytes::new(memory),
            memory_limit: Bytes::new(memory_limit),
            pids,
            pids_limit,
            io: Some(Io { read: Bytes::new(read), written: Bytes::new(written) }),
            oom_kills,
        }
    })
}

fn from_guest() -> impl Strategy<Value = FromGuest> {
    prop_oneof![
        (any::<u16>(), ".{0,64}")
            .prop_map(|(version, kernel)| FromGuest::Ready { version, kernel }),
        session().prop_map(FromGuest::Started),
        (session(), ".*").prop_map(|(session, program)| {
            FromGuest::Failed(session, StartError::NotFound { program })
        }),
        (session(), prop::collection::vec(any::<u8>(), 1..2000))
            .prop_map(|(session, bytes)| FromGuest::Stdout(session, bytes)),
        (session(), prop::collection::vec(any::<u8>(), 1..2000))
            .prop_map(|(session, bytes)| FromGuest::Stderr(session, bytes)),
        (session(), any::<u32>()).prop_map(|(session, bytes)| FromGuest::Credit(session, bytes)),
        (session(), status()).prop_map(|(session, status)| FromGuest::Ended(session, status)),
        figures().prop_map(|figures| FromGuest::Figures(Ok(figures))),
        ".*".prop_map(|why| FromGuest::Figures(Err(why))),
        (status(), any::<bool>()).prop_map(|(status, oom)| FromGuest::Exited(Exit { status, oom })),
    ]
}

/// Feeds `bytes` in pieces of these sizes, over and over.
fn decode_in_pieces<M: Message>(bytes: &[u8], sizes: &[usize]) -> Result<Vec<M>, WireError> {
    let (mut decoder, mut messages, mut rest) = (Decoder::new(), Vec::new(), bytes);
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(size.min(rest.len()));
        decoder.feed(piece);
        rest = after;
        while let Some(message) = decoder.next_message()? {
            messages.push(message);
        }
    }
    assert!(!decoder.is_partial());
    Ok(messages)
}

fn round_trip<M: Message + PartialEq + std::fmt::Debug>(sent: &[M], sizes: &[usize]) {
    let (mut outbox, mut bytes) = (Outbox::new(), Vec::new());
    for (message, size) in sent.iter().zip(sizes.iter().cycle()) {
        outbox.push(message).unwrap();
        let taken = (*size).min(outbox.pending().len());
        bytes.extend_from_slice(&outbox.pending()[..taken]);
        outbox.advance(taken);
    }
    bytes.extend_from_slice(outbox.pending());
    outbox.advance(outbox.pending().len());
    assert!(outbox.pending().is_empty());
    assert_eq!(decode_in_pieces::<M>(&bytes, sizes).unwrap(), sent);
}

proptest! {
    #[test]
    fn messages_to_the_guest_survive_any_split(
        sent in prop::collection::vec(to_guest(), 0..8),
        sizes in prop::collection::vec(1usize..5000, 1..8),
    ) {
        round_trip(&sent, &sizes);
    }

    #[test]
    fn messages_from_the_guest_survive_any_split(
        sent in prop::collection::vec(from_guest(), 0..8),
        sizes in prop::collection::vec(1usize..5000, 1..8),
    ) {
        round_trip(&sent, &sizes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        let mut decoder = Decoder::new();
        decoder.feed(&bytes);
        while let Ok(Some(_)) = decoder.next_message::<FromGuest>() {}
        let mut decoder = Decoder::new();
        decoder.feed(&bytes);
        while let Ok(Some(_)) = decoder.next_message::<ToGuest>() {}
    }

    #[test]
    fn arbitrary_payloads_in_good_frames_never_panic(
        payload in prop::collection::vec(any::<u8>(), 0..600),
        session in any::<u32>(),
        kind in 0u8..4,
    ) {
        let mut bytes = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend(if kind == 0 { 0 } else { session }.to_le_bytes());
        bytes.extend([kind, 0, 0, 0]);
        bytes.extend(payload);
        let mut decoder = Decoder::new();
        decoder.feed(&bytes);
        let _ = decoder.next_message::<FromGuest>();
        let mut decoder = Decoder::new();
        decoder.feed(&bytes);
        let _ = decoder.next_message::<ToGuest>();
    }

    #[test]
    fn credit_is_never_lost_or_made(
        session in session(),
        writes in prop::collection::vec(1usize..STREAM_LIMIT * 3 / 4, 1..64),
    ) {
        let initial = session.credit();
        let (mut credit, mut window) = (Credit::new(initial), Window::new(initial));
        for bytes in writes {
            prop_assert!(credit.available() >= bytes, "a reader that keeps up never stalls");
            credit.take(bytes).unwrap();
            window.receive(bytes).unwrap();
            if let Some(granted) = window.consume(bytes) {
                credit.grant(granted).unwrap();
            }
        }
    }
}

#[test]
fn a_frame_over_its_limit_is_refused_by_its_header_alone() {
    for (kind, length) in [(0u8, FROM_GUEST_LIMIT + 1), (2, STREAM_LIMIT + 1), (3, 0xffff_ffff)] {
        let mut decoder = Decoder::new();
        decoder.feed(&u32::try_from(length).unwrap().to_le_bytes());
        assert_eq!(decoder.next_message::<FromGuest>(), Ok(None));
        decoder.feed(&[0, 0, 0, 0, kind, 0, 0, 0]);
        let error = decoder.next_message::<FromGuest>().unwrap_err();
        assert!(matches!(error, WireError::TooLong { .. }), "{error:?}");
    }
}

#[test]
fn frames_of_the_wrong_direction_kind_or_shape_are_refused() {
    let refused = |bytes: &[u8]| {
        let mut decoder = Decoder::new();
        decoder.feed(bytes);
        decoder.next_message::<FromGuest>().unwrap_err()
    };
    let frame = |length: u8, session, kind, reserved| {
        vec![length, 0, 0, 0, session, 0, 0, 0, kind, 0, 0, reserved]
    };
    let stdin = [frame(1, 0, 1, 0), vec![b'x']].concat();
    assert!(matches!(refused(&stdin), WireError::Header { kind: 1, .. }));
    assert!(matches!(refused(&frame(0, 0, 4, 0)), WireError::Header { kind: 4, .. }));
    assert!(matches!(refused(&frame(0, 0, 0, 1)), WireError::Header { .. }));
    assert!(matches!(refused(&frame(1, 7, 0, 0)), WireError::Header { session: 7, .. }));
    let started = postcard::to_stdvec(&FromGuest::Started(Session(1))).unwrap();
    let mut trailing = frame(u8::try_from(started.len() + 1).unwrap(), 0, 0, 0);
    trailing.extend(&started);
    trailing.push(0);
    assert_eq!(refused(&trailing), WireError::Malformed { length: started.len() + 1 });
    let smuggled = postcard::to_stdvec(&FromGuest::Stdout(Session(1), b"x".to_vec())).unwrap();
    let mut smuggling = frame(u8::try_from(smuggled.len()).unwrap(), 0, 0, 0);
    smuggling.extend(&smuggled);
    assert!(matches!(refused(&smuggling), WireError::Malformed { .. }));
}

#[test]
fn long_stream_data_becomes_several_frames() {
    let bytes: Vec<u8> = (0u8..=255).cycle().take(STREAM_LIMIT * 2 + 5).collect();
    let mut encoded = Vec::new();
    FromGuest::Stdout(Session(9), bytes.clone()).encode(&mut encoded).unwrap();
    assert_eq!(encoded.len(), bytes.len() + 3 * HEADER);
    let pieces = decode_in_pieces::<FromGuest>(&encoded, &[70_000]).unwrap();
    let joined: Vec<u8> =
        pieces.iter().flat_map(|m| m.as_stream().unwrap().2.iter().copied()).collect();
    assert_eq!(joined, bytes);
}

#[test]
fn a_message_over_its_limit_is_not_sent() {
    let mut out = vec![7];
    let program = "x".repeat(FROM_GUEST_LIMIT);
    let failed = FromGuest::Failed(Session::WORKLOAD, StartError::NotFound { program });
    let error = failed.encode(&mut out).unwrap_err();
    assert!(matches!(error, WireError::TooLong { .. }));
    assert_eq!(out, [7]);
}

#[test]
fn bytes_beyond_the_credit_and_credit_beyond_the_room_are_errors() {
    let all = usize::try_from(INITIAL_CREDIT).unwrap();
    let mut window = Window::new(INITIAL_CREDIT);
    window.receive(all).unwrap();
    assert_eq!(window.receive(1), Err(WireError::Credit { bytes: 1, open: 0 }));
    let mut credit = Credit::new(INITIAL_CREDIT);
    assert_eq!(credit.grant(1), Err(WireError::Grant { bytes: 1 }));
    credit.take(all).unwrap();
    assert_eq!(credit.take(1), Err(WireError::Credit { bytes: 1, open: 0 }));
    credit.grant(INITIAL_CREDIT).unwrap();
    assert_eq!(credit.grant(u32::MAX), Err(WireError::Grant { bytes: u32::MAX }));
}
