//! The disk by way of raw queue memory: what it does right, and what no driver may do to it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::driver::{Driver, FREE, INDIRECT, MEMORY, NEXT, SIZE, WRITE, bytes_of, wait};
use super::super::rate::Rate;
use super::*;

const HEADER: u64 = FREE;
const STATUS: u64 = FREE + 0x800;
const RANGES: u64 = FREE + 0x900;
const DATA: u64 = FREE + 0x1000;
const SECTORS: u64 = 64;
/// Bytes of a whole image.
const IMAGE: usize = 64 * 512;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// A file of `length` bytes in a pattern.
fn image(length: usize) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&pattern(length), 0).unwrap();
    file
}

fn disk(file: &File, options: &DiskOptions) -> Box<Disk> {
    Box::new(Disk::new(file.try_clone().unwrap(), options).unwrap())
}

const ALL: u64 = feature::FLUSH | feature::DISCARD | feature::WRITE_ZEROES;

fn driver(file: &File) -> Driver {
    Driver::started(disk(file, &DiskOptions::default()), ALL)
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), [0; 4]].concat();
    bytes.extend(sector.to_le_bytes());
    bytes
}

/// Sends one request with `data` pieces, and returns its status and how much was written.
fn ask(driver: &mut Driver, kind: u32, sector: u64, data: &[(u64, u32, u16)]) -> (u8, u32) {
    driver.put(HEADER, &header(kind, sector));
    driver.put(STATUS, &[0xee]);
    let mut pieces = vec![(HEADER, 16, 0)];
    pieces.extend(data);
    pieces.push((STATUS, 1, WRITE));
    let head = driver.chain(0, &pieces);
    driver.kick(0);
    let (used, written) = driver.used(0);
    assert_eq!(used, head);
    (driver.get(STATUS, 1)[0], written)
}

