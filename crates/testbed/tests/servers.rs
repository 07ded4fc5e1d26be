//! The servers are there, are private, and go when their test goes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Sends one inline command and returns the first line of the answer.
fn ask_redis(url: &str, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(url.trim_start_matches("redis://"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}

fn psql(url: &str, statement: &str) -> String {
    let output = Command::new("psql").args(["-X", "-A", "-t", "-c", statement, url]).output();
    let output = output.expect("psql starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn is_running(pid: u32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

/// Waits, at most half a minute, for what the kernel does in its own time.
fn eventually(condition: impl Fn() -> bool) -> bool {
    (0..1_500).any(|_| {
        let holds = condition();
        if !holds {
            std::thread::sleep(Duration::from_millis(20));
        }
        holds
    })
}

#[test]
fn the_shared_redis_answers_and_is_one() {
    let redis = ipwarden_testbed::redis().unwrap();
    let key = ipwarden_testbed::unique_name("key");
    assert_eq!(ask_redis(redis.url(), &format!("SET {key} 1")).unwrap(), "+OK");
    let again = ipwarden_testbed::redis().unwrap();
    assert_eq!(again.url(), redis.url());
    assert_eq!(ask_redis(again.url(), &format!("EXISTS {key}")).unwrap(), ":1");
}

#[test]
fn every_test_gets_a_database_of_its_own() {
    let left = ipwarden_testbed::postgres_database().unwrap();
    let right = ipwarden_testbed::postgres_database().unwrap();
    assert_ne!(left.name(), right.name());
    psql(left.url(), "create table only_left (id int)");
    assert_eq!(
        psql(right.url(), "select count(*) from pg_tables where tablename = 'only_left'"),
        "0"
    );
    assert_eq!(psql(left.url(), "show server_encoding"), "UTF8");
}

#[test]
fn a_dropped_database_is_gone_although_somebody_is_connected() {
    let server = ipwarden_testbed::postgres().unwrap();
    let database = server.database().unwrap();
    let name = database.name().to_owned();
    let mut guest = Command::new("psql")
        .args(["-X", database.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let connections = format!("select count(*) from pg_stat_activity where datname = '{name}'");
    assert!(eventually(|| psql(&server.url("postgres"), &connections) == "1"));
    drop(database);
    let count = format!("select count(*) from pg_database where datname = '{name}'");
    assert_eq!(psql(&server.url("postgres"), &count), "0");
    drop(guest.stdin.take());
    guest.wait().unwrap();
}

#[test]
fn a_private_redis_stops_and_comes_back_empty_on_its_port() {
    let redis = ipwarden_testbed::redis_private().unwrap();
    assert_eq!(ask_redis(redis.url(), "SET a 1").unwrap(), "+OK");
    let first = redis.pid().unwrap();
    redis.stop().unwrap();
    assert_eq!(redis.pid(), None);
    assert!(!is_running(first));
    ask_redis(redis.url(), "PING").unwrap_err();
    redis.start().unwrap();
    assert_eq!(ask_redis(redis.url(), "EXISTS a").unwrap(), ":0");
}

#[test]
fn a_frozen_redis_answers_after_the_thaw() {
    let redis = ipwarden_testbed::redis_private().unwrap();
    redis.freeze().unwrap();
    let stream = TcpStream::connect(redis.url().trim_start_matches("redis://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    (&stream).write_all(b"PING\r\n").unwrap();
    (&stream).read_exact(&mut [0; 7]).unwrap_err();
    redis.thaw().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = [0; 7];
    (&stream).read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn a_private_postgres_keeps_its_tables_over_a_restart() {
    let server = ipwarden_testbed::postgres_private().unwrap();
    psql(&server.url("postgres"), "create table kept (id int)");
    psql(&server.url("postgres"), "checkpoint");
    server.stop().unwrap();
    server.start().unwrap();
    assert_eq!(psql(&server.url("postgres"), "select count(*) from kept"), "0");
}

/// Run alone, as a process of its own, by the test below.
#[test]
fn stay_until_killed() {
    if std::env::var_os("IPWARDEN_TESTBED_STAY").is_none() {
        return;
    }
    let redis = ipwarden_testbed::redis_private().unwrap();
    let postgres = ipwarden_testbed::postgres_private().unwrap();
    eprintln!("pids {} {}", redis.pid().unwrap(), postgres.pid().unwrap());
    // Ends when the parent, which holds the other end, kills this process.
    let _ = std::io::stdin().read(&mut [0; 1]);
}

#[test]
fn the_servers_of_a_killed_process_end_and_leave_no_files() {
    let temporary = tempfile::tempdir().unwrap();
    // The account of PostgreSQL has to pass through.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(temporary.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stay_until_killed", "--nocapture"])
        .env("IPWARDEN_TESTBED_STAY", "1")
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.contains("pids ")).expect("both pids");
    let (_, pids) = line.split_once("pids ").unwrap();
    let pids: Vec<u32> = pids.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| is_running(*pid)));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(eventually(|| !pids.iter().any(|pid| is_running(*pid))), "{pids:?} still run");
    let is_empty = || std::fs::read_dir(temporary.path()).unwrap().next().is_none();
    assert!(eventually(is_empty), "files were left behind");
}
