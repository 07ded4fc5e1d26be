#![no_main]

#[path = "../../crates/engine/tests/oracles/network.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::network(input));
