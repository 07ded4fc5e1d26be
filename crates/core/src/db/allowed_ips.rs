//! `allowed_ips`: see [`entries`](super::entries).

super::entries::entries_table!(allowed_ips);