fn status(driver: &mut Driver, kind: u32, sector: u64, data: &[(u64, u32, u16)]) -> u8 {
    ask(driver, kind, sector, data).0
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

#[test]
fn sectors_are_read_and_written() {
    let file = image(IMAGE);
    let mut driver = driver(&file);
    assert_eq!(ask(&mut driver, kind::IN, 3, &[(DATA, 1024, WRITE)]), (OK, 1025));
    assert_eq!(driver.get(DATA, 1024), pattern(512 * 5)[3 * 512..]);
    driver.put(DATA, &[7; 512]);
    assert_eq!(ask(&mut driver, kind::OUT, 63, &[(DATA, 512, 0)]), (OK, 1));
    assert_eq!(ask(&mut driver, kind::FLUSH, 0, &[]), (OK, 1));
    let mut bytes = vec![0; 1024];
    file.read_exact_at(&mut bytes, 62 * 512).unwrap();
    assert_eq!(bytes[..512], pattern(63 * 512)[62 * 512..]);
    assert_eq!(bytes[512..], [7; 512]);
    assert!(driver.line.read().unwrap() > 0);
}

#[test]
fn the_guest_sees_size_and_features() {
    let file = image(512 * 3 + 1);
    let driver = Driver::new(disk(&file, &DiskOptions::default()));
    assert_eq!(driver.register(0x08), 2);
    assert_eq!(driver.register(0x100), 4, "a last sector that is not whole counts");
    let features = driver.register(0x10);
    assert_eq!(features & (1 << 5), 0);
    assert_ne!(features & (1 << 13), 0);
    drop(driver);
    let options = DiskOptions { read_only: true, ..Default::default() };
    let driver = Driver::new(disk(&file, &options));
    let features = driver.register(0x10);
    assert_ne!(features & (1 << 5), 0);
    assert_eq!(features & (1 << 13), 0);
}

#[test]
fn a_last_sector_that_is_not_whole_ends_in_zeroes_and_can_be_written() {
    let file = image(512 + 100);
    let mut driver = driver(&file);
    driver.put(DATA, &[9; 1024]);
    assert_eq!(status(&mut driver, kind::IN, 0, &[(DATA, 1024, WRITE)]), OK);
    let expected = [pattern(612), vec![0; 412]].concat();
    assert_eq!(driver.get(DATA, 1024), expected);
    driver.put(DATA, &[8; 512]);
    assert_eq!(status(&mut driver, kind::OUT, 1, &[(DATA, 512, 0)]), OK);
    assert_eq!(file.metadata().unwrap().len(), 1024);
    assert_eq!(status(&mut driver, kind::IN, 2, &[(DATA, 512, WRITE)]), IOERR);
}

#[test]
fn a_file_that_was_cut_off_reads_as_zeroes() {
    let file = image(4096);
    let mut driver = driver(&file);
    file.set_len(512).unwrap();
    driver.put(DATA, &[9; 1024]);
    assert_eq!(status(&mut driver, kind::IN, 0, &[(DATA, 1024, WRITE)]), OK);
    assert_eq!(driver.get(DATA, 1024), [pattern(512), vec![0; 512]].concat());
}

#[test]
fn what_is_not_on_the_disk_is_refused_and_nothing_grows() {
    let file = image(IMAGE);
    let mut driver = driver(&file);
    for sector in [
        SECTORS,
        SECTORS - 1,
        u64::MAX,
        u64::MAX - 1,
        u64::MAX / 512,
        u64::MAX / 512 + 1,
        1 << 55,
        (1 << 55) + 1,
        (1 << 63) / 512,
    ] {
        let data = [(DATA, 1024, WRITE)];
        assert_eq!(ask(&mut driver, kind::IN, sector, &data), (IOERR, 0), "{sector}");
        assert_eq!(ask(&mut driver, kind::OUT, sector, &[(DATA, 1024, 0)]), (IOERR, 1));
    }
    for length in [1, 511, 513, 1023] {
        assert_eq!(status(&mut driver, kind::IN, 0, &[(DATA, length, WRITE)]), IOERR);
        assert_eq!(status(&mut driver, kind::OUT, 0, &[(DATA, length, 0)]), IOERR);
    }
    assert_eq!(file.metadata().unwrap().len(), SECTORS * 512);
    let mut bytes = vec![0; IMAGE];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, pattern(IMAGE));
    // Nothing at the very end is still on the disk.
    assert_eq!(ask(&mut driver, kind::IN, SECTORS, &[]), (OK, 1));
    assert_eq!(ask(&mut driver, kind::OUT, SECTORS + 1, &[]), (IOERR, 1));
}

#[test]
fn wrong_directions_and_unknown_requests_are_refused() {
    let file = image(4096);
    let mut driver = driver(&file);
    assert_eq!(status(&mut driver, kind::IN, 0, &[(DATA, 512, 0)]), IOERR);
    assert_eq!(status(&mut driver, kind::OUT, 0, &[(DATA, 512, WRITE)]), IOERR);
    let both = [(DATA, 512, 0), (DATA + 512, 512, WRITE)];
    for kind in [kind::IN, kind::OUT, kind::GET_ID, kind::DISCARD, kind::WRITE_ZEROES] {
        assert_eq!(status(&mut driver, kind, 0, &both), IOERR, "{kind}");
    }
    for kind in [2, 3, 5, 7, 9, 10, 12, 14, 15, 0x8000_0000, u32::MAX] {
        assert_eq!(status(&mut driver, kind, 0, &[(DATA, 512, WRITE)]), UNSUPP, "{kind}");
    }
    assert!(!driver.broken());
}

#[test]
fn a_read_only_disk_is_not_written() {
    let file = image(4096);
    let options = DiskOptions { read_only: true, ..Default::default() };
    let mut driver = Driver::started(disk(&file, &options), feature::READ_ONLY);
    assert_eq!(status(&mut driver, kind::OUT, 0, &[(DATA, 512, 0)]), IOERR);
    driver.put(RANGES, &range(0, 8, 0));
    for kind in [kind::DISCARD, kind::WRITE_ZEROES] {
        assert_eq!(status(&mut driver, kind, 0, &[(RANGES, 16, 0)]), UNSUPP, "not offered");
    }
    assert_eq!(status(&mut driver, kind::FLUSH, 0, &[]), OK);
    assert_eq!(status(&mut driver, kind::IN, 0, &[(DATA, 4096, WRITE)]), OK);
    assert_eq!(driver.get(DATA, 4096), pattern(4096));
}

