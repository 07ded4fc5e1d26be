//! Holds an oracle of the fuzz targets against its seeds, and against many things that are nearly
//! seeds, so that `cargo test` notices when an oracle and the product part ways.
//!
//! It does not look at coverage and finds little that is new: that is what cargo-fuzz is for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fastrand::Rng;

use crate::report::seed;

/// No mutated input is longer, in bytes.
const LONGEST: usize = 3_000;

/// Runs `oracle` on every file in `fuzz/seeds/` of `target`, and on `mutations` of them.
///
/// # Panics
/// If the oracle does; the input is printed, ready to become a seed.
pub fn replay(target: &str, mutations: usize, oracle: fn(&[u8])) {
    let mut rng = Rng::with_seed(seed());
    let seeds = seeds(target);
    for seed in &seeds {
        judge(oracle, seed);
    }
    for _ in 0..mutations {
        let mut input = seeds[rng.usize(..seeds.len())].clone();
        for _ in 0..=rng.u8(..4) {
            let other = &seeds[rng.usize(..seeds.len())];
            mutate(&mut input, other, &mut rng);
        }
        input.truncate(LONGEST);
        judge(oracle, &input);
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let files = directory.read_dir().unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    // In order, so that a seed of the mutations means the same everywhere.
    paths.sort();
    assert!(!paths.is_empty(), "{directory:?} holds no seeds");
    paths.iter().map(|path| std::fs::read(path).expect("a file that can be read")).collect()
}

fn judge(oracle: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| oracle(input))) {
        eprintln!("the input was b\"{}\"", input.escape_ascii());
        std::panic::resume_unwind(panic);
    }
}

/// Changes a little, somewhere.
fn mutate(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let at = rng.usize(..=input.len());
    let end = (at + rng.usize(..16)).min(input.len());
    let from = rng.usize(..=other.len());
    let part = &other[from..(from + rng.usize(..24)).min(other.len())];
    match rng.u8(..8) {
        0 => drop(input.drain(at..end)),
        1 => drop(input.splice(at..at, part.iter().copied())),
        2 => drop(input.splice(at..end, part.iter().copied())),
        3 => drop(input.splice(at..at, input[at..end].repeat(1 + rng.usize(..80)))),
        4 => input.truncate(at),
        5 => input.insert(at, rng.u8(..)),
        6 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.u8(..8)),
        _ => input.iter_mut().skip(at).take(1).for_each(|byte| *byte = rng.u8(..)),
    }
}
