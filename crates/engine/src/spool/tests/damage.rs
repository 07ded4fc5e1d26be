//! Torn frames, lost lengths, files that are no segments.

use super::*;

fn two_records_and_a_third(dir: &TempDir) -> (Spool, SpoolWriter, SegmentId, u64, Vec<u8>) {
    let spool = open(dir, SMALL);
    let mut writer = spool.writer();
    append(&mut writer, 0..2);
    let id = only_segment(&spool).id;
    let at = spool.read(id, 0, 9, &mut Vec::new()).unwrap().next;
    let frame = Draft::of(&numbered(b"/path", 2)).close(Seed::of(id), at).to_vec();
    (spool, writer, id, at, frame)
}

#[test]
fn a_torn_frame_is_not_there_yet_while_its_segment_is_open() {
    let dir = temp_dir();
    let (spool, writer, id, at, frame) = two_records_and_a_third(&dir);
    let file = fs::OpenOptions::new().write(true).open(path_of(&spool, id)).unwrap();
    let expect_torn = |what: &str| {
        let mut records = Vec::new();
        let read = spool.read(id, 0, 9, &mut records).unwrap();
        assert_eq!((records.len(), read), (2, Read { next: at, end: ReadEnd::Open }), "{what}");
    };
    let body = HEAD + frame[HEAD..].iter().rposition(|&byte| byte != 0).unwrap();
    for end in 0..=body {
        file.write_all_at(&frame[..end], at).unwrap();
        expect_torn(&format!("{end} bytes from the front"));
    }
    file.write_all_at(&vec![0; frame.len()], at).unwrap();
    for start in (4..=frame.len()).rev() {
        file.write_all_at(&frame[start..], at + start as u64).unwrap();
        expect_torn(&format!("all but {start} bytes from the back"));
    }
    file.write_all_at(&frame, at).unwrap();
    assert_eq!(read_all(&spool).0, [0, 1, 2]);
    drop(writer);
}

#[test]
fn a_torn_frame_in_a_sealed_segment_is_damage_with_its_position() {
    for end in 1.. {
        let dir = temp_dir();
        let (spool, mut writer, id, at, frame) = two_records_and_a_third(&dir);
        append(&mut writer, 2..4);
        drop(writer);
        let mut torn = vec![0; frame.len()];
        let Some(kept) = frame.get(..end) else { break };
        torn[..end].copy_from_slice(kept);
        if torn == frame {
            break;
        }
        let file = fs::OpenOptions::new().write(true).open(path_of(&spool, id)).unwrap();
        file.write_all_at(&torn, at).unwrap();
        let mut records = Vec::new();
        let read = spool.read(id, 0, 9, &mut records).unwrap();
        let after = at + frame.len() as u64;
        let (why, resume) = (Damage::Checksum, Some(after));
        assert_eq!(read.end, ReadEnd::Damaged { at, why, resume }, "{end} bytes");
        assert_eq!((records.len(), read.next), (2, at), "{end} bytes");
        let read = spool.read(id, after, 9, &mut records).unwrap();
        assert_eq!((records[2].at, read.end), (3, ReadEnd::Sealed));
        let to = spool.set_aside(id, at).unwrap();
        assert!(to.ends_with(format!("spool/damaged/{id}-{at}.segment")), "{}", to.display());
        assert_eq!(spool.segments(), []);
        assert_eq!(spool.status().damaged, 1);
    }
}

#[test]
fn what_a_killed_writer_left_unfinished_is_no_damage() {
    let dir = temp_dir();
    let (spool, writer, id, at, frame) = two_records_and_a_third(&dir);
    let path = path_of(&spool, id);
    let killed = fs::read(&path).unwrap();
    drop((writer, spool));
    for start in HEAD..=frame.len() {
        let mut bytes = killed.clone();
        let at = at as usize;
        bytes[at + start..at + frame.len()].copy_from_slice(&frame[start..]);
        fs::write(&path, bytes).unwrap();
        let spool = open(&dir, SMALL);
        assert_eq!(read_all(&spool), (vec![0, 1], vec![ReadEnd::Sealed]), "from byte {start}");
    }
}