#[test]
fn the_name_is_twenty_bytes() {
    let file = image(512);
    let options = DiskOptions { id: "0123456789012345678901234".to_owned(), ..Default::default() };
    let mut driver = Driver::started(disk(&file, &options), 0);
    driver.put(DATA, &[9; 32]);
    assert_eq!(ask(&mut driver, kind::GET_ID, 0, &[(DATA, 20, WRITE)]), (OK, 21));
    assert_eq!(driver.get(DATA, 21), b"01234567890123456789\x09");
    driver.put(DATA, &[9; 32]);
    assert_eq!(ask(&mut driver, kind::GET_ID, 0, &[(DATA, 3, WRITE)]), (OK, 4));
    assert_eq!(driver.get(DATA, 4), b"012\x09");
    assert_eq!(ask(&mut driver, kind::GET_ID, 0, &[(DATA, 30, WRITE)]), (OK, 31));
    assert_eq!(driver.get(DATA + 20, 11), [&[0u8; 10][..], &[9]].concat());
}

#[test]
fn ranges_are_discarded_and_zeroed() {
    let file = image(64 * 512);
    let mut driver = driver(&file);
    let expect = |from: usize, to: usize| {
        let mut bytes = vec![0; 64 * 512];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let mut expected = pattern(64 * 512);
        expected[from * 512..to * 512].fill(0);
        assert_eq!(bytes, expected);
        file.write_all_at(&pattern(64 * 512), 0).unwrap();
    };
    for flags in [0, 1] {
        driver.put(RANGES, &range(3, 11, flags));
        assert_eq!(ask(&mut driver, kind::WRITE_ZEROES, 0, &[(RANGES, 16, 0)]), (OK, 1));
        expect(3, 14);
    }
    driver.put(RANGES, &[range(8, 16, 0), range(24, 8, 0), range(0, 0, 0)].concat());
    assert_eq!(ask(&mut driver, kind::DISCARD, 0, &[(RANGES, 48, 0)]), (OK, 1));
    expect(8, 32);
    assert_eq!(file.metadata().unwrap().len(), 64 * 512);
}

#[test]
fn ranges_beyond_limits_are_refused() {
    let file = image(64 * 512);
    file.set_len(8 << 30).unwrap();
    let mut driver = driver(&file);
    let sectors = (8 << 30) / 512;
    let mut one = |kind, range: Vec<u8>| {
        driver.put(RANGES, &range);
        let length = u32::try_from(range.len()).unwrap();
        status(&mut driver, kind, 0, &[(RANGES, length, 0)])
    };
    for kind in [kind::DISCARD, kind::WRITE_ZEROES] {
        assert_eq!(one(kind, range(sectors, 1, 0)), IOERR);
        assert_eq!(one(kind, range(u64::MAX, 1, 0)), IOERR);
        assert_eq!(one(kind, range(u64::MAX, u32::MAX, 0)), IOERR);
        assert_eq!(one(kind, range(1 << 55, 8, 0)), IOERR);
        assert_eq!(one(kind, range(0, (1 << 22) + 1, 0)), IOERR);
        assert_eq!(one(kind, range(0, 1, 2)), UNSUPP);
        assert_eq!(one(kind, range(0, 1, 1 << 31)), UNSUPP);
        assert_eq!(one(kind, range(0, 1, 0)[..15].to_vec()), IOERR);
        assert_eq!(one(kind, vec![]), IOERR);
        assert_eq!(one(kind, vec![0; 17 * 16]), IOERR);
    }
    assert_eq!(one(kind::DISCARD, range(0, 1, 1)), UNSUPP);
    assert_eq!(one(kind::WRITE_ZEROES, range(0, (1 << 16) + 1, 0)), IOERR);
    assert_eq!(one(kind::WRITE_ZEROES, vec![0; 32]), IOERR);
    assert_eq!(one(kind::DISCARD, range(0, 1 << 22, 0)), OK);
}

