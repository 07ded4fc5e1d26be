//! Places from small files that the tests write themselves.

mod with_redis;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chrono::{DateTime, Duration, Utc};
use ipwarden_testbed::geo::{GeoFile, write_asn, write_city, write_country, write_flat_city};
use serde_json::json;
use tempfile::TempDir;

use super::*;

/// A directory of files, and a data directory beside it.
struct Desk {
    _root: TempDir,
    files: PathBuf,
    data: PathBuf,
}

impl Desk {
    fn new() -> Desk {
        let root = tempfile::tempdir().expect("a temporary directory");
        let (files, data) = (root.path().join("geoip"), root.path().join("data"));
        fs::create_dir(&files).expect("a directory");
        Desk { _root: root, files, data }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.join(name)
    }

    fn open(&self) -> Geo {
        self.open_with(None)
    }

    fn open_with(&self, redis: Option<RedisPool>) -> Geo {
        Geo::open(vec![self.files.clone()], Some(&self.data), redis)
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn noon() -> DateTime<Utc> {
    "2026-11-22T12:00:00Z".parse().expect("a time")
}

/// A place as one word: `country/city/asn`.
fn said(place: &Place) -> String {
    let country = place.country.map_or("-".to_owned(), |code| code.to_string());
    let city = place.city.as_deref().unwrap_or("-");
    let asn = place.asn.map_or("-".to_owned(), |asn| asn.to_string());
    format!("{country}/{city}/{asn}")
}

fn ask(geo: &Geo, address: &str) -> String {
    said(&geo.place(ip(address), noon()))
}

fn berlin(desk: &Desk) {
    write_city(&desk.file("city.mmdb"), &[("192.0.2.0/24", "DE", "Berlin")]).expect("written");
}

#[test]
fn without_any_file_every_place_is_unknown() {
    let desk = Desk::new();
    assert_eq!(ask(&desk.open(), "192.0.2.1"), "-/-/-");
    let nowhere = Geo::open(vec![desk.file("missing.mmdb")], Some(&desk.data), None);
    assert_eq!(ask(&nowhere, "192.0.2.1"), "-/-/-");
    assert_eq!(nowhere.files(), []);
    assert_eq!(nowhere.look_ups(), LookUps::default());
}

#[test]
fn city_country_and_asn_files_answer_together() {
    let desk = Desk::new();
    berlin(&desk);
    let countries = [("192.0.2.0/24", "FR"), ("198.51.100.0/24", "AT"), ("2001:db8::/32", "CH")];
    write_country(&desk.file("a-country.mmdb"), &countries).expect("written");
    write_asn(&desk.file("asn.mmdb"), &[("192.0.2.0/25", 64496, "Example")]).expect("written");
    let geo = desk.open();
    assert_eq!(ask(&geo, "192.0.2.1"), "DE/Berlin/64496", "the city file is asked first");
    assert_eq!(ask(&geo, "192.0.2.200"), "DE/Berlin/-");
    assert_eq!(ask(&geo, "198.51.100.1"), "AT/-/-");
    assert_eq!(ask(&geo, "2001:db8:1::1"), "CH/-/-");
    assert_eq!(ask(&geo, "203.0.113.1"), "-/-/-");
    let kinds: Vec<Kind> = geo.files().iter().map(|file| file.kind).collect();
    assert_eq!(kinds, [Kind::City, Kind::Country, Kind::Asn]);
}

#[test]
fn a_flat_file_answers_like_a_nested_one() {
    let desk = Desk::new();
    write_flat_city(&desk.file("dbip-city-ipv4.mmdb"), &[("192.0.2.0/24", "DE", "Berlin")])
        .expect("written");
    write_flat_city(&desk.file("dbip-city-ipv6.mmdb"), &[("2001:db8::/32", "CH", "Bern")])
        .expect("written");
    let geo = desk.open();
    assert_eq!(ask(&geo, "192.0.2.1"), "DE/Berlin/-");
    assert_eq!(
        ask(&geo, "2001:db8::1"),
        "CH/Bern/-",
        "an IPv6 look-up in the IPv4 file is no error"
    );
    assert!(geo.files().iter().all(|file| file.schema == Schema::Flat && file.unreadable == 0));
}

#[test]
fn a_mapped_address_is_looked_up_as_the_ipv4_address_it_is() {
    let desk = Desk::new();
    berlin(&desk);
    assert_eq!(ask(&desk.open(), "::ffff:192.0.2.1"), "DE/Berlin/-");
}

#[test]
fn odd_records_are_read_as_far_as_they_make_sense() {
    let desk = Desk::new();
    let file = GeoFile::new("Odd-City")
        .network("192.0.2.0/28", json!({"country": "DE", "asn": "AS64496", "city": ["x"]}))
        .network("192.0.2.16/28", json!({"country": "Germany", "country_code": "de", "city": 7}))
        .network("192.0.2.32/28", json!({"country": {"iso_code": 5, "names": {"fr": "Allemagne"}}}))
        .network("192.0.2.48/28", json!({"city": {"names": {"de": "Genf", "fr": "Genève"}}}))
        .network("192.0.2.64/28", json!({"city": "Be\u{0}rn\u{1b}[2J", "asn": 0}))
        .network("192.0.2.80/28", json!({"autonomous_system_number": 5_000_000_000_u64}))
        .network("192.0.2.96/28", json!("just text"));
    file.write(&desk.file("odd.mmdb")).expect("written");
    // A record that is not even an object is damage, so the file is refused...
    assert_eq!(desk.open().files(), []);
    // ...and without it, read.
    file.without("192.0.2.96/28").write(&desk.file("odd.mmdb")).expect("written");
    let geo = desk.open();
    assert_eq!(ask(&geo, "192.0.2.1"), "DE/-/64496");
    assert_eq!(ask(&geo, "192.0.2.17"), "DE/-/-");
    assert_eq!(ask(&geo, "192.0.2.33"), "-/-/-");
    assert_eq!(ask(&geo, "192.0.2.49"), "-/Genf/-", "without an English name the first one");
    assert_eq!(ask(&geo, "192.0.2.65"), "-/Bern[2J/-");
    assert_eq!(ask(&geo, "192.0.2.81"), "-/-/-");
}

#[test]
fn a_file_says_what_it_is() {
    let desk = Desk::new();
    let places = [("192.0.2.0/24", "DE", "Berlin")];
    write_city(&desk.file("1.mmdb"), &places).expect("written");
    write_flat_city(&desk.file("dbip-city-ipv4.mmdb"), &places).expect("written");
    let files = desk.open().files();
    assert_eq!(files[0].database_type, "GeoLite2-City");
    assert_eq!(files[0].built, DateTime::from_timestamp(1_790_000_000, 0));
    assert_eq!((files[0].schema, files[0].ip_version), (Schema::Nested, 6));
    assert_eq!((files[1].schema, files[1].ip_version), (Schema::Flat, 4));
    assert!(files[0].attribution.expect("known").contains("MaxMind"));
    assert!(files[1].attribution.expect("known").contains("DB-IP"));
    assert_eq!(files[0].bytes, fs::metadata(desk.file("1.mmdb")).expect("there").len());
}

#[test]
fn truncated_empty_foreign_and_useless_files_are_refused_and_the_others_answer() {
    let desk = Desk::new();
    berlin(&desk);
    let whole = fs::read(desk.file("city.mmdb")).expect("read");
    fs::write(desk.file("half.mmdb"), &whole[..whole.len() / 2]).expect("written");
    fs::write(desk.file("empty.mmdb"), b"").expect("written");
    fs::write(desk.file("foreign.mmdb"), b"<html>quota exceeded</html>").expect("written");
    let mut holed = whole.clone();
    let metadata = holed.windows(14).position(|w| w == b"\xab\xcd\xefMaxMind.com").expect("there");
    holed[metadata / 2..metadata].fill(0xff);
    fs::write(desk.file("holed.mmdb"), holed).expect("written");
    GeoFile::new("GeoIP2-Anonymous-IP")
        .network("192.0.2.0/24", json!({"is_anonymous": true}))
        .write(&desk.file("useless.mmdb"))
        .expect("written");
    fs::create_dir(desk.file("directory.mmdb")).expect("made");
    fs::write(desk.file("README.md"), b"not a file of places").expect("written");
    let geo = desk.open();
    assert_eq!(ask(&geo, "192.0.2.1"), "DE/Berlin/-");
    assert_eq!(geo.files().len(), 1);
}

#[test]
fn a_replaced_file_is_live_without_a_restart_and_cached_places_do_not_outlive_it() {
    let desk = Desk::new();
    berlin(&desk);
    let geo = desk.open();
    assert_eq!(ask(&geo, "192.0.2.1"), "DE/Berlin/-");
    assert!(!geo.reload_if_changed(), "nothing changed");
    write_city(&desk.file("city.mmdb"), &[("192.0.2.0/24", "FR", "Paris")]).expect("written");
    assert!(geo.reload_if_changed());
    assert_eq!(ask(&geo, "192.0.2.1"), "FR/Paris/-");
    write_asn(&desk.file("asn.mmdb"), &[("192.0.2.0/24", 64496, "Example")]).expect("written");
    assert!(geo.reload_if_changed(), "a new file is noticed");
    assert_eq!(ask(&geo, "192.0.2.1"), "FR/Paris/64496");
    fs::remove_file(desk.file("city.mmdb")).expect("removed");
    assert!(geo.reload_if_changed(), "so is one that is gone");
    assert_eq!(ask(&geo, "192.0.2.1"), "-/-/64496");
    assert_eq!(fs::read_dir(desk.data.join("geoip")).expect("read").count(), 1, "and its copy");
}

#[test]
fn a_bad_replacement_leaves_the_old_file_in_use_over_a_restart_too() {
    let desk = Desk::new();
    berlin(&desk);
    let geo = desk.open();
    let whole = fs::read(desk.file("city.mmdb")).expect("read");
    for bad in [&whole[..whole.len() - 40], b"<html>", b""] {
        fs::write(desk.file("city.mmdb"), bad).expect("written");
        assert!(!geo.reload_if_changed());
        assert_eq!(ask(&geo, "192.0.2.1"), "DE/Berlin/-");
    }
    drop(geo);
    let geo = desk.open();
    assert_eq!(ask(&geo, "192.0.2.1"), "DE/Berlin/-", "the last good copy answers");
    write_city(&desk.file("city.mmdb"), &[("192.0.2.0/24", "FR", "Paris")]).expect("written");
    assert!(geo.reload_if_changed());
    assert_eq!(ask(&geo, "192.0.2.1"), "FR/Paris/-");
}

#[test]
fn truncating_the_source_in_place_is_not_felt() {
    let desk = Desk::new();
    berlin(&desk);
    let geo = desk.open();
    let source = OpenOptions::new().write(true).open(desk.file("city.mmdb")).expect("opened");
    source.set_len(0).expect("truncated");
    // Had the source been mapped, this look-up would end the process with SIGBUS.
    assert_eq!(ask(&geo, "192.0.2.1"), "DE/Berlin/-");
}

#[test]
fn without_a_directory_for_copies_files_are_read_into_memory() {
    let desk = Desk::new();
    berlin(&desk);
    let geo = Geo::open(vec![desk.file("city.mmdb")], None, None);
    assert_eq!(ask(&geo, "192.0.2.1"), "DE/Berlin/-");
    fs::write(&desk.data, b"a file where the directory should be").expect("written");
    assert_eq!(ask(&desk.open(), "192.0.2.1"), "DE/Berlin/-");
}

#[test]
fn of_two_files_of_one_directory_the_newer_build_answers_of_two_listed_the_first() {
    let desk = Desk::new();
    let file = |epoch, city| {
        let record = json!({"country_code": "DE", "city": city});
        GeoFile::new("City").built(epoch).network("192.0.2.0/24", record)
    };
    file(1_700_000_000, "Old").write(&desk.file("a.mmdb")).expect("written");
    file(1_800_000_000, "New").write(&desk.file("b.mmdb")).expect("written");
    assert_eq!(ask(&desk.open(), "192.0.2.1"), "DE/New/-");
    let listed = vec![desk.file("a.mmdb"), desk.file("b.mmdb")];
    assert_eq!(ask(&Geo::open(listed, None, None), "192.0.2.1"), "DE/Old/-");
}

#[test]
fn the_same_files_under_other_names_are_the_same_build() {
    let (one, other) = (Desk::new(), Desk::new());
    berlin(&one);
    write_city(&other.file("x.mmdb"), &[("192.0.2.0/24", "DE", "Berlin")]).expect("written");
    assert_eq!(one.open().build(), other.open().build());
    write_city(&other.file("x.mmdb"), &[("192.0.2.0/24", "DE", "Bonn!!")]).expect("written");
    assert_ne!(one.open().build(), other.open().build());
}

#[test]
fn a_place_is_remembered_for_a_day_and_then_asked_for_again() {
    let desk = Desk::new();
    berlin(&desk);
    let geo = desk.open();
    let (known, unknown) = (ip("192.0.2.1"), ip("203.0.113.1"));
    let asked = |now| {
        geo.place(known, now);
        geo.place(unknown, now);
        (geo.look_ups().process, geo.look_ups().files)
    };
    assert_eq!(asked(noon()), (0, 2));
    assert_eq!(asked(noon()), (2, 2), "the unknown place is remembered too");
    assert_eq!(asked(noon() + Duration::seconds(CACHED_SECONDS - 1)), (4, 2));
    assert_eq!(asked(noon() + Duration::seconds(CACHED_SECONDS)), (4, 4));
    assert_eq!(asked(noon()), (4, 6), "nor is an answer of the future believed");
}

#[test]
fn replaced_fifty_times_under_load_no_answer_is_wrong_or_mixed() {
    const GENERATIONS: u64 = 50;
    let desk = Desk::new();
    // Even generations say this, odd ones that; country and city always agree.
    let generation = |n: u64| {
        let (country, city) = if n.is_multiple_of(2) { ("DE", "Berlin") } else { ("FR", "Paris") };
        let record = json!({"country": {"iso_code": country}, "city": {"names": {"en": city}}});
        let file = GeoFile::new("GeoLite2-City").built(1_790_000_000 + n);
        file.network("192.0.2.0/24", record).bytes().expect("bytes")
    };
    fs::write(desk.file("city.mmdb"), generation(0)).expect("written");
    let geo = Arc::new(desk.open());
    let (stop, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for reader in 0..4u8 {
            let (geo, stop, answers) = (&geo, &stop, &answers);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for last in 0..=255 {
                        let address = IpAddr::from([192, 0, 2, last ^ reader]);
                        let place = said(&geo.place(address, noon()));
                        assert!(["DE/Berlin/-", "FR/Paris/-"].contains(&&*place), "{place}");
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for n in 1..=GENERATIONS {
            // In place, as `cp` does, which a mapped source would not survive, or by a rename.
            let mut source = OpenOptions::new();
            let source = source.write(true).truncate(true).open(desk.file("city.mmdb"));
            let whole = generation(n);
            let mut source = source.expect("opened");
            source.write_all(&whole[..whole.len() / 2]).expect("written");
            assert!(!geo.reload_if_changed(), "half a file is not taken up");
            source.write_all(&whole[whole.len() / 2..]).expect("written");
            drop(source);
            assert!(geo.reload_if_changed());
            let expected = if n.is_multiple_of(2) { "DE/Berlin/-" } else { "FR/Paris/-" };
            assert_eq!(ask(&geo, "192.0.2.1"), expected, "generation {n}");
            let before = answers.load(Ordering::Relaxed);
            while answers.load(Ordering::Relaxed) < before + 256 {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(answers.load(Ordering::Relaxed) >= GENERATIONS * 256);
}

#[tokio::test]
async fn a_batch_answers_in_order_with_repeated_mapped_and_unknown_addresses() {
    let desk = Desk::new();
    write_city(
        &desk.file("city.mmdb"),
        &[("192.0.2.0/24", "DE", "Berlin"), ("198.51.100.0/24", "FR", "Paris")],
    )
    .expect("written");
    let geo = desk.open();
    let batch = ["198.51.100.1", "192.0.2.1", "203.0.113.1", "::ffff:192.0.2.1", "198.51.100.1"];
    let batch = batch.map(ip);
    let expected = ["FR/Paris/-", "DE/Berlin/-", "-/-/-", "DE/Berlin/-", "FR/Paris/-"];
    for _ in 0..2 {
        let places = geo.places(&batch, noon()).await;
        assert_eq!(places.iter().map(said).collect::<Vec<_>>(), expected);
    }
    assert_eq!(geo.look_ups(), LookUps { process: 5, files: 3, ..LookUps::default() });
    assert_eq!(geo.places(&[], noon()).await, []);
}
