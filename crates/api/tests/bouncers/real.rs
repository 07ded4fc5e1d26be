//! Bouncers as they are published, with their URL and key and nothing else of ours.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipwarden_core::keys::Role;
use tempfile::TempDir;

use super::client::{allow, block, ipctl};
use super::common::{Bed, Launch, eventually};

/// Bouncers ask every second here; the machine may be busy.
const SOON: Duration = Duration::from_secs(60);

/// A program of somebody else's; killed when dropped.
struct Program {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Program {
    fn start(command: &mut Command) -> Program {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::<Mutex<String>>::default();
        let outputs: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    *said.lock().unwrap() += &(line + "\n");
                }
            });
        }
        Program { child, said }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the bouncer said:\n{}", self.said());
        }
    }
}

/// A program that Debian installs, or how to get it.
fn installed(name: &str) -> PathBuf {
    ["/usr/bin", "/usr/sbin"]
        .map(|directory| Path::new(directory).join(name))
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| {
            panic!("no {name}: bash .ci/test installs it, or apt-get install {name}")
        })
}

async fn applied(bed: &Bed) -> serde_json::Value {
    let listed = ipctl(bed.first(), &["bouncer", "list", "-o", "json"]);
    serde_json::from_str(&listed).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pycrowdsec_streams_and_asks() {
    let bed = Bed::embedded(Launch::default()).await;
    let replica = bed.first();
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let python = target.join("bouncers/bin/python3");
    assert!(python.exists(), "no {}: bash .ci/test installs pycrowdsec there", python.display());
    block(&bed, "203.0.113.9", "4h").await;
    let key = bed.key(Role::Bouncer).await;
    let script = r#"
import json, sys, time
from pycrowdsec.client import QueryClient, StreamClient
url, key = sys.argv[1] + "/", sys.argv[2]
client = StreamClient(api_key=key, lapi_url=url, interval=1)
client.run()
query = QueryClient(api_key=key, lapi_url=url)
print("asked", query.get_action_for("203.0.113.9"), query.get_decisions_for("203.0.113.77"), flush=True)
while client.is_running():
    print("held", " ".join(sorted(client.get_current_decisions())), ".", flush=True)
    time.sleep(0.2)
"#;
    let program = Program::start(Command::new(python).args(["-c", script, &replica.gate, &key]));
    let says = async |what: &str| {
        eventually(SOON, what, async || program.said().contains(what).then_some(())).await;
    };
    says("asked ban None").await;
    says("held 203.0.113.9/32 .").await;
    ipctl(replica, &["block", "2001:db8:9::/48"]);
    says("held 2001:db8:9::/48 203.0.113.9/32 .").await;
    ipctl(replica, &["unblock", "203.0.113.9"]);
    says("held 2001:db8:9::/48 .").await;
    assert_eq!(applied(&bed).await[0]["type"], "python-bouncer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowdsec_custom_bouncer_runs_its_program_for_each_change_and_misses_nothing_when_killed() {
    let bed = Bed::embedded(Launch::default()).await;
    let replica = bed.first();
    let bouncer = installed("crowdsec-custom-bouncer");
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("told");
    std::fs::write(&told, "").unwrap();
    let script = dir.path().join("tell");
    std::fs::write(&script, format!("#!/bin/sh\necho \"$1 $2 $3 $4\" >> {}\n", told.display()))
        .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    block(&bed, "203.0.113.9", "4h").await;
    let settings = format!(
        "bin_path: {}\nfeed_via_stdin: false\ntotal_retries: 0\nscenarios_containing: []\n\
         scenarios_not_containing: []\norigins: []\npiddir: {dir}\nupdate_frequency: 1s\n\
         cache_retention_duration: 1s\ndaemonize: false\nlog_mode: stdout\nlog_dir: {dir}\n\
         log_level: info\napi_url: {}/\napi_key: {}\nprometheus:\n  enabled: false\n",
        script.display(),
        replica.gate,
        bed.key(Role::Bouncer).await,
        dir = dir.path().display(),
    );
    let mut program = run_with(&bouncer, &dir, &settings);
    let says = async |what: &str| {
        eventually(SOON, what, async || {
            std::fs::read_to_string(&told).unwrap().contains(what).then_some(())
        })
        .await;
    };
    says("add 203.0.113.9 ").await;
    assert!(!std::fs::read_to_string(&told).unwrap().contains("ever"), "it ends");
    ipctl(replica, &["block", "203.0.113.10", "--for", "1h"]);
    says("add 203.0.113.10 ").await;
    ipctl(replica, &["unblock", "203.0.113.9"]);
    says("del 203.0.113.9 ").await;
    program.kill();
    ipctl(replica, &["block", "203.0.113.11"]);
    program = run_with(&bouncer, &dir, &settings);
    says("add 203.0.113.11 ").await;
    assert_eq!(applied(&bed).await[0]["type"], "crowdsec-custom-bouncer");
    drop(program);
}

fn run_with(bouncer: &Path, dir: &TempDir, settings: &str) -> Program {
    let file = dir.path().join("bouncer.yaml");
    std::fs::write(&file, settings).unwrap();
    Program::start(Command::new(bouncer).arg("-c").arg(file))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowdsec_firewall_bouncer_keeps_its_sets_of_nftables() {
    let bed = Bed::embedded(Launch::default()).await;
    let replica = bed.first();
    let (bouncer, nft) = (installed("crowdsec-firewall-bouncer"), installed("nft"));
    let dir = tempfile::tempdir().unwrap();
    // The namespace has no way to the API but a socket in the file system.
    let socket = dir.path().join("gate.sock");
    relay(socket.clone(), replica.gate.strip_prefix("http://").unwrap().parse().unwrap());
    block(&bed, "203.0.113.9", "4h").await;
    block(&bed, "2001:db8:9::1", "permanent").await;
    let settings = format!(
        "mode: nftables\npid_dir: {dir}\nupdate_frequency: 1s\ndaemonize: false\nlog_mode: stdout\n\
         log_dir: {dir}\nlog_level: info\napi_url: http://127.0.0.1:8081/\napi_key: {}\n\
         disable_ipv6: false\ndeny_action: DROP\ndeny_log: false\nsupported_decisions_types:\n  - ban\n\
         blacklists_ipv4: crowdsec-blacklists\nblacklists_ipv6: crowdsec6-blacklists\n\
         nftables:\n  ipv4:\n    enabled: true\n    set-only: false\n    table: crowdsec\n    chain: crowdsec-chain\n\
         \x20 ipv6:\n    enabled: true\n    set-only: false\n    table: crowdsec6\n    chain: crowdsec6-chain\n\
         prometheus:\n  enabled: false\n",
        bed.key(Role::Bouncer).await,
        dir = dir.path().display(),
    );
    std::fs::write(dir.path().join("bouncer.yaml"), settings).unwrap();
    let relay = r#"
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
    std::fs::write(dir.path().join("relay.py"), relay).unwrap();
    let script = format!(
        "set -e\n{ip} link set lo up\n{nft} list ruleset >/dev/null\necho in its own network\n\
         cd {dir}\npython3 relay.py gate.sock & relay=$!\nuntil [ -e listening ]; do sleep 0.1; done\n\
         {bouncer} -c bouncer.yaml & bouncer=$!\ntrap 'kill $relay $bouncer' TERM EXIT\n\
         while kill -0 $bouncer; do {nft} list ruleset >ruleset.new && mv ruleset.new ruleset; sleep 0.3; done\n",
        ip = installed("ip").display(),
        nft = nft.display(),
        bouncer = bouncer.display(),
        dir = dir.path().display(),
    );
    let mut program = Program::start(Command::new("unshare").args([
        "--user",
        "--map-root-user",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        &script,
    ]));
    let (began, _) = eventually(SOON, "it begins or is not let", async || {
        match program.child.try_wait().unwrap() {
            Some(_) => Some(false),
            None => program.said().contains("in its own network").then_some(true),
        }
    })
    .await;
    if !began {
        return eprintln!(
            "NOT RUN: this kernel lets us have no network of our own: {}",
            program.said()
        );
    }
    let ruleset = || std::fs::read_to_string(dir.path().join("ruleset")).unwrap_or_default();
    let holds = async |what: &str, any: bool| {
        eventually(SOON, what, async || (ruleset().contains(what) == any).then_some(())).await;
    };
    holds("203.0.113.9 timeout", true).await;
    holds("2001:db8:9::1 timeout", true).await;
    ipctl(replica, &["block", "203.0.113.10", "--for", "1h"]);
    holds("203.0.113.10 timeout", true).await;
    ipctl(replica, &["unblock", "203.0.113.9"]);
    holds("203.0.113.9 timeout", false).await;
    // What is allowed is taken out.
    allow(&bed, "203.0.113.10").await;
    holds("203.0.113.10 timeout", false).await;
    assert!(ruleset().contains("2001:db8:9::1"), "the rest stays:\n{}", ruleset());
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