#[test]
fn without_its_features_a_driver_has_no_discard() {
    let file = image(4096);
    let mut driver = Driver::started(disk(&file, &DiskOptions::default()), 0);
    driver.put(RANGES, &range(0, 8, 0));
    for kind in [kind::DISCARD, kind::WRITE_ZEROES] {
        assert_eq!(status(&mut driver, kind, 0, &[(RANGES, 16, 0)]), UNSUPP);
    }
    // Writes are through to the disk; that they work is what can be seen.
    driver.put(DATA, &[5; 512]);
    assert_eq!(status(&mut driver, kind::OUT, 0, &[(DATA, 512, 0)]), OK);
    assert_eq!(status(&mut driver, kind::IN, 0, &[(DATA + 512, 512, WRITE)]), OK);
    assert_eq!(driver.get(DATA + 512, 512), [5; 512]);
}

#[test]
fn chains_may_be_split_anywhere_and_buffers_lie_anywhere() {
    let file = image(4096);
    let mut driver = driver(&file);
    driver.put(HEADER, &header(kind::IN, 1));
    driver.put(STATUS, &[0xee; 2]);
    // A header in three pieces, odd data with empty pieces between, data and status in one.
    let head = driver.chain(
        0,
        &[
            (HEADER, 1, 0),
            (HEADER + 1, 0, 0),
            (HEADER + 1, 14, 0),
            (HEADER + 15, 1, 0),
            (DATA + 1, 511, WRITE),
            (DATA, 0, WRITE),
            (DATA + 0x1003, 514, WRITE),
        ],
    );
    driver.kick(0);
    assert_eq!(driver.used(0), (head, 1025));
    let expected = &pattern(2048)[512..1536];
    assert_eq!(driver.get(DATA + 1, 511), expected[..511]);
    assert_eq!(driver.get(DATA + 0x1003, 513), expected[511..]);
    assert_eq!(driver.get(DATA + 0x1003 + 513, 1), [OK]);
    // Header and data in one buffer.
    driver.put(HEADER, &header(kind::OUT, 0));
    driver.put(HEADER + 16, &[6; 512]);
    driver.chain(0, &[(HEADER, 16 + 512, 0), (STATUS, 1, WRITE)]);
    driver.kick(0);
    driver.used(0);
    assert_eq!(driver.get(STATUS, 2), [OK, 0xee]);
    let mut bytes = [0; 513];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes[..512], bytes[512]), (&[6; 512][..], pattern(513)[512]));
    // The header's last piece lies in the status byte's place, and data covers the header.
    driver.put(HEADER, &header(kind::IN, 0));
    driver.chain(0, &[(HEADER, 16, 0), (HEADER, 512, WRITE), (HEADER, 1, WRITE)]);
    driver.kick(0);
    driver.used(0);
    assert_eq!(driver.get(HEADER, 512), [&[OK][..], &[6; 511]].concat());
}

#[test]
fn an_indirect_table_is_followed_once() {
    let file = image(4096);
    let mut driver = driver(&file);
    let table = DATA + 0x4000;
    driver.put(HEADER, &header(kind::IN, 0));
    let chain = [
        bytes_of((HEADER, 16, NEXT, 1)),
        bytes_of((DATA, 512, NEXT | WRITE, 2)),
        bytes_of((STATUS, 1, WRITE, 0)),
    ];
    driver.put(table, &chain.concat());
    driver.chain(0, &[(table, 48, INDIRECT)]);
    driver.kick(0);
    assert_eq!(driver.used(0).1, 513);
    assert_eq!(driver.get(DATA, 512), pattern(512));
    // A table in itself.
    driver.put(table, &bytes_of((table, 48, INDIRECT, 0)));
    driver.chain(0, &[(table, 48, INDIRECT)]);
    driver.kick(0);
    driver.wait_broken();
}

