use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::frame::{HEAD, Seed};
use super::segment::FIRST;
use super::*;
use crate::record::{Record, RecordRef, RecordVerdict, Reference};

mod care;
mod damage;

const SMALL: SpoolOptions = SpoolOptions {
    max_bytes: 1 << 20,
    segment_bytes: SpoolOptions::MIN_SEGMENT_BYTES,
    durability: Durability::Process,
    keep_damaged: std::time::Duration::MAX,
};

fn temp_dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(dir: &TempDir, options: SpoolOptions) -> Spool {
    Spool::open(dir.path(), options).unwrap()
}

fn numbered(path: &[u8], at: i64) -> RecordRef<'_> {
    RecordRef {
        at,
        address: "2001:db8::1".parse().unwrap(),
        method: b"GET",
        path,
        status: 200,
        verdict: RecordVerdict::Allowed,
        sensitive: false,
        identity: None,
        user_agent: Some(b"curl/8.0"),
        reference: Reference::from_bits(at as u64).unwrap(),
    }
}

fn append(writer: &mut SpoolWriter, numbers: std::ops::Range<i64>) {
    for at in numbers {
        writer.append(Draft::of(&numbered(b"/path", at)));
    }
}

/// The numbers of all records, oldest segment first, and how each segment ends.
fn read_all(spool: &Spool) -> (Vec<i64>, Vec<ReadEnd>) {
    let mut records = Vec::new();
    let ends = spool
        .segments()
        .into_iter()
        .map(|segment| spool.read(segment.id, 0, usize::MAX, &mut records).unwrap().end)
        .collect();
    (records.iter().map(|record: &Record| record.at).collect(), ends)
}

fn only_segment(spool: &Spool) -> SegmentView {
    let segments = spool.segments();
    assert_eq!(segments.len(), 1);
    segments[0]
}

fn path_of(spool: &Spool, segment: SegmentId) -> PathBuf {
    segment::path_of(spool.dir(), segment)
}

#[test]
fn what_was_appended_can_be_read_while_its_segment_is_open_and_after() {
    let dir = temp_dir();
    let spool = open(&dir, SpoolOptions::default());
    let mut writer = spool.writer();
    append(&mut writer, 0..3);
    assert_eq!(read_all(&spool), (vec![0, 1, 2], vec![ReadEnd::Open]));
    assert_eq!(fs::metadata(path_of(&spool, only_segment(&spool).id)).unwrap().len(), 4 << 20);
    drop(writer);
    assert_eq!(read_all(&spool), (vec![0, 1, 2], vec![ReadEnd::Sealed]));
    assert!(only_segment(&spool).bytes < 512, "what was not needed is given back");
}

#[test]
fn a_reading_goes_on_where_the_last_one_stopped_even_in_another_process() {
    let dir = temp_dir();
    let spool = open(&dir, SMALL);
    let mut writer = spool.writer();
    append(&mut writer, 0..5);
    let id = only_segment(&spool).id;
    let mut records = Vec::new();
    let first = spool.read(id, 0, 2, &mut records).unwrap();
    assert_eq!(first.end, ReadEnd::More);
    drop((writer, spool));

    let spool = open(&dir, SMALL);
    let second = spool.read(id, first.next, 2, &mut records).unwrap();
    assert_eq!(second.end, ReadEnd::More);
    let last = spool.read(id, second.next, 2, &mut records).unwrap();
    assert_eq!(last.end, ReadEnd::Sealed);
    assert_eq!(spool.read(id, last.next, 2, &mut records).unwrap(), last);
    assert_eq!(spool.read(id, last.next + 100, 2, &mut records).unwrap().end, ReadEnd::Sealed);
    assert_eq!(records.iter().map(|record| record.at).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(records[0], Record::from(&numbered(b"/path", 0)));
}

#[test]
fn full_segments_are_sealed_and_come_oldest_first() {
    let dir = temp_dir();
    let spool = open(&dir, SMALL);
    let mut writer = spool.writer();
    append(&mut writer, 0..1000);
    let (numbers, ends) = read_all(&spool);
    assert!(numbers.into_iter().eq(0..1000));
    let (last, sealed) = ends.split_last().unwrap();
    assert_eq!(*last, ReadEnd::Open);
    assert!(sealed.len() > 5 && sealed.iter().all(|end| *end == ReadEnd::Sealed), "{sealed:?}");
    drop((writer, spool));
    assert!(read_all(&open(&dir, SMALL)).0.into_iter().eq(0..1000));
}

#[test]
fn a_segment_that_cannot_be_mapped_is_written_all_the_same() {
    let dir = temp_dir();
    drop(open(&dir, SMALL));
    let segment = segment::Segment::create(&dir.path().join("spool"), 64 << 10).unwrap().unmapped();
    for at in 0..500 {
        let mut draft = Draft::of(&numbered(b"/path", at));
        assert!(segment.claim(draft.size()));
        let position = segment.written();
        segment.put(position, draft.close(segment.seed, position)).unwrap();
        segment.release();
    }
    drop(segment);
    assert!(read_all(&open(&dir, SMALL)).0.into_iter().eq(0..500));
}

#[test]
fn a_segment_without_records_leaves_nothing_behind() {
    let dir = temp_dir();
    let spool = open(&dir, SMALL);
    let idle = spool.writer();
    assert_eq!(read_all(&spool), (vec![], vec![ReadEnd::Open]));
    drop(idle);
    assert_eq!(spool.segments(), []);
    drop(spool);
    let left: Vec<_> = fs::read_dir(dir.path().join("spool"))
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn a_directory_has_one_owner_and_the_error_names_it() {
    let dir = temp_dir();
    let spool = open(&dir, SMALL);
    let writer = spool.writer();
    drop(spool);
    let error = Spool::open(dir.path(), SMALL).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, SpoolError::Taken { .. }), "{message}");
    assert!(message.contains(dir.path().to_str().unwrap()), "{message}");
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    drop(writer);
    open(&dir, SMALL);
}

