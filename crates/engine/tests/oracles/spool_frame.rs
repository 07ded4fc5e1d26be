//! Segments of the spool, whole and damaged, against a reader that knows docs and nothing else.
//!
//! An input is a small program that builds the file of a former process: frames with right
//! checksums around records or around any bytes, junk, blank room, a seal; and then damage: bytes
//! changed, cut off, blanked or copied. What is judged: that every reading ends, that positions only
//! grow, that every whole frame up to the damage is read and nothing else is, and that the way on
//! behind damage leads to the next whole frame.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv6Addr;
use std::path::Path;

use ipwarden_engine::record::{MAX_BODY, Record, RecordRef, RecordVerdict, Reference};
use ipwarden_engine::spool::{Damage, Durability, ReadEnd, SegmentId, Spool, SpoolOptions};

const ID: [u8; 16] = *b"a segment's name";
const FIRST: usize = 64;
const SEAL: u32 = u32::MAX;
/// The longest file that is built, in bytes.
const LONGEST: usize = 40_000;

/// Judges one input.
///
/// # Panics
/// If a reading breaks a promise.
pub(crate) fn spool_frame(input: &[u8]) {
    let file = build(input);
    let dir = tempfile::tempdir().expect("a directory");
    let id = SegmentId::from_bytes(ID);
    let path = dir.path().join(format!("spool/{id}.segment"));
    fs::create_dir(dir.path().join("spool")).expect("a directory");
    fs::write(&path, &file).expect("a file");

    let spool = open(dir.path());
    if spool.segments().is_empty() {
        let damaged = dir.path().join("spool/damaged").read_dir();
        let aside = damaged.map_or(0, Iterator::count);
        match has_header(&file) {
            true => assert!(frame_at(&file, FIRST).is_none(), "a record went with its segment"),
            false => assert_eq!(aside, 1, "what is no segment is kept"),
        }
        return;
    }
    assert!(has_header(&file), "only what has a header is a segment");
    let most = input.len() % 3 + 1;
    let read = read_all(&spool, id, &file, most);
    assert_eq!(read, read_all(&spool, id, &file, usize::MAX), "in pieces of {most} and whole");
    for from in [1, 63, 65, file.len() as u64 + 9, 1 << 40] {
        let any = spool.read(id, from, 3, &mut Vec::new()).expect("readable");
        assert!(any.next >= from, "positions only grow");
    }
    drop(spool);
    let again = read_all(&open(dir.path()), id, &file, most);
    assert_eq!(again, read, "the same at the next start");
}

fn open(data_dir: &Path) -> Spool {
    let options = SpoolOptions {
        max_bytes: 1 << 20,
        segment_bytes: SpoolOptions::MIN_SEGMENT_BYTES,
        durability: Durability::Process,
        keep_damaged: std::time::Duration::MAX,
    };
    Spool::open(data_dir, options).expect("nothing in a file keeps the spool from opening")
}

/// Reads a segment to its end, on behind all damage, and holds each step against the bytes.
fn read_all(spool: &Spool, id: SegmentId, file: &[u8], most: usize) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = 0;
    // Every reading but the last either reads a record or passes damage.
    for _ in 0..=2 * file.len() {
        let before = records.len();
        let read = spool.read(id, at, most, &mut records).expect("readable");
        assert!(read.next >= at, "positions only grow");
        let mut expected = (at as usize).max(FIRST);
        for record in &records[before..] {
            let (body, next) = frame_at(file, expected).expect("only whole frames are read");
            assert_eq!(Record::decode(body).as_ref(), Ok(record));
            assert_eq!(encoded(record), body, "only what can have been written is accepted");
            expected = next;
        }
        assert_eq!(read.next, expected as u64, "no frame is passed over");
        let ahead = frame_at(file, expected);
        at = match read.end {
            ReadEnd::More => {
                assert_eq!(records.len() - before, most);
                read.next
            }
            ReadEnd::Open => panic!("nobody writes to this segment"),
            ReadEnd::Sealed => {
                assert!(ahead.is_none(), "a whole frame stands behind the end");
                if file.get(expected..expected + 8) != Some(&*seal(expected)) {
                    assert_eq!(next_whole(file, expected), None, "something whole was sealed off");
                }
                return records;
            }
            ReadEnd::Damaged { at, why, resume } => {
                let (expected_at, expected_resume) = match (why, ahead) {
                    (Damage::Record(error), Some((body, next))) => {
                        assert_eq!(Record::decode(body), Err(error));
                        (expected, Some(next))
                    }
                    (Damage::Behind, None) => {
                        assert_eq!(file[expected..expected + 8], seal(expected));
                        (expected + 8, None)
                    }
                    (Damage::Checksum | Damage::Unsealed, None) => {
                        (expected, next_whole(file, expected))
                    }
                    _ => panic!("{why:?} where {ahead:?} stands"),
                };
                assert_eq!(at, expected_at as u64);
                assert_eq!(resume, expected_resume.map(|to| to as u64), "the way on, {why:?}");
                let Some(resume) = resume else { return records };
                assert!(resume > at, "the way on leads on");
                resume
            }
        };
    }
    panic!("the readings do not end");
}

fn has_header(file: &[u8]) -> bool {
    file.get(..FIRST).is_some_and(|found| {
        let mut created = [0; 8];
        created.copy_from_slice(&found[32..40]);
        found == header(i64::from_le_bytes(created))
    })
}

fn header(created: i64) -> [u8; FIRST] {
    let mut header = [0; FIRST];
    header[..8].copy_from_slice(b"IPWSPOOL");
    header[8] = 1;
    header[16..32].copy_from_slice(&ID);
    header[32..40].copy_from_slice(&created.to_le_bytes());
    let checksum = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&checksum.to_le_bytes());
    header
}

