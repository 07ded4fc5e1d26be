//! The spool against what only the outside can do to it: SIGKILL, a full disk, a second process.
//!
//! The tests start this very binary again, with the ignored test `child` alone, which does what
//! `SPOOL_CHILD` says and writes eight bytes to standard error for every record it has appended.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ipwarden_engine::clock::Moment;
use ipwarden_engine::record::{Record, RecordRef, RecordVerdict, Reference};
use ipwarden_engine::spool::{Draft, ReadEnd, Spool, SpoolError, SpoolOptions, SpoolWriter};

const LANES: i64 = 2;

fn options() -> SpoolOptions {
    SpoolOptions { segment_bytes: 64 << 10, ..SpoolOptions::default() }
}

/// A record of this number, its length depending on it, so that frames cross pages everywhere.
fn append(writer: &mut SpoolWriter, number: i64) {
    let user_agent = vec![b'u'; (number % 97) as usize];
    writer.append(Draft::of(&RecordRef {
        at: number,
        address: "192.0.2.1".parse().unwrap(),
        method: b"GET",
        path: b"/some/path",
        status: 200,
        verdict: RecordVerdict::Allowed,
        sensitive: false,
        identity: None,
        user_agent: Some(&user_agent),
        reference: Reference::from_bits(number as u64).unwrap(),
    }));
}

fn is_as_appended(record: &Record) -> bool {
    record.reference.bits() == record.at as u64
        && record.user_agent.as_ref().unwrap().len() as i64 == record.at % 97
}

/// All records, and how each segment ends.
fn read_all(spool: &Spool) -> (Vec<Record>, Vec<ReadEnd>) {
    let mut records = Vec::new();
    let ends = spool
        .segments()
        .into_iter()
        .map(|segment| spool.read(segment.id, 0, usize::MAX, &mut records).unwrap().end)
        .collect();
    (records, ends)
}

fn remove_all(spool: &Spool) {
    for segment in spool.segments() {
        spool.remove(segment.id).unwrap();
    }
}

