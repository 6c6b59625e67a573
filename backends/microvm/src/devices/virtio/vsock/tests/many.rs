//! Many streams at once, asked for from both sides.

use super::*;

fn from(port: u32, op: u16) -> Header {
    Header { src_port: port, ..packet(op) }
}

/// Opens a stream from the guest's `port`.
fn open(table: &mut Table<Host>, port: u32) -> (u64, Host) {
    let sought = table.receive(&from(port, op::REQUEST), &[]).unwrap();
    let host = Host::default();
    table.found(sought.id, Some(host.clone()), BUFFER);
    (sought.id, host)
}

/// Asks the guest for port 7; what the guest is told, and the host.
fn offer(table: &mut Table<Host>) -> (u64, Header, Host) {
    let (id, host) = (table.new_id(), Host::default());
    assert!(table.offer(id, 7, host.clone()));
    let told = drain(table);
    assert_eq!(ops(&told), [op::REQUEST]);
    (id, told[0].0, host)
}

/// The guest's answer to an offer.
fn answer(request: &Header, op: u16) -> Header {
    Header { src_port: request.dst_port, dst_port: request.src_port, ..packet(op) }
}

#[test]
fn each_stream_has_its_turn_whatever_the_others_have() {
    let mut table = Table::new(0);
    for port in 0..3 {
        let (_, host) = open(&mut table, port);
        let much = if port == 0 { 50_000 } else { 5000 };
        host.0.borrow_mut().to_send.extend(vec![1; much]);
    }
    let mut room = [0; 1000];
    let mut turns = Vec::new();
    while let Some((header, _)) = table.next(&mut room) {
        turns.push((header.dst_port, header.op));
    }
    // A response each, then five times a thousand bytes each, then what is left of the first.
    let ports: Vec<u32> = turns.iter().map(|(port, _)| *port).collect();
    assert_eq!(&ports[..18], [0, 1, 2].repeat(6));
    assert_eq!(ports.len(), 18 + 45);
    assert!(turns[3..].iter().all(|(_, op)| *op == op::RW));
}

#[test]
fn there_is_an_end_to_streams_and_room_again_once_the_guest_knows() {
    let mut table = Table::new(0);
    let last = u32::try_from(MAX_STREAMS).unwrap();
    let hosts: Vec<Host> = (0..last).map(|port| open(&mut table, port).1).collect();
    assert!(table.receive(&from(last, op::REQUEST), &[]).is_none());
    let refused = Host::default();
    let id = table.new_id();
    assert!(!table.offer(id, 7, refused.clone()) && refused.0.borrow().closed);
    let told = drain(&mut table);
    let resets: Vec<u32> =
        told.iter().filter(|(it, _)| it.op == op::RST).map(|(it, _)| it.dst_port).collect();
    assert_eq!(resets, [last]);
    // Over, but the guest does not know yet: no room.
    table.receive(&from(3, op::REQUEST), &[]);
    assert!(hosts[3].0.borrow().closed);
    assert!(table.receive(&from(last, op::REQUEST), &[]).is_none());
    drain(&mut table);
    assert!(table.receive(&from(last, op::REQUEST), &[]).is_some());
}

#[test]
fn a_guest_that_comes_and_goes_and_never_listens_fills_nothing() {
    let mut table = Table::new(0);
    for round in 0..20_000u32 {
        let port = round % 3;
        if let Some(Sought { id, .. }) = table.receive(&from(port, op::REQUEST), &[]) {
            table.found(id, (round % 2 == 0).then(Host::default), BUFFER);
        }
        table.receive(&from(port, op::CREDIT_REQUEST), &[]);
        table.receive(&from(port, op::RST), &[]);
        table.receive(&from(port, op::RW), b"?");
    }
    assert_eq!(table.len(), 0);
    assert_eq!(drain(&mut table).len(), MAX_REFUSALS);
    assert!(!table.owes());
}

#[test]
fn an_offer_that_is_taken_is_told_to_the_host_by_its_port() {
    let mut table = Table::new(0);
    let (id, request, host) = offer(&mut table);
    host.0.borrow_mut().takes = 1000;
    // The host may speak at once: the guest hears it after it has answered.
    host.0.borrow_mut().to_send.extend(b"hello");
    table.host_is_ready(id, false);
    assert!(drain(&mut table).is_empty());
    assert_eq!((request.dst_port, request.buf_alloc), (7, BUFFER));
    table.receive(&answer(&request, op::RESPONSE), &[]);
    let told = drain(&mut table);
    assert_eq!((ops(&told), told[0].1.as_slice()), (vec![op::RW], b"hello".as_slice()));
    table.receive(&answer(&request, op::RW), b"world");
    let line = format!("OK {}\nworld", request.src_port);
    assert_eq!(host.0.borrow().received, line.as_bytes());
    // What we said ourselves is no credit of the guest's.
    table.receive(&answer(&request, op::CREDIT_REQUEST), &[]);
    assert_eq!(drain(&mut table)[0].0.fwd_cnt, 5);
    // Another offer has another port of ours.
    let (_, second, _) = offer(&mut table);
    assert_ne!(second.src_port, request.src_port);
}