#[test]
fn a_length_lost_with_frames_behind_it_is_damage_in_a_leftover_too() {
    // Few frames behind it look like one that a killed writer left unfinished, many do not.
    for behind in [1, 47] {
        let dir = temp_dir();
        let (spool, mut writer, id, at, frame) = two_records_and_a_third(&dir);
        append(&mut writer, 2..3 + behind);
        let path = path_of(&spool, id);
        let mut killed = fs::read(&path).unwrap();
        drop((writer, spool));
        killed[at as usize + 4..at as usize + 8].fill(0);
        fs::write(&path, killed).unwrap();
        let spool = open(&dir, SMALL);
        let resume = at + frame.len() as u64;
        let damaged = ReadEnd::Damaged { at, why: Damage::Checksum, resume: Some(resume) };
        assert_eq!(read_all(&spool), (vec![0, 1], vec![damaged]));
        let mut records = Vec::new();
        spool.read(id, resume, 99, &mut records).unwrap();
        assert_eq!(records.len() as i64, behind, "what is whole behind it");
    }
}

#[test]
fn a_segment_cut_short_anywhere_yields_what_is_whole_and_says_where_it_ends() {
    for killed in [false, true] {
        let dir = temp_dir();
        let (spool, writer, id, at, _) = two_records_and_a_third(&dir);
        let path = path_of(&spool, id);
        let unsealed = fs::read(&path).unwrap();
        drop((writer, spool));
        let whole = if killed { unsealed } else { fs::read(&path).unwrap() };
        let second = open(&dir, SMALL).read(id, 0, 1, &mut Vec::new()).unwrap().next;
        let body_end = |start: u64| {
            let length = &whole[start as usize + 4..start as usize + HEAD];
            start + HEAD as u64 + u64::from(u32::from_le_bytes(length.try_into().unwrap()))
        };
        for cut in FIRST..at + HEAD as u64 {
            fs::write(&path, &whole[..cut as usize]).unwrap();
            let spool = open(&dir, SMALL);
            let (numbers, ends) = read_all(&spool);
            // Padding is no loss.
            let there = [FIRST, second].into_iter().filter(|&start| body_end(start) <= cut).count();
            let place = [FIRST, second, at][there];
            assert!(numbers.into_iter().eq(0..there as i64), "cut at {cut}, killed: {killed}");
            let damaged = matches!(ends[0], ReadEnd::Damaged { at, .. } if at == place);
            assert!(damaged, "cut at {cut}, killed: {killed}: {ends:?}");
        }
    }
}

#[test]
fn bytes_behind_the_seal_are_reported_and_blank_ones_are_cut_off() {
    for (added, expected) in [([7; 100], false), ([0; 100], true)] {
        let dir = temp_dir();
        let (spool, writer, id, at, _) = two_records_and_a_third(&dir);
        let path = path_of(&spool, id);
        drop((writer, spool));
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], &added].concat()).unwrap();
        let spool = open(&dir, SMALL);
        let behind = at + HEAD as u64;
        let end = match expected {
            true => ReadEnd::Sealed,
            false => ReadEnd::Damaged { at: behind, why: Damage::Behind, resume: None },
        };
        assert_eq!(read_all(&spool), (vec![0, 1], vec![end]));
        // Where a whole copy of the segment ends is told apart from where this one does.
        assert_eq!(spool.read(id, at, 9, &mut Vec::new()).unwrap(), Read { next: at, end });
    }
}

#[test]
fn what_is_no_segment_is_set_aside_at_the_start_and_counted() {
    let dir = temp_dir();
    drop(open(&dir, SMALL));
    let spool = dir.path().join("spool");
    let segment = |number: u32| spool.join(format!("{number:032x}.segment"));
    fs::write(segment(7), [1; 100]).unwrap();
    fs::write(segment(8), []).unwrap();
    fs::create_dir(segment(9)).unwrap();
    fs::write(spool.join(format!("{:032x}.tmp", 10)), [1; 100]).unwrap();
    fs::create_dir(spool.join(format!("{:032x}.tmp", 11))).unwrap();
    fs::write(spool.join("notes.txt"), "of an operator").unwrap();
    for copy in ["", "-2"] {
        let opened = open(&dir, SMALL);
        assert_eq!(opened.segments(), []);
        let aside = spool.join(format!("damaged/{:032x}-0{copy}.segment", 7));
        assert_eq!(fs::read(aside).unwrap(), [1; 100], "another of the same name is kept, too");
        fs::write(segment(7), [1; 100]).unwrap();
        let expected = if copy.is_empty() { 3 } else { 1 };
        assert_eq!(opened.status().damaged, expected);
    }
    for number in [8, 9] {
        assert!(!segment(number).exists());
        assert!(spool.join(format!("damaged/{number:032x}-0.segment")).exists());
    }
    assert!(!spool.join(format!("{:032x}.tmp", 10)).exists());
    assert!(spool.join("notes.txt").exists());
}
