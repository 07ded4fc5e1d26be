#![no_main]

#[path = "../../crates/engine/tests/oracles/path.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::path(input));