#[test]
fn an_offer_ends_when_it_is_refused_answered_with_nonsense_late_or_nobody_waits_for_it() {
    let mut table = Table::new(0);
    let (_, request, host) = offer(&mut table);
    table.receive(&answer(&request, op::RST), &[]);
    assert!(host.0.borrow().closed && drain(&mut table).is_empty());
    for nonsense in [op::RW, op::REQUEST, op::SHUTDOWN, 99] {
        let (_, request, host) = offer(&mut table);
        table.receive(&answer(&request, nonsense), &[]);
        assert!(host.0.borrow().closed);
        assert_eq!(ops(&drain(&mut table)), [op::RST]);
    }
    for hung_up in [false, true] {
        let (id, request, host) = offer(&mut table);
        if hung_up {
            table.host_is_ready(id, true);
        } else {
            table.give_up(id);
        }
        table.receive(&answer(&request, op::RESPONSE), &[]);
        assert!(host.0.borrow().closed);
        assert_eq!(ops(&drain(&mut table)), [op::RST]);
    }
    // A host that takes not even the line is gone.
    let (_, request, host) = offer(&mut table);
    table.receive(&answer(&request, op::RESPONSE), &[]);
    assert!(host.0.borrow().closed);
    assert_eq!(ops(&drain(&mut table)), [op::RST]);
    assert_eq!(table.len(), 0);
    // To give up what is open or gone is nothing.
    let (id, open) = open(&mut table, 1);
    (0..=id).for_each(|id| table.give_up(id));
    assert!(!open.0.borrow().closed);
}

#[test]
fn who_speaks_before_it_was_answered_is_refused_though_the_host_is_found() {
    let mut table = Table::new(0);
    let sought = table.receive(&from(1, op::REQUEST), &[]).unwrap();
    table.receive(&from(1, op::RW), b"early");
    table.found(sought.id, Some(Host::default()), BUFFER);
    assert_eq!(ops(&drain(&mut table)), [op::RST]);
    // One that loses interest leaves nothing, and its answer nothing to answer.
    let sought = table.receive(&from(1, op::REQUEST), &[]).unwrap();
    table.receive(&from(1, op::RST), &[]);
    table.found(sought.id, Some(Host::default()), BUFFER);
    assert!(drain(&mut table).is_empty() && table.len() == 0);
}

#[test]
fn a_host_that_hangs_up_ends_its_stream_though_the_guest_says_nothing() {
    let mut table = Table::new(0);
    let (id, host) = open(&mut table, 1);
    {
        let mut fake = host.0.borrow_mut();
        fake.to_send.extend(b"last words");
        (fake.gone, fake.ended) = (true, true);
    }
    table.host_is_ready(id, true);
    let told = drain(&mut table);
    assert_eq!(ops(&told), [op::RESPONSE, op::SHUTDOWN, op::RW, op::SHUTDOWN, op::RST]);
    assert_eq!(told[2].1, b"last words");
    assert!(host.0.borrow().closed && table.len() == 0);
}

#[test]
fn a_fresh_driver_finds_nothing_of_the_old_one() {
    let mut table = Table::new(0);
    let (_, open) = open(&mut table, 1);
    drain(&mut table);
    let (_, _, offered) = offer(&mut table);
    table.receive(&from(9, op::RW), &[]);
    table.restart();
    assert!(open.0.borrow().closed && offered.0.borrow().closed);
    assert!(!table.owes() && table.len() == 0);
}

#[derive(Debug, Clone)]
enum Deed {
    Packet { port: u32, ours: u32, op: u16, flags: u32, credit: u32, length: usize },
    Found(u64, bool),
    Offer(u32),
    GiveUp(u64),
    Ready(u64, bool),
    Take,
}

