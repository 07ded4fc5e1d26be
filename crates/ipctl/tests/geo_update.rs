//! Files of places from the web, a file, an archive: looked at first, then in place at once.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Ran, finish, ipctl};
use ipwarden_testbed::geo::write_city;

/// Answers each request with these bytes, on a free port of the loopback.
fn serve(bodies: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/city.mmdb.gz", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for body in bodies {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                head.push(byte[0]);
            }
            let length = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            // Who has read enough hangs up.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    url
}

fn run(dir: &Path, arguments: &[&str]) -> Ran {
    let mut command = ipctl(dir);
    command.args(arguments);
    finish(command, b"")
}

fn packed(program: &str, arguments: &[&str], dir: &Path) -> Vec<u8> {
    let output =
        Command::new(program).args(arguments).current_dir(dir).stderr(Stdio::inherit()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    output.stdout
}

fn place_of(dir: &Path, address: &str) -> serde_json::Value {
    let ran = run(dir, &["geo", "lookup", address, "-o", "json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap()[0]["city"].clone()
}

#[test]
fn a_file_of_places_is_downloaded_verified_and_swapped_in() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made");
    std::fs::create_dir(&made).unwrap();
    let city = |name: &str| {
        write_city(&made.join("city.mmdb"), &[("203.0.113.0/24", "SE", name)]).unwrap();
    };
    city("Uppsala");
    let first = packed("gzip", &["-c", "city.mmdb"], &made);
    city("Lund");
    let second = packed("tar", &["-czf", "-", "city.mmdb"], &made);
    let cut = first[..first.len() / 2].to_vec();
    let page = b"<html>no such file</html>".to_vec();
    let url = serve(vec![first.clone(), second, cut, page]);
    let line = ["geo", "update", "--from", &url];

    let asked = run(dir.path(), &line);
    assert_eq!((asked.code, &*asked.stdout), (2, ""), "{asked:?}");
    assert!(asked.stderr.contains("licence") && asked.stderr.contains("--yes"), "{asked:?}");
    let rehearsed = run(dir.path(), &[&line[..], &["--dry-run"]].concat());
    assert_eq!(rehearsed.code, 0, "{rehearsed:?}");
    assert!(rehearsed.stderr.contains("would put http://127.0.0.1"), "{rehearsed:?}");
    assert!(!dir.path().join("geoip").exists());

    let ran = run(dir.path(), &[&line[..], &["--yes"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("geoip/city.mmdb is in place: GeoLite2-City"), "{ran:?}");
    assert!(ran.stderr.contains("created by MaxMind"), "the attribution: {ran:?}");
    assert_eq!(place_of(dir.path(), "203.0.113.9"), "Uppsala");
    // Whoever has it has accepted before.
    let again = run(dir.path(), &line);
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(place_of(dir.path(), "203.0.113.9"), "Lund", "out of an archive");
    for _ in ["cut off", "an error page"] {
        let bad = run(dir.path(), &line);
        assert_eq!(bad.code, 1, "{bad:?}");
        assert!(bad.stderr.contains("nothing was changed"), "{bad:?}");
        assert_eq!(place_of(dir.path(), "203.0.113.9"), "Lund");
    }
    let names: Vec<_> = std::fs::read_dir(dir.path().join("geoip"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["city.mmdb"], "nothing half is left");

    city("Visby");
    let from_file = run(dir.path(), &["geo", "update", "--from", "made/city.mmdb"]);
    assert_eq!(from_file.code, 0, "{from_file:?}");
    assert_eq!(place_of(dir.path(), "203.0.113.9"), "Visby");
    let lookup = run(dir.path(), &["geo", "lookup", "203.0.113.9"]);
    assert!(lookup.stderr.contains("created by MaxMind"), "shown with places: {lookup:?}");
    let maxmind = run(dir.path(), &["geo", "update", "--from", "maxmind", "--yes"]);
    assert_eq!(maxmind.code, 2, "{maxmind:?}");
    assert!(maxmind.stderr.contains("MAXMIND_LICENSE_KEY"), "{maxmind:?}");
}