fn checksum(at: usize, length_and_body: &[u8]) -> u32 {
    let seed = crc32fast::hash(&ID) ^ at as u32;
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(length_and_body);
    hasher.finalize()
}

/// Checksum, length, body, padded to four bytes.
fn framed(at: usize, body: &[u8]) -> Vec<u8> {
    let length_and_body = [&(body.len() as u32).to_le_bytes(), body].concat();
    let mut frame = checksum(at, &length_and_body).to_le_bytes().to_vec();
    frame.extend(length_and_body);
    frame.resize(frame.len().next_multiple_of(4), 0);
    frame
}

fn seal(at: usize) -> Vec<u8> {
    let length = SEAL.to_le_bytes();
    [checksum(at, &length).to_le_bytes(), length].concat()
}

/// The body of the whole frame at a position, and the position behind it.
fn frame_at(file: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (head, rest) = file.get(at..)?.split_first_chunk::<8>()?;
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if matches!(length, 0 | SEAL) {
        return None;
    }
    let body = rest.get(..length as usize)?;
    let whole = framed(at, body)[..8 + body.len()] == file[at..at + 8 + body.len()];
    whole.then_some((body, at + (8 + body.len()).next_multiple_of(4)))
}

/// Where, behind damage, the next whole frame or the seal stands.
fn next_whole(file: &[u8], damaged: usize) -> Option<usize> {
    let places = (damaged + 4..file.len()).step_by(4);
    places.into_iter().find(|at| {
        let is_frame = frame_at(file, *at).is_some_and(|(body, _)| body.len() <= MAX_BODY);
        is_frame || file.get(*at..*at + 8).is_some_and(|found| found == seal(*at))
    })
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut body = Vec::new();
    RecordRef {
        at: record.at,
        address: record.address,
        method: record.method.as_bytes(),
        path: record.path.as_bytes(),
        status: record.status,
        verdict: record.verdict,
        sensitive: record.sensitive,
        identity: record.identity.as_deref(),
        user_agent: record.user_agent.as_deref().map(str::as_bytes),
        reference: record.reference,
    }
    .encode(&mut body);
    body
}

/// Runs the program that an input is: steps, and behind a step 0 the damage.
fn build(input: &[u8]) -> Vec<u8> {
    let mut rest = Input(input);
    let mut file = header(i64::from(rest.byte())).to_vec();
    let mut places = BTreeMap::new();
    while file.len() < LONGEST && !rest.0.is_empty() {
        let at = file.len();
        match rest.byte() % 10 {
            0 => break,
            1..=3 => {
                let body = rest.record();
                file.extend(framed(at, &body));
            }
            4 => {
                let length = usize::from(rest.byte()) + 1;
                let body = rest.bytes(length).to_vec();
                file.extend(framed(at, if body.is_empty() { b"?" } else { &body }));
            }
            5 => file.extend(framed(at + 4, &rest.record())),
            6 => {
                let length = usize::from(rest.byte());
                file.extend(rest.bytes(length));
            }
            7 => file.resize(at + 64 * usize::from(rest.byte()), 0),
            8 => file.extend(seal(at)),
            // A record that no writer writes, in a frame that is right.
            _ => {
                let mut body = rest.record();
                let changed = usize::from(rest.byte()) % body.len();
                body[changed] ^= rest.byte();
                file.extend(framed(at, &body));
            }
        }
        places.insert(places.len(), at);
    }
    while !rest.0.is_empty() && !file.is_empty() {
        // A step of the program, or any byte of the file.
        let step = usize::from(rest.byte());
        let near = usize::from(rest.byte());
        let start = places.get(&step).map_or(step * 256, |at| *at);
        let at = (start + near).min(file.len() - 1);
        match rest.byte() % 5 {
            0 => file[at] ^= rest.byte().max(1),
            1 => file.truncate(at),
            2 => {
                let end = (at + 16 * usize::from(rest.byte())).min(file.len());
                file[at..end].fill(0);
            }
            3 => {
                let end = (at + 4 * usize::from(rest.byte())).min(file.len());
                let to = 4 * usize::from(rest.byte());
                if to + (end - at) <= file.len() {
                    file.copy_within(at..end, to);
                }
            }
            _ => file.extend(seal(file.len())),
        }
    }
    file
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(length.min(self.0.len()));
        self.0 = tail;
        head
    }

    /// The body of a record made from whatever bytes come next.
    fn record(&mut self) -> Vec<u8> {
        let kind = self.byte();
        let address = Ipv6Addr::from_bits(u128::from(self.byte()) << 112 | 0xffff_0000_0000);
        let lengths = [self.byte(), self.byte(), self.byte()].map(|length| usize::from(length) / 4);
        let path = self.bytes(lengths[0]);
        let path = path.repeat(if kind & 64 != 0 { 100 } else { 1 });
        let name = String::from_utf8_lossy(self.bytes(lengths[1]));
        let agent = self.bytes(lengths[2]);
        let mut body = Vec::new();
        RecordRef {
            at: i64::from(kind) << 40,
            address: address.into(),
            method: b"GET",
            path: &path,
            status: 200,
            verdict: RecordVerdict::ALL[usize::from(kind % 3)],
            sensitive: kind & 8 != 0,
            identity: (kind & 16 != 0).then_some(&*name),
            user_agent: (kind & 32 != 0).then_some(agent),
            reference: Reference::from_bits(u64::from(kind)).expect("eight bits"),
        }
        .encode(&mut body);
        assert_eq!(Record::decode(&body).map(|record| encoded(&record)), Ok(body.clone()));
        body
    }
}
