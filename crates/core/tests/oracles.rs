//! The oracle of the fuzz target for access logs, on its seeds and on mutations of them. `just fuzz`
//! runs it for longer.

mod oracles {
    pub(crate) mod access_log_line;
}

use ipwarden_testbed::fuzz::replay;

#[test]
fn a_line_of_an_access_log_is_what_its_quotes_and_spaces_say() {
    replay("access_log_line", 8_000, oracles::access_log_line::access_log_line);
}
