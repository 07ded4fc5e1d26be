//! `blocked_ips`: see [`entries`](super::entries).

super::entries::entries_table!(blocked_ips);