/// Each leaves the device asking for a reset, after which it works.
#[test]
fn chains_that_can_not_be_answered_stop_the_device() {
    let good = (HEADER, 16, 0);
    let answer = (STATUS, 1, WRITE);
    let cases: &[&[(u64, u32, u16)]] = &[
        &[good],
        &[answer],
        &[(HEADER, 15, 0), answer],
        &[good, (STATUS, 0, WRITE)],
        &[answer, good],
        &[good, answer, (DATA, 512, 0)],
        &[(HEADER, 0, 0), answer],
        &[good, (MEMORY, 512, WRITE), answer],
        &[good, (MEMORY - 1, 512, WRITE), answer],
        &[good, (u64::MAX, 512, WRITE), answer],
        &[good, (u64::MAX - 511, 512, WRITE), answer],
        &[good, (DATA, u32::MAX, WRITE), answer],
        &[(1 << 63, 16, 0), answer],
        &[good, (1 << 40, 1, WRITE)],
    ];
    let file = image(4096);
    let mut driver = driver(&file);
    for case in cases {
        driver.put(HEADER, &header(kind::IN, 0));
        driver.chain(0, case);
        driver.kick(0);
        driver.wait_broken();
        assert_eq!(driver.used_count(0), 0, "{case:x?}");
        driver.start(ALL);
        assert_eq!(status(&mut driver, kind::IN, 0, &[(DATA, 512, WRITE)]), OK);
        driver.start(ALL);
    }
}

#[test]
fn loops_end() {
    let file = image(4096);
    let mut driver = driver(&file);
    driver.put(HEADER, &header(kind::IN, 0));
    driver.descriptor(0, 0, (HEADER, 16, NEXT, 1));
    driver.descriptor(0, 1, (DATA, 512, NEXT | WRITE, 1));
    driver.offer(0, 0);
    driver.kick(0);
    // Cut off at the ring's size it is a request whose last byte is taken for its status, and what
    // is before it is no whole number of sectors.
    assert_eq!(driver.used(0).1, 0);
    driver.descriptor(0, 0, (HEADER, 16, NEXT, 0));
    driver.offer(0, 0);
    driver.kick(0);
    driver.wait_broken();
    driver.start(ALL);
    driver.set_available(0, 1000);
    driver.kick(0);
    driver.wait_broken();
    driver.start(ALL);
    driver.offer(0, u16::MAX);
    driver.kick(0);
    driver.wait_broken();
}

#[test]
fn many_pieces_and_much_data_are_refused() {
    let file = image(0);
    file.set_len(1 << 40).unwrap();
    let mut driver = driver(&file);
    // 65 MiB, by way of the same 1 MiB of memory again and again.
    let table = FREE;
    let mut chain = bytes_of((STATUS + 0x10_0000, 16, NEXT, 1));
    for index in 1..=65 {
        chain.extend(bytes_of((0x20_0000, 1 << 20, NEXT | WRITE, index + 1)));
    }
    chain.extend(bytes_of((0x30_0000, 1, WRITE, 0)));
    driver.put(STATUS + 0x10_0000, &header(kind::IN, 0));
    driver.put(table, &chain);
    driver.chain(0, &[(table, u32::try_from(chain.len()).unwrap(), INDIRECT)]);
    driver.kick(0);
    driver.used(0);
    assert_eq!(driver.get(0x30_0000, 1), [IOERR]);
    // More pieces than the host's kernel takes.
    let mut chain = bytes_of((STATUS + 0x10_0000, 16, NEXT, 1));
    for index in 1..=1100 {
        chain.extend(bytes_of((0x20_0000, 512, NEXT | WRITE, index + 1)));
    }
    driver.put(table, &chain);
    driver.chain(0, &[(table, u32::try_from(chain.len()).unwrap(), INDIRECT)]);
    driver.kick(0);
    driver.wait_broken();
}