#[test]
fn a_segment_is_removed_only_when_its_writer_is_done() {
    let dir = temp_dir();
    let spool = open(&dir, SMALL);
    let mut writer = spool.writer();
    append(&mut writer, 0..1);
    let id = only_segment(&spool).id;
    assert!(matches!(spool.remove(id), Err(SpoolError::StillOpen(_))));
    drop(writer);
    spool.remove(id).unwrap();
    spool.remove(id).unwrap();
    assert!(!path_of(&spool, id).exists());
    assert!(matches!(spool.read(id, 0, 1, &mut Vec::new()), Err(SpoolError::Gone(_))));
}

/// A spool with an open segment of two records, and the bytes that a third one would add.
#[test]
fn past_its_bound_the_oldest_segment_goes_and_its_records_are_counted() {
    let dir = temp_dir();
    let options = SpoolOptions { max_bytes: 10 * SMALL.segment_bytes, ..SMALL };
    let spool = open(&dir, options);
    let mut writer = spool.writer();
    append(&mut writer, 0..100);
    // The reader is done with the first ten; they are not lost when their segment goes.
    let first = spool.segments()[0].id;
    let ten = spool.read(first, 0, 10, &mut Vec::new()).unwrap().next;
    spool.read(first, ten, 0, &mut Vec::new()).unwrap();
    append(&mut writer, 100..5000);
    // The spare is there once the upkeep thread is done with what had to go for it.
    while spool.shared.inner.catalog.lock().spare.is_none() {
        thread::yield_now();
    }
    let status = spool.status();
    let (numbers, _) = read_all(&spool);
    assert!(status.bytes <= options.max_bytes, "{status:?}");
    assert!(status.evicted > 1000, "{status:?}");
    assert!(numbers.iter().copied().eq(status.evicted as i64 + 10..5000), "{status:?}");
    assert_eq!((status.dropped, status.oldest), (0, numbers.first().copied()));
}

#[test]
fn damaged_segments_are_evicted_before_those_still_to_be_read() {
    let dir = temp_dir();
    let options = SpoolOptions { max_bytes: 4 * SMALL.segment_bytes, ..SMALL };
    let spool = open(&dir, options);
    let mut writer = spool.writer();
    append(&mut writer, 0..1);
    let damaged = only_segment(&spool).id;
    drop(writer);
    let path = spool.set_aside(damaged, FIRST).unwrap();
    let mut writer = spool.writer();
    for at in 1.. {
        append(&mut writer, at..at + 1);
        let full = spool.status().evicted > 0;
        if full {
            break;
        }
    }
    assert!(spool.shared.inner.catalog.lock().aside.is_empty());
    drop((writer, spool));
    assert!(!path.exists());
}

#[test]
fn open_segments_have_their_place_however_small_the_bound() {
    let dir = temp_dir();
    let spool = open(&dir, SpoolOptions { max_bytes: 1, ..SMALL });
    let mut writers = [spool.writer(), spool.writer(), spool.writer()];
    for (at, writer) in writers.iter_mut().enumerate() {
        append(writer, at as i64..at as i64 + 1);
    }
    let (mut numbers, _) = read_all(&spool);
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!(spool.status().dropped, 0);
}