fn deed() -> impl Strategy<Value = Deed> {
    let ours = prop_oneof![Just(PORT), (1u32 << 30)..(1 << 30) + 5];
    let packet = (0..4u32, ours, 0..9u16, 0..4u32, any::<u32>(), 0..70_000usize);
    prop_oneof![
        6 => packet.prop_map(|(port, ours, op, flags, credit, length)| Deed::Packet {
            port, ours, op, flags, credit, length
        }),
        2 => (0..40u64, any::<bool>()).prop_map(|(id, there)| Deed::Found(id, there)),
        1 => (0..4u32).prop_map(Deed::Offer),
        1 => (0..40u64).prop_map(Deed::GiveUp),
        2 => (0..40u64, any::<bool>()).prop_map(|(id, gone)| Deed::Ready(id, gone)),
        1 => Just(Deed::Take),
    ]
}

proptest! {
    /// Anything in any order: nothing panics, all that is owed comes to an end, and no host's end
    /// outlives the driver.
    #[test]
    fn whatever_happens_it_comes_to_an_end(deeds in proptest::collection::vec(deed(), 1..300)) {
        let mut table = Table::new(0);
        let mut hosts: Vec<Host> = Vec::new();
        let mut host = || {
            let host = Host::default();
            host.0.borrow_mut().takes = 10_000;
            host.0.borrow_mut().to_send.extend(vec![1; 9000]);
            hosts.push(host.clone());
            host
        };
        for deed in deeds {
            match deed {
                Deed::Packet { port, ours, op, flags, credit, length } => {
                    let header = Header {
                        dst_port: ours, flags, buf_alloc: credit, fwd_cnt: credit / 3,
                        ..from(port, op)
                    };
                    table.receive(&header, &vec![0; length]);
                }
                Deed::Found(id, there) => table.found(id, there.then(&mut host), BUFFER),
                Deed::Offer(port) => {
                    let id = table.new_id();
                    table.offer(id, port, host());
                }
                Deed::GiveUp(id) => table.give_up(id),
                Deed::Ready(id, gone) => table.host_is_ready(id, gone),
                Deed::Take => drop(table.next(&mut [0; 500])),
            }
            prop_assert!(table.len() <= 310);
        }
        let rest = drain(&mut table);
        prop_assert!(rest.len() <= MAX_REFUSALS + hosts.len() * 30, "{}", rest.len());
        prop_assert!(!table.owes());
        table.restart();
        // Who has a host's end has let go of it, by closing or dropping it.
        prop_assert!(hosts.iter().all(|host| Rc::strong_count(&host.0) == 1));
    }

    /// Honest streams side by side: all bytes of each arrive, in order, whatever the others do.
    #[test]
    fn streams_side_by_side_arrive_whole(
        steps in proptest::collection::vec((0..4usize, any::<u16>(), any::<u16>()), 1..100),
        room in 1..9000usize,
    ) {
        let mut table = Table::new(0);
        let mut room = vec![0; room];
        let ends: Vec<(u64, Host)> =
            (0..4).map(|port| open(&mut table, port)).collect();
        let (mut sent, mut known, mut said) = ([0u64; 4], [0u32; 4], [0u64; 4]);
        let mut heard = [0u64; 4];
        let mut last = false;
        let mut steps = steps.into_iter();
        loop {
            match steps.next() {
                Some((at, length, takes)) => {
                    let port = u32::try_from(at).unwrap();
                    let free = BUFFER - wrap(sent[at]).wrapping_sub(known[at]);
                    let data = pattern(sent[at], usize::from(length).min(free as usize));
                    let header = Header { fwd_cnt: wrap(heard[at]), ..from(port, op::RW) };
                    table.receive(&header, &data);
                    sent[at] += data.len() as u64;
                    let (id, host) = &ends[at];
                    host.0.borrow_mut().to_send.extend(pattern(said[at], length.into()));
                    said[at] += u64::from(length);
                    host.0.borrow_mut().takes += usize::from(takes);
                    table.host_is_ready(*id, false);
                }
                None if last => break,
                None => {
                    last = heard == said;
                    for (at, (id, host)) in ends.iter().enumerate() {
                        host.0.borrow_mut().takes = usize::MAX;
                        table.host_is_ready(*id, false);
                        let credit = from(u32::try_from(at).unwrap(), op::CREDIT_UPDATE);
                        table.receive(&Header { fwd_cnt: wrap(heard[at]), ..credit }, &[]);
                    }
                }
            }
            while let Some((header, length)) = table.next(&mut room) {
                let at = header.dst_port as usize;
                prop_assert_ne!(header.op, op::RST);
                prop_assert_eq!(&room[..length], &pattern(heard[at], length));
                heard[at] += length as u64;
                known[at] = header.fwd_cnt;
            }
        }
        for (at, (_, host)) in ends.iter().enumerate() {
            let all = pattern(0, usize::try_from(sent[at]).unwrap());
            prop_assert_eq!(&host.0.borrow().received, &all);
        }
    }
}