fn start_child(mut command: Command, task: &str, dir: &Path) -> Child {
    command
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env("SPOOL_CHILD", task)
        .env("SPOOL_DIR", dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Says so even if the output of passing tests is kept back.
fn report(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn this_binary() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

#[test]
#[ignore = "started by the other tests as a process of its own"]
fn child() {
    let Ok(task) = std::env::var("SPOOL_CHILD") else { return };
    let dir = PathBuf::from(std::env::var_os("SPOOL_DIR").unwrap());
    match task.as_str() {
        "append" => append_for_ever(&dir),
        "fill" => fill_the_disk(&dir),
        "open" => assert!(matches!(Spool::open(&dir, options()), Err(SpoolError::Taken { .. }))),
        other => panic!("unknown task {other}"),
    }
}

/// Appends in two threads and acknowledges each record once it was appended.
fn append_for_ever(dir: &Path) {
    let spool = Spool::open(dir, options()).unwrap();
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let mut writer = spool.writer();
            scope.spawn(move || {
                for number in (lane..).step_by(LANES as usize) {
                    append(&mut writer, number);
                    std::io::stderr().write_all(&number.to_le_bytes()).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_process_killed_at_a_random_instant_loses_no_acknowledged_record() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let mut child = start_child(this_binary(), "append", dir.path());
        let mut pipe = child.stderr.take().unwrap();
        let mut bytes = vec![0; 8 * fastrand::usize(1..6000)];
        pipe.read_exact(&mut bytes).unwrap();
        child.kill().unwrap();
        pipe.read_to_end(&mut bytes).unwrap();
        child.wait().unwrap();
        let acknowledged: Vec<_> = bytes
            .chunks_exact(8)
            .map(|number| i64::from_le_bytes(number.try_into().unwrap()))
            .collect();

        let spool = Spool::open(dir.path(), options()).unwrap();
        let (records, ends) = read_all(&spool);
        assert!(ends.iter().all(|end| *end == ReadEnd::Sealed), "round {round}: {ends:?}");
        assert!(records.iter().all(is_as_appended), "round {round}");
        let mut kept: Vec<_> = records.iter().map(|record| record.at).collect();
        kept.sort_unstable();
        assert!(kept.is_sorted_by(|one, next| one < next), "round {round}: one is there twice");
        let lost = acknowledged.iter().find(|number| kept.binary_search(number).is_err());
        assert_eq!(lost, None, "round {round}: of {} acknowledged", acknowledged.len());
        // Each lane may have been killed between an append and its acknowledgement.
        assert!(kept.len() <= acknowledged.len() + LANES as usize, "round {round}");
        remove_all(&spool);
    }
}

#[test]
fn a_second_process_is_refused_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), options()).unwrap();
    let refused = start_child(this_binary(), "open", dir.path()).wait_with_output().unwrap();
    assert!(refused.status.success(), "{}", String::from_utf8_lossy(&refused.stderr));
    drop(spool);
    let opened = start_child(this_binary(), "open", dir.path()).wait_with_output().unwrap();
    assert!(!opened.status.success(), "a free directory must not be refused");
}

/// Runs on a file system of one megabyte.
fn fill_the_disk(dir: &Path) {
    let spool = Spool::open(dir, SpoolOptions { segment_bytes: 128 << 10, ..options() }).unwrap();
    let mut writer = spool.writer();
    let mut next = 0;
    while spool.status().dropped == 0 {
        for number in next..next + 100 {
            append(&mut writer, number);
        }
        next += 100;
    }
    let full = spool.status();
    assert!(
        full.stalled == Some(std::io::ErrorKind::StorageFull) && full.bytes <= 1 << 20,
        "{full:?}"
    );
    let (kept, _) = read_all(&spool);
    assert_eq!(kept.len() as u64 + full.dropped, next as u64);
    assert!(kept.iter().all(is_as_appended));

    remove_all(&spool);
    while read_all(&spool).0.is_empty() {
        append(&mut writer, next);
        next += 1;
    }
    assert!(spool.status().stalled.is_none());
    std::io::stderr().write_all(b"filled and recovered").unwrap();
}

#[test]
fn a_full_disk_drops_and_counts_and_is_left_behind_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let namespace = ["--user", "--map-root-user", "--mount"];
    let may = Command::new("unshare").args(namespace).arg("true").output();
    if !may.is_ok_and(|may| may.status.success()) {
        report("NOT RUN: this kernel lets us have no mount namespace (unshare --user --mount)");
        return;
    }
    let mount = r#"mount -t tmpfs -o size=1m,mode=700 tmpfs "$SPOOL_DIR" || exit 77; exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(namespace).args(["sh", "-c", mount, "sh"]).arg(std::env::current_exe().unwrap());
    let child = start_child(command, "fill", dir.path()).wait_with_output().unwrap();
    if child.status.code() == Some(77) {
        report("NOT RUN: this kernel lets us mount no tmpfs");
        return;
    }
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains("filled and recovered"), "{said}");
}

#[test]
#[ignore = "a measurement: cargo test --release -p ipwarden-engine --test spool cost -- --ignored --nocapture"]
fn the_cost_of_an_append_is_reported() {
    const RECORDS: i64 = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), SpoolOptions::default()).unwrap();
    let mut writer = spool.writer();
    let start = Moment::now().steady;
    (0..RECORDS).for_each(|number| append(&mut writer, number));
    let appended = Moment::now().steady;
    let records = read_all(&spool).0.len();
    let read = Moment::now().steady;
    assert_eq!(records as i64, RECORDS);
    report(&format!("append {} ns a record", (appended - start) * 1000 / RECORDS as u64));
    report(&format!("read {} ns a record", (read - appended) * 1000 / RECORDS as u64));
}
