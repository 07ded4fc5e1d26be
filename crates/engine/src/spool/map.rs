//! A segment's bytes in memory: how a record gets to the kernel without a call of it.
//!
//! What is stored here is in the page cache at once, where it outlives this process just like what
//! `write(2)` has put there, for a thirtieth of its price: a record costs some 30 ns instead of 900, and
//! that was the largest part of what the guard adds to a request.
//!
//! # Why this is sound
//! This is the one file of the engine that may say `unsafe`. It does so to tell the processor which bytes
//! are next, which reads and writes nothing, and to see the mapping as a slice of [`AtomicU32`]:
//! - The mapping begins at a page, so every word is aligned; the slice ends at the last whole word of it,
//!   and lives no longer than the [`MmapRaw`] that it borrows, which is unmapped when it is dropped.
//! - It is only ever stored to, in whole words, atomically, so that two writers, the kernel, and another
//!   process that has the file mapped may at worst mix up words, and the checksum of a frame tells.
//! - A word that the file does not hold any more (somebody has cut it) or that the disk cannot take ends
//!   the process by SIGBUS; it breaks no promise of the language. So that it does not come to that:
//!   - the file's blocks are reserved before it is mapped, so a full disk refuses the segment instead;
//!   - only [`seal_file`](super::segment::seal_file) cuts a segment, after it was retired, and nothing is
//!     stored here afterwards: `Segment::put` is called between `claim` and `release` only;
//!   - words are stored only where the kernel has made the pages present and writable ([`Map::reaches`]),
//!     as far as it can be asked to (Linux 5.14); where it will not, the caller writes to the file.
//!
//!   What is left is a stranger who cuts a file in a directory that is private and locked, and a disk that
//!   fails for good between two records, on a file system that then takes back a page it had granted.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{Advice, MmapRaw};

/// So many bytes are made present at once, ahead of the writer: 64 calls of the kernel for a segment, and
/// an idle worker holds no more than this in memory.
const STEP: u64 = 64 << 10;

const WORD: usize = size_of::<u32>();

/// Most frames are shorter than this.
const EXPECTED: usize = 4 * LINE;

/// Of a cache.
const LINE: usize = 64;

/// The mapped bytes of a segment that is being written.
#[derive(Debug)]
pub(super) struct Map {
    memory: MmapRaw,
    /// The bytes before this position are present and writable.
    present: AtomicU64,
}

impl Map {
    /// Maps the whole file, whose blocks are reserved.
    ///
    /// # Errors
    /// When its file system cannot: some of those that containers share with their host.
    pub(super) fn of(file: &File) -> io::Result<Map> {
        Ok(Map { memory: MmapRaw::map_raw(file)?, present: AtomicU64::new(0) })
    }

    /// Makes the bytes before `end` present; `false` if that is not possible.
    pub(super) fn reaches(&self, end: u64) -> bool {
        let present = self.present.load(Ordering::Relaxed);
        end <= present || self.make_present(present, end)
    }

    #[cold]
    fn make_present(&self, from: u64, end: u64) -> bool {
        let size = self.memory.len() as u64;
        if end > size {
            return false;
        }
        let to = end.next_multiple_of(STEP).min(size);
        let made =
            self.memory.advise_range(Advice::PopulateWrite, from as usize, (to - from) as usize);
        match made {
            Ok(()) => self.present.store(to, Ordering::Relaxed),
            // A kernel before 5.14 makes each page present when it is first stored to.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.present.store(size, Ordering::Relaxed);
            }
            Err(_) => return false,
        }
        true
    }

    /// Puts a closed frame at `at`, both multiples of four bytes and within what [`Map::reaches`]: its
    /// body first, then its checksum, its length last. Whoever finds the length finds the rest.
    pub(super) fn put(&self, at: u64, frame: &[u8]) {
        let from = at as usize / WORD;
        store(&self.words()[from..from + frame.len() / WORD], frame);
        self.expect(at as usize + frame.len());
    }

    /// Has the bytes from `at` on brought into the cache for the next frame. Without this each frame waits
    /// 100 ns for memory, which is three times what the rest of it takes.
    fn expect(&self, at: usize) {
        #[cfg(target_arch = "x86_64")]
        for ahead in (at..at + EXPECTED).step_by(LINE) {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            let next = self.memory.as_ptr().wrapping_add(ahead).cast::<i8>();
            // SAFETY: a hint; the processor ignores it where there is no memory.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(next) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }

    fn words(&self) -> &[AtomicU32] {
        let first = self.memory.as_mut_ptr().cast::<AtomicU32>();
        // SAFETY: see the head of this file. The mapping is readable and writable, holds this many whole
        // words from an aligned address on, and stays mapped for as long as `self` is borrowed.
        unsafe { std::slice::from_raw_parts(first, self.memory.len() / WORD) }
    }
}

/// Stores a frame in as many words as it fills: its body, its checksum, its length.
fn store(words: &[AtomicU32], frame: &[u8]) {
    let (given, _) = frame.as_chunks::<WORD>();
    let [checksum, length, body @ ..] = given else { return };
    for (word, bytes) in words[2..].iter().zip(body) {
        word.store(u32::from_ne_bytes(*bytes), Ordering::Relaxed);
    }
    words[0].store(u32::from_ne_bytes(*checksum), Ordering::Relaxed);
    words[1].store(u32::from_ne_bytes(*length), Ordering::Release);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn mapped(size: u64) -> (File, Map) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        let map = Map::of(&file).unwrap();
        (file, map)
    }

    #[test]
    fn what_is_put_can_be_read_from_the_file_at_once() {
        let (mut file, map) = mapped(2 * STEP);
        let frame: Vec<u8> = (1..=20).collect();
        let at = STEP - 8;
        assert!(map.reaches(at + frame.len() as u64));
        map.put(at, &frame);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let at = at as usize;
        assert_eq!(bytes[at..at + 20], frame[..]);
        assert!(bytes[..at].iter().chain(&bytes[at + 20..]).all(|&byte| byte == 0));
    }

    #[test]
    fn words_are_stored_wherever_they_lie() {
        let words: Vec<AtomicU32> = (0..5).map(|_| AtomicU32::new(0)).collect();
        let frame: Vec<u8> = (1..=20).collect();
        store(&words, &frame);
        let stored = words.iter().flat_map(|word| word.load(Ordering::Acquire).to_ne_bytes());
        assert!(stored.eq(frame));
    }

    #[test]
    fn nothing_reaches_past_the_end_of_the_file() {
        let (_file, map) = mapped(STEP);
        assert!(map.reaches(STEP));
        assert!(!map.reaches(STEP + 1));
    }

    #[test]
    fn a_file_that_was_cut_is_found_out_before_anything_is_stored() {
        let (file, map) = mapped(4 * STEP);
        assert!(map.reaches(1));
        file.set_len(STEP).unwrap();
        assert!(!map.reaches(STEP + 1));
    }
}
