//! What is removed while it is in use, and what nobody writes to.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

const HOUR: u64 = 3_600_000_000;

fn look_after(spool: &Spool, later: u64) {
    let inner = &spool.shared.inner;
    inner.look_after(crate::clock::Moment::now().steady + later);
}

/// The upkeep thread makes it.
fn wait_for_a_spare(spool: &Spool) {
    while spool.shared.inner.catalog.lock().spare.is_none() {
        thread::yield_now();
    }
}

#[test]
fn what_was_appended_before_a_turn_over_leaves_the_disk_with_its_segments() {
    let dir = temp_dir();
    let spool = open(&dir, SMALL);
    let (mut busy, mut quiet, idle) = (spool.writer(), spool.writer(), spool.writer());
    append(&mut busy, 0..10);
    append(&mut quiet, 10..12);
    let before = spool.turn_over().expect("the disk has room");
    assert_eq!(before.len(), 2, "the idle one has nothing to give up");
    append(&mut busy, 20..25);
    append(&mut quiet, 25..27);
    let (mut numbers, ends) = read_all(&spool);
    numbers.sort_unstable();
    assert_eq!(numbers, [(0..12).collect::<Vec<_>>(), (20..27).collect()].concat());
    assert_eq!(ends.iter().filter(|end| **end == ReadEnd::Sealed).count(), 2, "{ends:?}");
    for id in before {
        spool.remove(id).unwrap();
        assert!(!path_of(&spool, id).exists());
    }
    drop((busy, quiet, idle));
}

#[test]
fn damaged_segments_can_be_removed_before_their_time() {
    let dir = temp_dir();
    let spool = open(&dir, SMALL);
    let mut writer = spool.writer();
    append(&mut writer, 0..3);
    drop(writer);
    let id = spool.segments()[0].id;
    let path = spool.set_aside(id, FIRST).unwrap();
    spool.remove_damaged().unwrap();
    assert!(!path.exists());
    assert_eq!(spool.status().segments, 0);
}

#[test]
fn a_directory_removed_while_it_is_used_is_made_anew_and_no_open_segment_is_lost() {
    let dir = temp_dir();
    let spool = open(&dir, SMALL);
    let mut writer = spool.writer();
    append(&mut writer, 0..10);
    wait_for_a_spare(&spool);
    fs::remove_dir_all(spool.dir()).unwrap();
    append(&mut writer, 10..20);
    look_after(&spool, 0);
    append(&mut writer, 20..30);

    assert_eq!(read_all(&spool), ((0..30).collect(), vec![ReadEnd::Sealed, ReadEnd::Open]));
    let [lost, new] = spool.segments()[..] else { panic!("{:?}", spool.segments()) };
    assert!(!path_of(&spool, lost.id).exists() && path_of(&spool, new.id).exists());
    let error = Spool::open(dir.path(), SMALL).unwrap_err();
    assert!(matches!(error, SpoolError::Taken { .. }), "it is locked anew: {error}");
    spool.remove(lost.id).unwrap();
    assert_eq!((spool.status().dropped, spool.status().missing), (0, 0));
    drop((writer, spool));
    assert!(read_all(&open(&dir, SMALL)).0.into_iter().eq(20..30));
}

#[test]
fn a_complete_segment_that_is_removed_unread_is_counted_and_keeps_nobody_busy() {
    let dir = temp_dir();
    let spool = open(&dir, SMALL);
    let mut writer = spool.writer();
    append(&mut writer, 0..200);
    let gone = spool.segments()[0].id;
    fs::remove_file(path_of(&spool, gone)).unwrap();
    look_after(&spool, 0);
    assert_eq!(spool.status().missing, 1);
    assert!(spool.segments().iter().all(|segment| segment.id != gone));
}

#[test]
fn a_quiet_writer_keeps_no_record_that_was_read_long_ago() {
    let dir = temp_dir();
    let spool = open(&dir, SMALL);
    let mut writer = spool.writer();
    append(&mut writer, 0..3);
    let id = only_segment(&spool).id;
    wait_for_a_spare(&spool);
    look_after(&spool, 2 * HOUR);
    assert!(only_segment(&spool).open, "it has something to be read");
    let end = spool.read(id, 0, 9, &mut Vec::new()).unwrap().next;
    spool.read(id, end, 9, &mut Vec::new()).unwrap();
    look_after(&spool, HOUR / 2);
    assert!(only_segment(&spool).open, "it is not old");
    look_after(&spool, 2 * HOUR);
    assert!(!only_segment(&spool).open);
    spool.remove(id).unwrap();
    append(&mut writer, 3..5);
    assert_eq!(read_all(&spool), (vec![3, 4], vec![ReadEnd::Open]));
}

#[test]
fn a_writer_loses_nothing_while_its_segments_are_taken_away() {
    let dir = temp_dir();
    let spool = open(&dir, SpoolOptions { segment_bytes: 64 << 10, ..SMALL });
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut writer = spool.writer();
        let done = &done;
        scope.spawn(move || {
            append(&mut writer, 0..2_000);
            done.store(true, Relaxed);
        });
        while !done.load(Relaxed) {
            for segment in spool.segments().into_iter().filter(|segment| segment.open) {
                let _ = fs::remove_file(path_of(&spool, segment.id));
            }
            look_after(&spool, 0);
        }
    });
    let status = spool.status();
    assert_eq!((status.dropped, status.missing, status.evicted), (0, 0, 0), "{status:?}");
    assert!(read_all(&spool).0.into_iter().eq(0..2_000));
}

#[test]
fn how_old_a_backlog_is_costs_one_look_at_each_segment() {
    let dir = temp_dir();
    let spool = open(&dir, SMALL);
    let mut writer = spool.writer();
    append(&mut writer, 7..8);
    let id = only_segment(&spool).id;
    drop(writer);
    assert_eq!(spool.status().oldest, Some(7));
    fs::rename(path_of(&spool, id), dir.path().join("away")).unwrap();
    spool.shared.inner.catalog.lock().reading = None;
    assert_eq!(spool.status().oldest, Some(7), "it is not opened again");
    fs::rename(dir.path().join("away"), path_of(&spool, id)).unwrap();
    let end = spool.read(id, 0, 9, &mut Vec::new()).unwrap().next;
    spool.read(id, end, 9, &mut Vec::new()).unwrap();
    assert_eq!(spool.status().oldest, None);
}

#[test]
fn a_damaged_segment_goes_when_its_records_are_older_than_any_that_are_kept() {
    let dir = temp_dir();
    let options = SpoolOptions { keep_damaged: Duration::from_hours(30 * 24), ..SMALL };
    let damaged = dir.path().join("spool/damaged");
    let days = |days: u64| {
        let now = u64::try_from(crate::clock::Moment::now().wall).unwrap();
        UNIX_EPOCH + Duration::from_micros(now) - Duration::from_hours(days * 24)
    };
    fs::create_dir_all(damaged.join("old-0.segment")).unwrap();
    for (name, age) in [("old-64.segment", 31), ("young-64.segment", 29)] {
        fs::write(damaged.join(name), "records").unwrap();
        let file = fs::File::options().write(true).open(damaged.join(name)).unwrap();
        file.set_modified(days(age)).unwrap();
    }
    fs::File::open(damaged.join("old-0.segment")).unwrap().set_modified(days(31)).unwrap();
    let spool = open(&dir, options);
    look_after(&spool, 0);
    let left: Vec<_> =
        fs::read_dir(damaged).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["young-64.segment"]);
    assert_eq!(spool.shared.inner.catalog.lock().aside.len(), 1);
}
