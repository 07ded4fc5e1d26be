//! Ports for servers that are told theirs, and who listens on them.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Runs `start` with ports that `find` finds until it succeeds: between our look and the server's
/// bind somebody else may take one.
pub(crate) fn on_a_port<T>(
    find: fn() -> anyhow::Result<u16>,
    mut start: impl FnMut(u16) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut last = None;
    for _ in 0..3 {
        match start(find()?) {
            Ok(started) => return Ok(started),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("three attempts left three errors"))
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
    Ok(listener.local_addr()?.port())
}

/// A port that nobody listens on, and that the kernel gives to no outgoing connection: whoever takes
/// it may leave it and take it again.
pub fn lasting_port() -> anyhow::Result<u16> {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    let range = std::fs::read_to_string(RANGE).context(RANGE)?;
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok());
    let first: u16 = first.context("the first port of outgoing connections")?;
    (0..1_000)
        .map(|_| fastrand::u16(1_024..first))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .with_context(|| format!("no free port below {first}"))
}

/// Whether this process listens on this port, and not somebody else who was quicker. Others' processes
/// show that only to root.
pub(crate) fn listens(pid: u32, port: u16, _directory: &Path) -> bool {
    let listening = listening(pid, port);
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut targets = open.filter_map(|file| std::fs::read_link(file.path()).ok());
    targets.any(|target| listening.contains(&target))
}

/// What an open file that is a socket listening on this port is a link to, as this process's network has
/// them: `socket:[inode]`. See proc_pid_net(5).
fn listening(pid: u32, port: u16) -> Vec<PathBuf> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    let tables = ["tcp", "tcp6"].map(|table| format!("/proc/{pid}/net/{table}"));
    let tables = tables.map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let inode = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
        let is_it = local.ends_with(&port) && *state == LISTEN;
        is_it.then(|| PathBuf::from(format!("socket:[{inode}]")))
    };
    tables.iter().flat_map(|table| table.lines()).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::listens;

    #[test]
    fn only_who_listens_itself_is_said_to() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("some port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let mut other = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat runs");
        let here = Path::new("/");
        assert!(listens(std::process::id(), port, here));
        assert!(!listens(other.id(), port, here), "its port is another process's");
        drop(other.stdin.take());
        other.wait().expect("cat ends with its input");
        drop(listener);
        assert!(!listens(std::process::id(), port, here));
    }
}
