//! A database whose clock the test sets, and schedulers as processes of their own.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ipwarden_core::db::Db;
use ipwarden_testbed::TestDatabase;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Long enough for the slowest machine; nothing that works waits for so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again; panics when `within` has passed without an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited {:?} until {what}", began.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
}

/// An hour of the day on which all of this happens, long before any real one.
pub(crate) fn hour(n: i64) -> DateTime<Utc> {
    "2026-03-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::hours(n)
}

/// One database.
pub(crate) struct Bed {
    pub(crate) database: TestDatabase,
}

impl Bed {
    /// An empty store whose clock shows `now`.
    pub(crate) async fn at(now: DateTime<Utc>) -> Bed {
        let database = ipwarden_testbed::postgres_database().unwrap();
        database.own_clock().unwrap();
        let db = Db::postgres(database.url(), 2).unwrap();
        db.migrate().await.unwrap();
        // `scan_runs` shows the last judgement of a window; the tests want to see each.
        let journal = "
            create table judged (n bigserial, window_start timestamptz, scheduler text);
            create function note() returns trigger language plpgsql as $$ begin
                insert into judged (window_start, scheduler)
                    values (new.window_start, new.scheduler);
                return null;
            end $$;
            create trigger once after insert on scan_runs for each row execute function note();
            create trigger again after update on scan_runs for each row
                when (old.* is distinct from new.*) execute function note();";
        database.execute(journal).unwrap();
        let bed = Bed { database };
        bed.set_clock(now);
        bed
    }

    /// A store that was begun in time: what ended before hour 0 has been judged.
    pub(crate) async fn begun() -> Bed {
        let bed = Bed::at(hour(0) + TimeDelta::seconds(10)).await;
        let first = Scheduler::start(&bed, "first");
        bed.is_done_until(0).await;
        assert!(first.stop().await.success());
        bed
    }

    /// What one scheduler finds that nothing happens to, at `now` in the traffic of hours `0..to`.
    pub(crate) async fn undisturbed(to: i64, now: DateTime<Utc>) -> Vec<String> {
        let bed = Bed::begun().await;
        bed.traffic(0, to);
        bed.set_clock(now + TimeDelta::seconds(10));
        let one = Scheduler::start(&bed, "one");
        bed.is_done_until((now - hour(0)).num_hours()).await;
        assert!(one.stop().await.success());
        bed.findings()
    }

    /// Makes the transaction of every window take a while.
    pub(crate) fn slow_down(&self) {
        let slow = "
            create function doze() returns trigger language plpgsql as
                $$ begin perform pg_sleep(0.03); return null; end $$;
            create trigger slow after insert on scan_runs for each row execute function doze()";
        self.database.execute(slow).unwrap();
    }

    pub(crate) fn set_clock(&self, now: DateTime<Utc>) {
        self.database.set_clock(&now.to_rfc3339()).unwrap();
    }

    /// Traffic of hours `from..to`, the same each time: 40 quiet addresses, three that are too busy
    /// (one of them around the full hour only), and ten that ask for a sensitive path.
    pub(crate) fn traffic(&self, from: i64, to: i64) {
        self.requests(from, to, "x.n <= 40");
        self.requests(from, to, "x.n > 40");
    }

    /// The part of that traffic whose clients `which` names, recorded when it is written.
    pub(crate) fn requests(&self, from: i64, to: i64, which: &str) {
        let (first, last) = (hour(from).to_rfc3339(), hour(to).to_rfc3339());
        let days: Vec<String> = (from.div_euclid(24)..=to.div_euclid(24))
            .map(|day| {
                let (start, end) = (hour(day * 24), hour(day * 24 + 24));
                format!(
                    "create table if not exists request_logs_{} partition of request_logs \
                     for values from ('{start}') to ('{end}');",
                    start.format("%Y%m%d")
                )
            })
            .collect();
        let sql = format!(
            "{} begin;
            create temporary table traffic on commit drop as
            select h + interval '1 second' * (case when x.n = 43 then 1800 + k * 30 else k * 29 end)
                    + interval '1 microsecond' * x.n as at, x.n, k
            from generate_series('{first}'::timestamptz, '{last}'::timestamptz
                    - interval '1 hour', interval '1 hour') h,
                generate_series(1, 53) x(n),
                generate_series(0, case when x.n <= 40 then 4 when x.n <= 43 then 110 else 0 end) k
            where ({which}) and (x.n <= 40 or extract(hour from h)::int % 3 = x.n % 3);
            insert into request_logs (at, address, method, path, status, verdict, sensitive, node,
                recorded_at)
            select at, '192.0.2.0'::inet + n, 'GET', case when n > 43 then '/login' else '/' end, 200,
                'allowed', n > 43, 'a', clock_timestamp() from traffic where at < '{last}';
            insert into touched_hours
            select hour, 'a', clock_timestamp() from
                (select distinct date_trunc('hour', at) as hour from traffic where at < '{last}') x
                on conflict (hour, node) do update set recorded_at = greatest(excluded.recorded_at,
                    touched_hours.recorded_at + interval '1 microsecond');
            commit",
            days.concat()
        );
        self.database.execute(&sql).unwrap();
    }

