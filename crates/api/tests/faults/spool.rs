//! Spools that are damaged, copied or removed: what is whole is shipped once, whatever happens to the rest.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ipwarden_engine::spool::{ReadEnd, SegmentId, Spool, SpoolOptions};
use ipwarden_testbed::PostgresServer;
use ipwarden_testbed::report::{Part, report, short_or_long};
use tokio::time::sleep;

use super::check::{Tally, each_is_logged_once};
use super::common::{Bed, Launch, Replica, TEN_TIMES_A_SECOND, eventually};
use super::load::{Load, anybody};
use super::{seed, turn};

/// Of a segment before its first frame, and of a seal, in bytes.
const HEADER: u64 = 64;
const SEAL: u64 = 8;

/// What was done to a segment.
#[derive(Clone, Copy, Debug)]
enum Harm {
    None,
    CutShort,
    Flipped,
    Zeroed,
    Directory,
    Garbage,
    Emptied,
}

const HARMS: [Harm; 7] = [
    Harm::CutShort,
    Harm::Flipped,
    Harm::Zeroed,
    Harm::Directory,
    Harm::Garbage,
    Harm::Emptied,
    Harm::None,
];

/// A segment of a killed replica: where its records stand.
struct Leftover {
    id: SegmentId,
    path: PathBuf,
    /// Reference, start and end of each.
    records: Vec<(String, u64, u64)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_segments_give_what_is_whole_and_stop_nothing() {
    let _turn = turn().await;
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let server = ipwarden_testbed::postgres_private().unwrap();
    let mut bed = Bed::on_own_postgres(&server, 1, None, Launch::behind_proxies).await;
    on_thread(&server, PostgresServer::stop).await;
    let (mut answered, mut left) = (Vec::new(), Vec::new());
    // Not more than our own log tells apart in ten seconds.
    while left.len() < HARMS.len() * short_or_long(1, 2) {
        let load = start(&bed, 400, 8, seed);
        sleep(Duration::from_millis(500)).await;
        bed.replicas[0].crash();
        answered.extend(Tally::of(&load.stop().await).references);
        left = leftovers(bed.first());
        bed.replicas[0].start_again().await;
    }
    bed.replicas[0].crash();

    let spool = bed.first().data().join("spool");
    let (mut whole, mut lost, mut expected) = (HashSet::new(), 0, Vec::new());
    for (number, leftover) in left.iter().enumerate() {
        let harm = HARMS[number % HARMS.len()];
        let (spoilt, at) = damage(leftover, harm, &mut rng);
        if let Some(at) = at {
            expected.push((format!("{}-{at}.segment", leftover.id), at, harm));
        }
        for (reference, start, end) in &leftover.records {
            if *end <= spoilt.start || *start >= spoilt.end {
                whole.insert(reference.clone());
            } else {
                lost += 1;
            }
        }
    }
    fs::write(spool.join("notes.segment"), "an operator's notes, not ours").unwrap();
    expected.push(("notes-0.segment".to_owned(), 0, Harm::None));

    on_thread(&server, PostgresServer::start).await;
    bed.replicas[0].start_again().await;
    let load = start(&bed, 200, 8, seed);
    sleep(Duration::from_secs(1)).await;
    let tally = Tally::of(&load.stop().await);
    tally.assert_none_failed();

    let all: Vec<String> = whole.iter().chain(&tally.references).cloned().collect();
    let (_, others) = each_is_logged_once(&bed.db, &all, TEN_TIMES_A_SECOND * 6).await;
    // Requests that a kill left without an answer may have left a whole record.
    assert!(others <= left.len() * 8, "{others} records of nobody's requests");
    let answered_and_whole = answered.iter().filter(|it| whole.contains(*it)).count();
    assert!(answered_and_whole > 100, "there was something to lose");
    for (name, at, harm) in &expected {
        let aside = spool.join("damaged").join(name);
        eventually(TEN_TIMES_A_SECOND, name, async || aside.exists().then_some(())).await;
        let said = bed.first().said();
        let stem = name.split('-').next().unwrap();
        let says =
            said.lines().any(|line| line.contains(stem) && line.contains(&format!("at={at} ")));
        assert!(says, "{harm:?}: nothing names {stem} and {at} in:\n{said}");
    }
    let segments = "ipwarden_segments_lost_total{cause=\"damaged\"}";
    let counted = usize::try_from(bed.first().metric(segments).await).unwrap();
    assert_eq!(counted, expected.len(), "{expected:?}");
    let (status, text) = bed.first().open("/readyz?verbose").await;
    assert!(status.is_success() && text.contains("could not be read whole"), "{text}");
    report(
        Part::Kills,
        format!(
            "{} segments of a replica killed while PostgreSQL was away: cut short, bytes changed, bytes \
             zeroed, a directory in its place, garbage behind it, emptied, a foreign file",
            left.len(),
        ),
        "What is whole is shipped once; the rest is reported with file and position and set aside; \
         nothing stops",
        format!(
            "{} whole records shipped once, {lost} spoilt ones lost; {} files set aside and named; \
             {} new requests answered and logged",
            whole.len(),
            expected.len(),
            tally.references.len(),
        ),
    );
}

/// Spoils a segment. Returns the bytes whose records cannot be read any more, and the position that has to
/// be reported, if any.
fn damage(
    leftover: &Leftover,
    harm: Harm,
    rng: &mut fastrand::Rng,
) -> (std::ops::Range<u64>, Option<u64>) {
    let Leftover { path, records, .. } = leftover;
    let end = records.last().unwrap().2;
    let mut bytes = fs::read(path).unwrap();
    let middle = rng.usize(records.len() / 4..records.len() * 3 / 4);
    let (_, start, next) = records[middle];
    match harm {
        Harm::None => (0..0, None),
        Harm::CutShort => {
            let cut = rng.u64(HEADER + 1..end);
            fs::write(path, &bytes[..usize::try_from(cut).unwrap()]).unwrap();
            let broken = records.iter().find(|(_, _, next)| *next > cut).unwrap().1;
            (broken..u64::MAX, Some(broken))
        }
        Harm::Flipped => {
            // Up to three bytes behind a record are padding, which nobody misses.
            for at in [rng.u64(start..next - 3), rng.u64(start..next - 3)] {
                bytes[usize::try_from(at).unwrap()] ^= rng.u8(1..);
            }
            fs::write(path, bytes).unwrap();
            (start..next, Some(start))
        }
        Harm::Zeroed => {
            let last = records[(middle + 3).min(records.len() - 1)].2;
            bytes[usize::try_from(start).unwrap()..usize::try_from(last).unwrap()].fill(0);
            fs::write(path, bytes).unwrap();
            (start..last, Some(start))
        }
        Harm::Directory => {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
            (0..u64::MAX, Some(0))
        }
        Harm::Garbage => {
            let sealed = bytes.len() as u64 == end + SEAL;
            bytes.extend((0..1_000).map(|_| rng.u8(1..)));
            fs::write(path, bytes).unwrap();
            (0..0, Some(if sealed { end + SEAL } else { end }))
        }
        Harm::Emptied => {
            fs::write(path, []).unwrap();
            (0..u64::MAX, Some(0))
        }
    }
}

/// The segments of a killed replica that have records, read from a copy.
fn leftovers(replica: &Replica) -> Vec<Leftover> {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&replica.data().join("spool"), &copy.path().join("spool"));
    let spool = Spool::open(copy.path(), SpoolOptions::default()).unwrap();
    let of = |id: SegmentId| {
        let (mut records, mut at) = (Vec::new(), HEADER);
        loop {
            let mut found = Vec::new();
            let read = spool.read(id, at, 1, &mut found).unwrap();
            if let [record] = &found[..] {
                records.push((record.reference.to_string(), at, read.next));
            }
            at = read.next;
            match read.end {
                ReadEnd::More => {}
                ReadEnd::Sealed => return records,
                end => panic!("{end:?}"),
            }
        }
    };
    let segments = spool.segments().into_iter().map(|segment| Leftover {
        id: segment.id,
        path: replica.data().join("spool").join(format!("{}.segment", segment.id)),
        records: of(segment.id),
    });
    // Fewer could not be spoilt in their middle.
    segments.filter(|leftover| leftover.records.len() >= 8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_that_comes_back_as_a_copy_or_not_at_all_neither_skips_nor_doubles() {
    let _turn = turn().await;
    let seed = seed();
    let mut bed = Bed::on_postgres(2, None, Launch::behind_proxies).await;
    let copies = tempfile::tempdir().unwrap();
    let (running, killed) = (copies.path().join("running"), copies.path().join("killed"));
    let spools = [0, 1].map(|number: usize| bed.replicas[number].data().join("spool"));
    let rounds = short_or_long(2, 20);
    let load = start(&bed, 300, 8, seed);
    for _ in 0..rounds {
        sleep(Duration::from_millis(700)).await;
        // Of one that runs on, given to another at once: both ship the same segments.
        copy_dir(&spools[0], &running);
        bed.replicas[1].crash();
        let given = add_segments(&running, &spools[1]);
        assert!(given > 0, "there is something in the copy");
        again(&mut bed, 1, &load).await;
        sleep(Duration::from_millis(700)).await;

        // Of a killed one, put back when its records were shipped long ago.
        bed.replicas[0].crash();
        copy_dir(&spools[0], &killed);
        again(&mut bed, 0, &load).await;
        sleep(Duration::from_millis(700)).await;
        bed.replicas[0].crash();
        add_segments(&killed, &spools[0]);
        again(&mut bed, 0, &load).await;
    }
    sleep(Duration::from_millis(500)).await;
    let mut tally = Tally::of(&load.stop().await);
    tally.assert_no_server_error();
    each_is_logged_once(&bed.db, &tally.references, TEN_TIMES_A_SECOND * 3).await;

    // Lost while nobody used it: everything in it was shipped.
    bed.replicas[0].crash();
    fs::remove_dir_all(&spools[0]).unwrap();
    bed.replicas[0].start_again().await;
    let load = start(&bed, 300, 8, seed);
    sleep(Duration::from_secs(1)).await;
    let after = Tally::of(&load.stop().await);
    after.assert_none_failed();
    tally.references.extend(after.references);
    let (_, others) = each_is_logged_once(&bed.db, &tally.references, TEN_TIMES_A_SECOND * 3).await;
    assert!(others <= tally.lost.len(), "{others} records, {} lost requests", tally.lost.len());
    report(
        Part::Kills,
        format!(
            "{rounds} times: the spool of a running replica copied to another, that of a killed one put \
             back later; then a spool deleted while its replica was stopped"
        ),
        "Neither skips nor doubles a record",
        format!("{} answers under load, each logged once", tally.references.len()),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_removed_under_a_running_replica_is_made_anew_and_loses_nothing() {
    let _turn = turn().await;
    let seed = seed();
    let rounds = short_or_long(2, 20);
    for mut bed in Bed::each(Launch::behind_proxies).await {
        let spool = bed.first().data().join("spool");
        let load = start(&bed, 300, 8, seed);
        let mut made_again = Vec::new();
        for _ in 0..rounds {
            sleep(Duration::from_millis(500)).await;
            remove_all(&spool);
            let (_, took) = eventually(TEN_TIMES_A_SECOND, "a new segment", async || {
                (segments(&spool) > 0).then_some(())
            })
            .await;
            made_again.push(took);
        }
        // Until the writers are in the new directory, what they have is theirs alone.
        sleep(Duration::from_millis(2_500)).await;
        bed.replicas[0].crash();
        again(&mut bed, 0, &load).await;
        sleep(Duration::from_millis(500)).await;
        let tally = Tally::of(&load.stop().await);
        tally.assert_no_server_error();
        each_is_logged_once(&bed.db, &tally.references, TEN_TIMES_A_SECOND * 3).await;
        made_again.sort_unstable();
        report(
            Part::Kills,
            format!("The spool deleted {rounds} times under a running replica ({})", bed.size),
            "It is noticed and made anew (goal 1 s); no answered request is missing in the log",
            format!(
                "{} answers, each logged once; made anew within {:.1?}",
                tally.references.len(),
                made_again.last().unwrap(),
            ),
        );
    }
}

fn start(bed: &Bed, per_second: u32, connections: u32, seed: u64) -> Load {
    let targets: Vec<_> = bed.replicas.iter().map(Replica::public_address).collect();
    Load::start(&targets, per_second, connections, seed, anybody())
}

async fn again(bed: &mut Bed, number: usize, load: &Load) {
    bed.replicas[number].start_again().await;
    load.moved(number, bed.replicas[number].public_address());
}

/// As an operator does it.
fn copy_dir(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").args([from, to]).output().unwrap();
    // Segments may go while it copies.
    assert!(to.exists(), "{}", String::from_utf8_lossy(&copied.stderr));
}

/// Copies the segments of one spool to another. Returns how many.
fn add_segments(from: &Path, to: &Path) -> usize {
    let mut count = 0;
    for file in fs::read_dir(from).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|it| it == "segment") {
            fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
            count += 1;
        }
    }
    count
}

/// However often something is made in it meanwhile.
fn remove_all(dir: &Path) {
    while fs::remove_dir_all(dir).is_err() {
        if !dir.exists() {
            return;
        }
    }
}

fn segments(spool: &Path) -> usize {
    let Ok(files) = fs::read_dir(spool) else { return 0 };
    let is_segment =
        |file: &fs::DirEntry| file.path().extension().is_some_and(|it| it == "segment");
    files.filter_map(Result::ok).filter(is_segment).count()
}

/// Starting and stopping a server waits for it.
async fn on_thread(
    server: &PostgresServer,
    act: impl FnOnce(&PostgresServer) -> anyhow::Result<()> + Send + 'static,
) {
    let server = server.clone();
    tokio::task::spawn_blocking(move || act(&server)).await.unwrap().unwrap();
}
