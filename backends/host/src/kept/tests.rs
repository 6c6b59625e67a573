//! A life of what is kept, accidents and two at once.

use moat_core::sandbox::ExitStatus;

use super::*;

fn identity(id: &str, name: &str, project: &str) -> Identity {
    let here = PathBuf::from("/srv");
    let requested = Resolved::for_command(vec!["true".into()], here, None).unwrap();
    let decided = serde_json::json!({
        "isolation": "container",
        "reason": { "by": "strongest" },
        "requested": "auto",
        "floor": { "isolation": "container", "by": null },
        "policy": "dev", "rules": [], "candidates": [], "warnings": [],
    });
    Identity {
        id: id.to_owned(),
        name: name.parse().unwrap(),
        project: project.parse().unwrap(),
        created: Timestamp::from_second(7).unwrap(),
        removed_at_end: false,
        requested,
        decided: serde_json::from_value(decided).unwrap(),
        effective: Effective { backend: "container".into(), steps: vec![], warnings: vec![] },
    }
}

fn shelf() -> (tempfile::TempDir, Shelf) {
    let data = tempfile::tempdir().unwrap();
    let shelf = Shelf::below(data.path());
    (data, shelf)
}

fn only(shelf: &Shelf) -> Kept {
    let mut all = shelf.list().unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

const RUNNING: Mark = Mark { phase: Phase::Running, pid: None, exit: None };

#[test]
fn a_life_is_told_as_it_is_until_it_is_removed() {
    let (_data, shelf) = shelf();
    assert_eq!(shelf.list().unwrap(), []);
    let identity = identity("0123456789ab", "web", "shop");
    let mut keeper = shelf.begin(&identity).unwrap();
    assert_eq!(only(&shelf).phase(), Phase::Creating);
    keeper.mark(Mark { phase: Phase::Starting, ..RUNNING }).unwrap();
    keeper.mark(Mark { pid: Some(std::process::id()), ..RUNNING }).unwrap();
    let found = only(&shelf);
    assert_eq!((found.phase(), found.lives), (Phase::Running, true));
    assert_eq!(found.identity, Some(identity));
    let state = found.state.unwrap();
    assert_eq!(state.process, ProcessId::own());
    assert!(state.started.is_some() && state.ended.is_none());
    assert!(matches!(shelf.remove(&found.dir), Err(KeptError::InUse { .. })));

    let exit = Exit { status: ExitStatus::Code(3), oom: false };
    keeper.mark(Mark { phase: Phase::Ended, pid: None, exit: Some(exit) }).unwrap();
    keeper.mark(Mark { phase: Phase::Destroyed, pid: None, exit: Some(exit) }).unwrap();
    let fault = Fault::new(Code::Container, "lost").because(io::Error::other("why"));
    keeper.end(Some(&fault), true).unwrap();
    let found = only(&shelf);
    assert_eq!((found.phase(), found.lives), (Phase::Ended, false));
    let state = found.state.unwrap();
    assert_eq!((state.exit, state.process, state.output_lost), (Some(exit), None, true));
    assert_eq!(state.fault.as_deref(), Some("lost: why"));
    assert!(state.ended >= state.started);
    shelf.remove(&found.dir).unwrap();
    shelf.remove(&found.dir).unwrap();
    assert_eq!(shelf.list().unwrap(), []);
}

#[test]
fn what_lost_its_monitor_has_ended_whatever_was_written() {
    let (_data, shelf) = shelf();
    let mut keeper = shelf.begin(&identity("0123456789ab", "web", "shop")).unwrap();
    keeper.mark(RUNNING).unwrap();
    drop(keeper);
    let found = only(&shelf);
    assert_eq!((found.phase(), found.lives), (Phase::Ended, false));
    assert_eq!(found.state.unwrap().exit, None);
}

#[test]
fn a_name_is_one_instances_within_its_project() {
    let (_data, shelf) = shelf();
    let begin = |id, name, project| shelf.begin(&identity(id, name, project));
    let first = begin("00000000000a", "web", "shop").unwrap();
    let _other = begin("00000000000b", "web", "bank").unwrap();
    let _another = begin("00000000000c", "db", "shop").unwrap();
    let refused = |lives: bool, verb: &str| {
        let refused = begin("00000000000d", "web", "shop").unwrap_err();
        assert!(
            matches!(&refused, KeptError::Taken { id, lives: told, .. }
                if id == "00000000000a" && *told == lives),
            "{refused}"
        );
        let fault = Fault::from(refused);
        assert_eq!(fault.code, Code::InUse);
        assert!(fault.hint.unwrap().contains(verb));
    };
    refused(true, "moat stop web");
    drop(first);
    refused(false, "moat rm web");
    shelf.remove(&shelf.instances.join("00000000000a")).unwrap();
    begin("00000000000d", "web", "shop").unwrap();
}

#[test]
fn what_can_not_be_read_is_not_taken_for_half_made() {
    let (_data, shelf) = shelf();
    drop(shelf.begin(&identity("00000000000a", "web", "shop")).unwrap());
    let dir = shelf.instances.join("00000000000a");
    fs::remove_file(dir.join(IDENTITY)).unwrap();
    // EISDIR.
    fs::create_dir(dir.join(IDENTITY)).unwrap();
    assert_eq!(only(&shelf).identity, None);
    let _keeper = shelf.begin(&identity("00000000000b", "db", "shop")).unwrap();
    assert!(dir.join(LOCK).exists(), "another's start has removed it");
}

#[test]
fn what_is_damaged_can_be_removed_and_half_made_goes_by_itself() {
    let (_data, shelf) = shelf();
    let keeper = shelf.begin(&identity("00000000000a", "web", "shop")).unwrap();
    drop(keeper);
    let dir = shelf.instances.join("00000000000a");
    fs::write(dir.join(STATE), "{\"phase\":\"runn").unwrap();
    assert_eq!(only(&shelf).state, None);
    fs::write(dir.join(IDENTITY), "").unwrap();
    let found = only(&shelf);
    assert_eq!((found.identity.as_ref(), found.id()), (None, "00000000000a".to_owned()));
    shelf.remove(&dir).unwrap();

    // Killed before its identity was written, or while it was removed.
    for (number, name) in [LOCK, "log", ".instance.json"].into_iter().enumerate() {
        let dir = shelf.instances.join(format!("half{number}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(name), "").unwrap();
    }
    assert_eq!(shelf.list().unwrap(), []);
    let _keeper = shelf.begin(&identity("00000000000b", "web", "shop")).unwrap();
    let left: Vec<_> = shelf.dirs().unwrap();
    assert_eq!(left, [shelf.instances.join("00000000000b")]);
}

#[test]
fn of_two_at_once_one_gets_the_name() {
    let (_data, shelf) = shelf();
    let barrier = std::sync::Barrier::new(8);
    let got = std::thread::scope(|scope| {
        let begun: Vec<_> = (0..8)
            .map(|number| {
                let (shelf, barrier) = (&shelf, &barrier);
                scope.spawn(move || {
                    let identity = identity(&format!("{number:012x}"), "web", "shop");
                    barrier.wait();
                    shelf.begin(&identity)
                })
            })
            .collect();
        begun.into_iter().map(|begun| begun.join().unwrap()).filter(Result::is_ok).count()
    });
    assert_eq!(got, 1);
    assert_eq!(shelf.dirs().unwrap().len(), 1);
}
