//! What an operator reads about files of places, and how often.
//!
//! One test in a program of its own: the log belongs to the whole process.

use std::fs;
use std::io::{self, Write};
use std::sync::Arc;

use ipwarden_core::geo::Geo;
use ipwarden_testbed::geo::write_city;
use parking_lot::Mutex;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The lines since the last look.
    fn lines(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock());
        String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_log_says_once_that_no_places_are_known_and_once_that_a_file_is_bad() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let root = tempfile::tempdir().expect("a temporary directory");
    let (directory, data_dir) = (root.path().join("geoip"), root.path().join("data"));
    fs::create_dir(&directory).expect("made");
    let file = directory.join("city.mmdb");
    let berlin = || write_city(&file, &[("192.0.2.0/24", "DE", "Berlin")]).expect("written");
    let said = |log: &Log, word: &str| {
        let lines = log.lines();
        assert!(lines.len() == 1 && lines[0].contains(word), "{word}: {lines:#?}");
    };

    let geo = Geo::open(vec![directory.clone()], Some(&data_dir), None);
    assert!((0..3).all(|_| !geo.reload_if_changed()));
    said(&log, "no files of places");
    for _ in 0..2 {
        berlin();
        assert!(geo.reload_if_changed());
        said(&log, "GeoLite2-City");
        for bad in [&b"half"[..], b"half a", b"half a file"] {
            fs::write(&file, bad).expect("written");
            assert!((0..3).all(|_| !geo.reload_if_changed()));
        }
        said(&log, "stays in use");
    }
    fs::remove_file(&file).expect("removed");
    assert!(geo.reload_if_changed());
    assert_eq!(log.lines().len(), 2, "that it is gone, and that there is none left");
    let missing = root.path().join("missing.mmdb");
    Geo::open(vec![missing], None, None);
    assert_eq!(log.lines().len(), 2, "that it is missing, and that there is none");
}