#[test]
fn the_queue_goes_round_many_times() {
    let file = image(IMAGE);
    let mut driver = driver(&file);
    for round in 0..100u64 {
        // Five requests of three descriptors at once, writes that go to workers among them.
        let sector = round % 32;
        let byte = u8::try_from(round).unwrap();
        driver.put(DATA, &[byte; 512]);
        for index in 0..5 {
            let write = index % 2 == 1;
            let at = HEADER + 16 * index;
            let kind = if write { kind::OUT } else { kind::IN };
            driver.put(at, &header(kind, if write { sector } else { 40 }));
            let data =
                if write { (DATA, 512, 0) } else { (DATA + 0x1000 * (1 + index), 512, WRITE) };
            driver.put(STATUS + index, &[0xee]);
            driver.chain(0, &[(at, 16, 0), data, (STATUS + index, 1, WRITE)]);
        }
        driver.kick(0);
        for _ in 0..5 {
            driver.used(0);
        }
        assert_eq!(driver.get(STATUS, 5), [OK; 5]);
        let mut back = [0; 512];
        file.read_exact_at(&mut back, sector * 512).unwrap();
        assert_eq!(back, [byte; 512]);
        assert_eq!(driver.get(DATA + 0x1000, 512), pattern(41 * 512)[40 * 512..]);
    }
    // One chain made available again and again, faster than it is answered.
    driver.put(HEADER, &header(kind::OUT, 0));
    driver.descriptor(0, 0, (HEADER, 16, NEXT, 1));
    driver.descriptor(0, 1, (DATA, 512, NEXT, 2));
    driver.descriptor(0, 2, (STATUS, 1, WRITE, 0));
    let before = driver.used_count(0);
    for _ in 0..1000 {
        driver.offer(0, 0);
        driver.kick(0);
        if driver.broken() {
            break;
        }
    }
    // Its thread may not have had its turn yet.
    let moved = || driver.broken() || driver.used_count(0) != before;
    assert!(wait(Duration::from_secs(10), moved));
}

#[test]
fn a_reset_in_the_middle_leaves_a_disk_that_works() {
    let file = image(0);
    file.set_len(64 << 20).unwrap();
    let mut driver = driver(&file);
    for _ in 0..50 {
        driver.put(HEADER, &header(kind::OUT, 0));
        for _ in 0..5 {
            driver.chain(0, &[(HEADER, 16, 0), (DATA, 1 << 20, 0), (STATUS, 1, WRITE)]);
        }
        driver.kick(0);
        driver.reset();
        // Nothing of before is answered after a reset.
        let before = driver.used_count(0);
        std::thread::sleep(Duration::from_micros(300));
        assert_eq!(driver.used_count(0), before);
        driver.start(ALL);
    }
    assert_eq!(status(&mut driver, kind::IN, 8, &[(DATA, 512, WRITE)]), OK);
    driver.chain(0, &[(HEADER, 16, 0), (DATA, 1 << 20, 0), (STATUS, 1, WRITE)]);
    driver.kick(0);
    // The machine ends with a request under way.
    driver.transport.stop();
}

#[test]
fn requests_wait_for_their_turn_and_wake_by_themselves() {
    let file = image(IMAGE);
    let rate = Rate { size: 1024, refill: Duration::from_millis(100), burst: 1024 };
    let limits = Limits { bytes: Some(rate), operations: None };
    let options = DiskOptions { limits, ..Default::default() };
    let mut driver = Driver::started(disk(&file, &options), ALL);
    let begun = Instant::now();
    driver.put(HEADER, &header(kind::IN, 0));
    for _ in 0..5 {
        driver.chain(0, &[(HEADER, 16, 0), (DATA, 1024, WRITE), (STATUS, 1, WRITE)]);
    }
    driver.kick(0);
    for _ in 0..5 {
        driver.used(0);
    }
    // Two at once, the other three 100 ms each.
    assert!(begun.elapsed() >= Duration::from_millis(295), "{:?}", begun.elapsed());
    driver.put(HEADER, &header(kind::IN, 0));
    for _ in 0..5 {
        driver.chain(0, &[(HEADER, 16, 0), (DATA, 1024, WRITE), (STATUS, 1, WRITE)]);
    }
    driver.kick(0);
    driver.used(0);
    driver.reset();
    driver.start(ALL);
    assert_eq!(status(&mut driver, kind::IN, 0, &[(DATA, 512, WRITE)]), OK);
}

