#![no_main]

#[path = "../../crates/engine/tests/oracles/spool_frame.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::spool_frame(input));
