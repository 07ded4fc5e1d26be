//! `crowdsec-firewall-bouncer`, in a network of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use ipwarden_core::keys::Role;

use super::client::{allow, block, ipctl};
use super::common::{Bed, Launch, eventually};
use super::real::{Program, SOON, installed};

/// Takes what comes to the API's address in the namespace out of it, by a socket in the file system.
const RELAY: &str = r#"
import socket, sys, threading
def copy(one, other):
    while data := one.recv(65536):
        other.sendall(data)
    other.shutdown(socket.SHUT_WR)
listener = socket.create_server(("127.0.0.1", 8081))
open("listening", "w")
while True:
    one, _ = listener.accept()
    other = socket.socket(socket.AF_UNIX)
    other.connect(sys.argv[1])
    threading.Thread(target=copy, args=(one, other), daemon=True).start()
    threading.Thread(target=copy, args=(other, one), daemon=True).start()
"#;

/// A mode of the bouncer.
struct Mode {
    /// Its settings.
    settings: &'static str,
    /// Done before it starts; fails where the kernel forbids it.
    prepare: String,
    /// Shows what the kernel holds.
    show: String,
}

/// A running bouncer, and where it writes what the kernel holds.
struct Firewall {
    _program: Program,
    shown: PathBuf,
    _dir: tempfile::TempDir,
}

impl Firewall {
    /// `None` where the kernel does not let us.
    async fn start(bed: &Bed, mode: &Mode) -> Option<Firewall> {
        let dir = tempfile::tempdir().unwrap();
        let gate = bed.first().gate.strip_prefix("http://").unwrap();
        relay(dir.path().join("gate.sock"), gate.parse().unwrap());
        let settings = format!(
            "{}pid_dir: {here}\nupdate_frequency: 1s\ndaemonize: false\nlog_mode: stdout\n\
             log_dir: {here}\nlog_level: info\napi_url: http://127.0.0.1:8081/\napi_key: {}\n\
             disable_ipv6: false\ndeny_action: DROP\ndeny_log: false\nsupported_decisions_types:\n  - ban\n\
             blacklists_ipv4: crowdsec-blacklists\nblacklists_ipv6: crowdsec6-blacklists\n\
             prometheus:\n  enabled: false\n",
            mode.settings,
            bed.key(Role::Bouncer).await,
            here = dir.path().display(),
        );
        std::fs::write(dir.path().join("bouncer.yaml"), settings).unwrap();
        std::fs::write(dir.path().join("relay.py"), RELAY).unwrap();
        let script = format!(
            "set -e\nPATH=$PATH:/usr/sbin\n{ip} link set lo up\n{prepare}\necho in its own network\n\
             cd {here}\npython3 relay.py gate.sock & relay=$!\n\
             until [ -e listening ]; do sleep 0.1; done\n\
             {bouncer} -c bouncer.yaml & bouncer=$!\ntrap 'kill $relay $bouncer' TERM EXIT\n\
             while kill -0 $bouncer; do {show} >shown.new && mv shown.new shown; sleep 0.3; done\n",
            ip = installed("ip").display(),
            prepare = mode.prepare,
            show = mode.show,
            bouncer = installed("crowdsec-firewall-bouncer").display(),
            here = dir.path().display(),
        );
        let alone = ["--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child"];
        let mut program =
            Program::start(Command::new("unshare").args(alone).args(["sh", "-c", &script]));
        let (began, _) = eventually(SOON, "it begins or is not let", async || {
            match program.child.try_wait().unwrap() {
                Some(_) => Some(false),
                None => program.said().contains("in its own network").then_some(true),
            }
        })
        .await;
        if !began {
            eprintln!("NOT RUN: this kernel does not let us: {}", program.said());
            return None;
        }
        Some(Firewall { _program: program, shown: dir.path().join("shown"), _dir: dir })
    }

    /// What the kernel holds.
    fn shown(&self) -> String {
        std::fs::read_to_string(&self.shown).unwrap_or_default()
    }

    async fn holds(&self, what: &str, any: bool) {
        eventually(SOON, what, async || (self.shown().contains(what) == any).then_some(())).await;
    }
}

/// Carries what comes to a socket in the file system to an address.
fn relay(socket: PathBuf, to: SocketAddr) {
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut one, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut other = tokio::net::TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut one, &mut other).await;
            });
        }
    });
}

/// Blocks and unblocks, and sees the kernel follow.
async fn follows(bed: &Bed, firewall: &Firewall) {
    let replica = bed.first();
    firewall.holds("203.0.113.9 timeout", true).await;
    firewall.holds("2001:db8:9::1 timeout", true).await;
    ipctl(replica, &["block", "203.0.113.10", "--for", "1h"]);
    firewall.holds("203.0.113.10 timeout", true).await;
    ipctl(replica, &["unblock", "203.0.113.9"]);
    firewall.holds("203.0.113.9 timeout", false).await;
    // What is allowed is taken out.
    allow(bed, "203.0.113.10").await;
    firewall.holds("203.0.113.10 timeout", false).await;
    assert!(firewall.shown().contains("2001:db8:9::1"), "the rest stays:\n{}", firewall.shown());
}

async fn bed() -> Bed {
    let bed = Bed::embedded(Launch::default()).await;
    block(&bed, "203.0.113.9", "4h").await;
    block(&bed, "2001:db8:9::1", "permanent").await;
    bed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowdsec_firewall_bouncer_keeps_its_sets_of_nftables() {
    let bed = bed().await;
    let show = format!("{} list ruleset", installed("nft").display());
    let settings = "mode: nftables\nnftables:\n  ipv4:\n    enabled: true\n    set-only: false\n\
                    \x20   table: crowdsec\n    chain: crowdsec-chain\n  ipv6:\n    enabled: true\n\
                    \x20   set-only: false\n    table: crowdsec6\n    chain: crowdsec6-chain\n";
    let mode = Mode { settings, prepare: format!("{show} >/dev/null"), show };
    if let Some(firewall) = Firewall::start(&bed, &mode).await {
        follows(&bed, &firewall).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowdsec_firewall_bouncer_fills_sets_of_ipset_with_networks_too() {
    let bed = bed().await;
    block(&bed, "198.51.100.0/24", "permanent").await;
    block(&bed, "2001:db8:a::/48", "4h").await;
    let ipset = installed("ipset").display().to_string();
    // In this mode it fills sets that are there.
    let prepare = format!(
        "{ipset} create crowdsec-blacklists hash:net timeout 300\n\
         {ipset} create crowdsec6-blacklists hash:net family inet6 timeout 300"
    );
    let mode = Mode { settings: "mode: ipset\n", prepare, show: format!("{ipset} save") };
    let Some(firewall) = Firewall::start(&bed, &mode).await else { return };
    firewall.holds("add crowdsec6-blacklists 2001:db8:a::/48 timeout", true).await;
    firewall.holds("add crowdsec-blacklists 198.51.100.0/24 timeout", true).await;
    let shown = firewall.shown();
    let (_, behind) = shown.split_once("198.51.100.0/24 timeout ").unwrap();
    let seconds: u32 = behind.split_whitespace().next().unwrap().parse().unwrap();
    assert!((2_000_000..2_147_483).contains(&seconds), "as long as ipset can: {seconds} s");
    follows(&bed, &firewall).await;
    ipctl(bed.first(), &["unblock", "198.51.100.0/24"]);
    firewall.holds("198.51.100.0/24", false).await;
}