#[test]
fn what_can_not_be_a_disk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, [0; 512]).unwrap();
    let writable = DiskOptions::default();
    let read_only = DiskOptions { read_only: true, ..Default::default() };
    let open = || File::open(&path).unwrap();
    let open_writable = || File::options().read(true).write(true).open(&path).unwrap();
    let refuse = |file, options: &DiskOptions| Disk::new(file, options).map(drop).unwrap_err();
    assert!(matches!(refuse(File::open(dir.path()).unwrap(), &read_only), DiskError::Kind));
    assert!(matches!(refuse(File::open("/dev/null").unwrap(), &read_only), DiskError::Kind));
    assert!(matches!(refuse(open(), &writable), DiskError::Access));
    let only = File::options().write(true).open(&path).unwrap();
    assert!(matches!(refuse(only, &writable), DiskError::Access));
    let first = Disk::new(open(), &read_only).unwrap();
    let second = Disk::new(open(), &read_only).unwrap();
    assert!(matches!(refuse(open_writable(), &writable), DiskError::Busy));
    drop((first, second));
    let _first = Disk::new(open_writable(), &writable).unwrap();
    assert!(matches!(refuse(open_writable(), &writable), DiskError::Busy));
    assert!(matches!(refuse(open(), &read_only), DiskError::Busy));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever a driver asks in whatever form: it is answered, or the device asks for a reset;
    /// and the file never grows.
    #[test]
    fn any_request_is_answered_or_stops_the_device(
        requests in proptest::collection::vec((
            prop_oneof![Just(0u32), Just(1), Just(4), Just(8), Just(11), Just(13), any::<u32>()],
            prop_oneof![0..SECTORS + 2, any::<u64>()],
            proptest::collection::vec((
                prop_oneof![FREE..MEMORY + 600, any::<u64>()],
                prop_oneof![Just(0u32), Just(1), Just(16), Just(512), 0..3000u32, any::<u32>()],
                0..4u16,
            ), 0..3),
            proptest::collection::vec(any::<u8>(), 32),
            any::<bool>(),
        ), 1..8),
    ) {
        let file = image(IMAGE);
        let mut driver = driver(&file);
        for (kind, sector, pieces, bytes, whole) in requests {
            driver.put(RANGES, &bytes);
            driver.put(HEADER, &header(kind, sector));
            let mut chain = if whole { vec![(HEADER, 16, 0)] } else { vec![] };
            // Bit 0 would lead to the next descriptor, which `chain` does.
            chain.extend(pieces.iter().map(|&(at, length, flags)| (at, length, flags & WRITE)));
            if kind > 8 {
                chain.insert(1.min(chain.len()), (RANGES, 16, 0));
            }
            if whole {
                chain.push((STATUS, 1, WRITE));
            }
            if chain.is_empty() {
                continue;
            }
            driver.chain(0, &chain);
            driver.kick(0);
            let begun = Instant::now();
            while driver.used_within(0, Duration::from_micros(100)).is_none() {
                prop_assert!(begun.elapsed() < Duration::from_secs(10), "no answer");
                if driver.broken() {
                    driver.start(ALL);
                    break;
                }
            }
            prop_assert_eq!(file.metadata().unwrap().len(), SECTORS * 512);
        }
        prop_assert!(SIZE >= 8);
        driver.start(ALL);
        prop_assert_eq!(status(&mut driver, kind::IN, 0, &[(DATA, 512, WRITE)]), OK);
    }
}
