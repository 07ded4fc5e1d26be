#![no_main]

#[path = "../../crates/engine/tests/oracles/lists.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::lists(input));
