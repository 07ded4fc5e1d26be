//! The oracles of the fuzz targets, on their seeds and on mutations of them. `just fuzz` runs them
//! for longer.

mod oracles {
    pub(crate) mod client_ip;
    pub(crate) mod lists;
    pub(crate) mod network;
    pub(crate) mod path;
    pub(crate) mod spool_frame;
}

use ipwarden_testbed::fuzz::replay;

#[test]
fn the_client_address_is_what_a_second_reading_of_the_design_says() {
    replay("client_ip", 8_000, oracles::client_ip::client_ip);
}

#[test]
fn networks_are_what_the_standard_library_and_ipnet_say() {
    replay("network", 8_000, oracles::network::network);
}

#[test]
fn lists_answer_as_a_search_through_all_entries_does() {
    replay("lists", 1_000, oracles::lists::lists);
}

#[test]
fn a_path_is_sensitive_if_some_plain_reader_serves_it_below_a_prefix() {
    replay("path", 2_000, oracles::path::path);
}

#[test]
fn a_damaged_segment_is_read_up_to_its_damage_and_on_behind_it() {
    replay("spool_frame", 500, oracles::spool_frame::spool_frame);
}
