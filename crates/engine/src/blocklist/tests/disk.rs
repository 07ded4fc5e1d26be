use super::super::disk::*;
use super::*;

/// Both lists as they are written and read.
#[derive(Clone, Debug, PartialEq)]
struct Both {
    version: i64,
    made: i64,
    blocked: Vec<ListEntry>,
    allowed: Vec<ListEntry>,
}

impl Both {
    fn of(snapshot: &Snapshot) -> Both {
        let both = Both {
            version: snapshot.version(),
            made: snapshot.made(),
            blocked: snapshot.blocked().collect(),
            allowed: snapshot.allowed().collect(),
        };
        assert_eq!(snapshot.counts(), (both.blocked.len(), both.allowed.len()));
        both
    }

    fn encoded(&self) -> Vec<u8> {
        let [blocked, allowed] = [&self.blocked, &self.allowed].map(|list| list.iter().copied());
        encode(self.version, self.made, blocked, allowed)
    }
}

fn some() -> Both {
    Both {
        version: 41,
        made: 1_767_225_600_000_000,
        blocked: vec![
            entry("0.0.0.0", Some(NOW)),
            entry("10.0.0.0/8", None),
            ListEntry { by_scan: true, ..entry("255.255.255.255", Some(-1)) },
            entry("::/0", None),
            entry("2001:db8::/32", Some(NOW + 1)),
        ],
        allowed: vec![
            entry("192.0.2.0/24", None),
            entry("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some(0)),
        ],
    }
}

fn loaded(path: &std::path::Path) -> Both {
    Both::of(&load(path).unwrap().expect("it is there"))
}

#[test]
fn what_was_saved_is_loaded_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lists.snapshot");
    assert_eq!(load(&path).unwrap(), None);
    save(&path, 1, 0, [], []).unwrap();
    let empty = Both { version: 1, made: 0, blocked: vec![], allowed: vec![] };
    assert_eq!(loaded(&path), empty);
    save(&path, 41, some().made, some().blocked, some().allowed).unwrap();
    assert_eq!(loaded(&path), some());
    let names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(names, ["lists.snapshot"], "nothing is left beside it");
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let whole = some().encoded();
    assert_eq!(Both::of(&decode(whole.clone()).unwrap()), some());
    for length in 0..whole.len() {
        decode(whole[..length].to_vec()).expect_err("a piece is not the whole");
    }
}

#[test]
fn a_file_with_anything_behind_its_end_is_refused() {
    let mut longer = some().encoded();
    longer.push(0);
    assert!(matches!(decode(longer), Err(Damage::Length { .. })));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut bytes = some().encoded();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        decode(bytes.clone()).expect_err("a bit was flipped");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert_eq!(Both::of(&decode(bytes).unwrap()), some());
}

#[test]
fn counts_of_billions_in_a_small_file_reserve_nothing() {
    let mut bytes = encode(1, 0, [], []);
    bytes[28..44].fill(0xff);
    assert!(matches!(decode(bytes), Err(Damage::Length { expected, .. }) if expected > 1 << 38));
}

#[test]
fn a_prefix_that_cannot_be_is_refused_even_with_a_right_checksum() {
    let mut bytes = encode(1, 0, [entry("192.0.2.1", None)], []);
    for (place, wrong) in [(48, 33), (48, 8), (49, 2)] {
        let right = std::mem::replace(&mut bytes[place], wrong);
        let end = bytes.len() - 4;
        let checksum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(decode(bytes.clone()).unwrap_err(), Damage::Entry(1), "byte {place} as {wrong}");
        bytes[place] = right;
    }
}

#[test]
fn an_error_names_the_file_and_says_that_it_is_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lists.snapshot");
    std::fs::write(&path, "<html>").unwrap();
    let error = load(&path).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "the copy of the lists {} is ignored: it is not a copy of the lists",
            path.display()
        )
    );
    let error = load(directory.path()).unwrap_err().to_string();
    assert!(
        error.contains("so it is ignored") && error.contains(&*directory.path().to_string_lossy()),
        "{error}"
    );
}

#[test]
fn a_copy_that_cannot_be_written_leaves_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lists.snapshot");
    save(&path, 1, 0, [], []).unwrap();
    // A directory in the place of the new file cannot be opened for writing, not even by root.
    std::fs::create_dir(directory.path().join("lists.snapshot.new")).unwrap();
    assert!(matches!(save(&path, 2, 0, [], []), Err(DiskError::Write { .. })));
    assert_eq!(loaded(&path).version, 1);
}

proptest! {
    #[test]
    fn any_lists_come_back_from_their_bytes(
        version in any::<i64>(),
        made in any::<i64>(),
        blocked in prop::collection::vec(list_entry(), 0..50),
        allowed in prop::collection::vec(list_entry(), 0..50),
    ) {
        let read = decode(encode(version, made, blocked.clone(), allowed.clone())).unwrap();
        let narrow_first = |mut list: Vec<ListEntry>| { list.sort_by_key(|entry| entry.network.is_ipv6()); list };
        let both = Both { version, made, blocked: narrow_first(blocked), allowed: narrow_first(allowed) };
        prop_assert_eq!(Both::of(&read), both);
    }

    #[test]
    fn no_bytes_whatever_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut framed = b"ipwlists\x01\0\0\0".to_vec();
        framed.extend_from_slice(&bytes);
        prop_assert!(decode(framed).is_err());
        prop_assert!(decode(bytes).is_err());
    }
}
