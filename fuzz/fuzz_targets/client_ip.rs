#![no_main]

#[path = "../../crates/engine/tests/oracles/client_ip.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::client_ip(input));
