use super::*;
use moat_core::lifecycle::Phase;

fn header(id: &str, monitor: ProcessId) -> Header {
    let decision = serde_json::json!({
        "isolation": "container",
        "reason": { "by": "strongest" },
        "requested": "auto",
        "floor": { "isolation": "container", "by": null },
        "policy": "dev", "rules": [], "candidates": [], "warnings": [],
    });
    Header {
        id: id.to_owned(),
        name: serde_json::from_value("api".into()).unwrap(),
        project: None,
        backend: "container".to_owned(),
        monitor,
        memory: Bytes::mib(512),
        decision: serde_json::from_value(decision).unwrap(),
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let runtime = tempfile::tempdir().unwrap();
    let store = Store::open(runtime.path()).unwrap();
    (runtime, store)
}

fn begin(store: &Store, id: &str) -> FileJournal {
    store.begin(&header(id, ProcessId::own().unwrap())).unwrap()
}

fn orphans(store: &Store) -> Vec<Orphan> {
    store.orphans().unwrap().collect()
}

#[test]
fn a_journal_is_read_back_and_a_cut_line_is_passed_over() {
    let (_runtime, store) = store();
    let header = header("0123456789ab", ProcessId::own().unwrap());
    let mut journal = store.begin(&header).unwrap();
    let mark = Mark { phase: Phase::Running, pid: Some(7), exit: None };
    journal.record(mark).unwrap();
    journal.file.write_all(b"{\"phase\":\"ended\"").unwrap();

    let found = store.list().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].header, Some(header));
    assert_eq!(found[0].mark, Some(mark));
}

#[test]
fn only_what_lost_its_monitor_is_an_orphan() {
    let (_runtime, store) = store();
    let living = begin(&store, "aaaaaaaaaaaa");
    drop(begin(&store, "bbbbbbbbbbbb"));
    assert_eq!(store.committed_memory().unwrap(), Bytes::mib(512), "orphans hold no memory");

    let held = orphans(&store);
    let dirs: Vec<_> = held.iter().map(|orphan| orphan.found.dir.clone()).collect();
    assert_eq!(dirs, [store.instances.join("bbbbbbbbbbbb")]);
    assert!(held[0].begun);
    assert!(orphans(&store).is_empty(), "a second sweeper must stand back");
    drop(held);
    assert_eq!(orphans(&store).len(), 1, "one that is killed leaves it to the next");
    drop(living);
    assert_eq!(orphans(&store).len(), 2);
}

#[test]
fn a_pid_says_nothing_of_who_lives() {
    let (_runtime, store) = store();
    // As seen by a moat in another pid namespace, where this pid is another's or nobody's.
    let monitor = ProcessId { pid: std::process::id(), start_time: 1 };
    let _living = store.begin(&header("aaaaaaaaaaaa", monitor)).unwrap();
    assert!(orphans(&store).is_empty());
    assert!(store.list().unwrap()[0].owned);
}

#[test]
fn one_known_to_live_is_not_looked_into() {
    let (runtime, store) = store();
    drop(begin(&store, "aaaaaaaaaaaa"));
    let known = living::announce(runtime.path(), "aaaaaaaaaaaa");
    assert!(orphans(&store).is_empty());
    drop(known);
    assert_eq!(orphans(&store).len(), 1);
}

#[test]
fn what_is_half_forgotten_is_found_again() {
    let (_runtime, store) = store();
    for id in ["aaaaaaaaaaaa", "bbbbbbbbbbbb"] {
        let journal = begin(&store, id);
        fs::write(journal.dir().join("container.json"), "{}").unwrap();
    }
    // Never by moat itself, which removes the journal last.
    fs::remove_file(store.instances.join("aaaaaaaaaaaa").join(JOURNAL)).unwrap();
    fs::create_dir(store.instances.join("cccccccccccc")).unwrap();
    let found = orphans(&store);
    assert_eq!(found.len(), 2, "an empty directory is just removed");
    for orphan in found {
        assert!(orphan.begun);
        forget(&orphan.found.dir).unwrap();
    }
    assert_eq!(store.list().unwrap(), []);
}

/// One thread begins instances, the other takes everything that it can get hold of for an
/// orphan: each that was begun must stay.
#[test]
fn a_sweeper_never_takes_what_is_just_being_begun() {
    let (_runtime, store) = store();
    let done = std::sync::atomic::AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let mut taken = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for orphan in store.orphans().unwrap() {
                    assert!(!orphan.begun, "{orphan:?}");
                    forget(&orphan.found.dir).unwrap();
                    taken += 1;
                }
            }
            taken
        });
        for number in 0..500 {
            let journal = begin(&store, &format!("{number:012x}"));
            assert!(Found::look(journal.dir().to_owned()).header.is_some());
            Journal::forget(journal).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        sweeper.join().unwrap()
    });
    println!("{taken} were taken before they were locked, and made again");
}

#[test]
fn a_truncated_or_binary_journal_is_found_without_header() {
    let (_runtime, store) = store();
    for (id, text) in [("a", &b"{\"id\":"[..]), ("b", b"\xff\xfe\0\n"), ("c", b"")] {
        let dir = store.instances.join(id);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(JOURNAL), text).unwrap();
    }
    let found = store.list().unwrap();
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|found| found.header.is_none() && found.mark.is_none()));
}