    /// All findings, without what differs from database to database.
    pub(crate) fn findings(&self) -> Vec<String> {
        let sql = "select address, rule, status, first_seen, last_seen, hits, evidence \
                   from suspicious_ips order by address, rule, first_seen";
        self.database.execute(sql).unwrap().lines().map(str::to_owned).collect()
    }

    /// Hours in the order in which they were judged.
    pub(crate) fn judged(&self) -> Vec<DateTime<Utc>> {
        let sql = "select extract(epoch from window_start)::bigint from judged order by n";
        let hours = self.database.execute(sql).unwrap();
        let hours = hours.lines().map(|line| DateTime::from_timestamp(line.parse().unwrap(), 0));
        hours.collect::<Option<_>>().unwrap()
    }

    /// How many windows there is a row of.
    pub(crate) fn runs(&self) -> usize {
        self.database.execute("select count(*) from scan_runs").unwrap().parse().unwrap()
    }

    /// Waits until the hours before `n` have been judged, and nobody is at it any more.
    pub(crate) async fn is_done_until(&self, n: i64) {
        let sql = format!(
            "select exists (select from scan_runs where window_start = '{}') and not exists \
             (select from leases where name = 'scan' and expires_at > clock_timestamp())",
            hour(n - 1)
        );
        // A catch-up of weeks is waited for as long as it goes on.
        let (mut judged, mut since) = (self.runs(), Instant::now());
        while self.database.execute(&sql).unwrap() != "t" {
            let runs = self.runs();
            if runs > judged {
                (judged, since) = (runs, Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "nothing comes, and hour {} is not judged", n - 1);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asserts that the hours `from..to` were judged, each once and in order.
    pub(crate) fn assert_each_once(&self, from: i64, to: i64) {
        let expected: Vec<_> = (from..to).map(hour).collect();
        assert_eq!(self.judged(), expected, "each once, in order");
        assert_eq!(self.runs(), expected.len());
    }
}

/// A running `scheduler`; killed when dropped.
pub(crate) struct Scheduler {
    child: Child,
    dir: TempDir,
    said: Arc<Mutex<Vec<String>>>,
}

impl Scheduler {
    /// Starts one whose machine's clock is right.
    pub(crate) fn start(bed: &Bed, name: &str) -> Scheduler {
        Scheduler::launch(bed, name, None)
    }

    /// Starts one whose machine's clock is as far off as the test says, at the start by nothing.
    pub(crate) fn with_own_clock(bed: &Bed, name: &str) -> Scheduler {
        Scheduler::launch(bed, name, Some(faketime()))
    }

    fn launch(bed: &Bed, name: &str, faketime: Option<PathBuf>) -> Scheduler {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_scheduler"));
        command.current_dir(dir.path()).env_clear();
        command.env("DATABASE_URL", bed.database.url()).env("IPWARDEN_NODE", name);
        if let Some(library) = faketime {
            std::fs::write(dir.path().join("clock"), "+0").unwrap();
            command.env("LD_PRELOAD", library).env("DONT_FAKE_MONOTONIC", "1");
            command.env("FAKETIME_TIMESTAMP_FILE", dir.path().join("clock"));
            command.env("FAKETIME_NO_CACHE", "1").env("TZ", "UTC");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (stderr, lines) = (child.stderr.take().unwrap(), said.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Scheduler { child, dir, said }
    }

    /// Steps the clock of its machine to so many seconds from the right time.
    pub(crate) fn step_clock(&self, seconds: i64) {
        let next = self.dir.path().join("next");
        std::fs::write(&next, format!("{seconds:+}")).unwrap();
        std::fs::rename(next, self.dir.path().join("clock")).unwrap();
    }

    /// All that it wrote to stderr.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Kills it, as the kernel does when memory is short.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it in good order.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        eventually("it ends", async || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian's package puts it there; other systems have no other place for it.
fn faketime() -> PathBuf {
    let places = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    places
        .map(|place| place.join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
        .expect("libfaketime: run the tests with `bash .ci/test`, or `apt-get install faketime`")
}