#[test]
fn synced_segments_read_like_the_others() {
    let dir = temp_dir();
    let spool = open(&dir, SpoolOptions { durability: Durability::Power, ..SMALL });
    let mut writer = spool.writer();
    append(&mut writer, 0..300);
    assert!(read_all(&spool).0.into_iter().eq(0..300));
    drop((writer, spool));
    assert!(read_all(&open(&dir, SMALL)).0.into_iter().eq(0..300));
}

#[test]
fn reading_beside_four_writers_yields_every_record_once_and_whole() {
    const EACH: i64 = 5_000;
    let dir = temp_dir();
    let spool = open(&dir, SpoolOptions { max_bytes: 1 << 30, segment_bytes: 16 << 10, ..SMALL });
    let done = AtomicBool::new(false);
    let mut records = Vec::new();
    thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|lane| {
                let mut writer = spool.writer();
                scope.spawn(move || append(&mut writer, lane * EACH..(lane + 1) * EACH))
            })
            .collect();
        let (spool, done, records) = (&spool, &done, &mut records);
        scope.spawn(move || {
            let mut positions = BTreeMap::new();
            loop {
                let last_round = done.load(Relaxed);
                for segment in spool.segments() {
                    let position = positions.entry(segment.id).or_insert(0);
                    loop {
                        let read = spool.read(segment.id, *position, 100, records).unwrap();
                        *position = read.next;
                        match read.end {
                            ReadEnd::More => {}
                            ReadEnd::Open => break,
                            ReadEnd::Sealed => break spool.remove(segment.id).unwrap(),
                            ReadEnd::Damaged { .. } => panic!("{read:?}"),
                        }
                    }
                }
                if last_round {
                    return;
                }
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Relaxed);
    });
    assert_eq!(spool.segments(), []);
    let mut numbers: Vec<_> = records.iter().map(|record| record.at).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..4 * EACH));
    assert!(records.iter().all(|record| *record == Record::from(&numbered(b"/path", record.at))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_clients_send_is_read_back(
        requests in vec((vec(any::<u8>(), 0..3000), proptest::option::of(any::<String>())), 0..20),
    ) {
        let dir = temp_dir();
        let spool = open(&dir, SMALL);
        let mut writer = spool.writer();
        let expected: Vec<Record> = requests
            .iter()
            .map(|(path, identity)| {
                let record = RecordRef { identity: identity.as_deref(), ..numbered(path, 1) };
                writer.append(Draft::of(&record));
                Record::from(&record)
            })
            .collect();
        let mut records = Vec::new();
        for segment in spool.segments() {
            spool.read(segment.id, 0, usize::MAX, &mut records).unwrap();
        }
        prop_assert_eq!(records, expected);
    }

    #[test]
    fn a_segment_with_arbitrary_bytes_is_read_to_its_end_or_reported(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
        from in 0..9000u64,
    ) {
        let dir = temp_dir();
        let spool = open(&dir, SMALL);
        let mut writer = spool.writer();
        append(&mut writer, 0..60);
        drop(writer);
        let id = only_segment(&spool).id;
        let path = path_of(&spool, id);
        let mut bytes = fs::read(&path).unwrap();
        for (index, byte) in changes {
            let index = index.index(bytes.len() - FIRST as usize) + FIRST as usize;
            bytes[index] = byte;
        }
        bytes.truncate((cut.index(2 * bytes.len())).max(FIRST as usize));
        fs::write(&path, &bytes).unwrap();
        let _ = spool.read(id, from, 9, &mut Vec::new()).unwrap();
        drop(spool);
        let spool = open(&dir, SMALL);
        let mut records = Vec::new();
        if let [segment] = spool.segments()[..] {
            let mut position = 0;
            loop {
                let read = spool.read(segment.id, position, 7, &mut records).unwrap();
                prop_assert!(read.next >= position);
                position = match read.end {
                    ReadEnd::More => read.next,
                    ReadEnd::Damaged { at, resume: Some(resume), .. } if resume > at => resume,
                    ReadEnd::Damaged { resume: None, .. } | ReadEnd::Sealed => break,
                    end => panic!("{end:?}"),
                };
            }
        }
        prop_assert!(records.iter().all(|r| *r == Record::from(&numbered(b"/path", r.at))));
        prop_assert!(records.windows(2).all(|pair| pair[0].at < pair[1].at));
    }
}
