#![no_main]

#[path = "../../crates/core/tests/oracles/access_log_line.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::access_log_line(input));
