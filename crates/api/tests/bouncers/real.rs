//! Bouncers as they are published, with their URL and key and nothing else of ours.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipwarden_core::keys::Role;
use tempfile::TempDir;

use super::client::{block, ipctl};
use super::common::{Bed, Launch, eventually};

/// Bouncers ask every second here; the machine may be busy.
pub(super) const SOON: Duration = Duration::from_secs(60);

/// A program of somebody else's; killed when dropped.
pub(super) struct Program {
    pub(super) child: Child,
    said: Arc<Mutex<String>>,
}

impl Program {
    pub(super) fn start(command: &mut Command) -> Program {
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

    pub(super) fn said(&self) -> String {
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
pub(super) fn installed(name: &str) -> PathBuf {
    ["/usr/bin", "/usr/sbin"]
        .map(|directory| Path::new(directory).join(name))
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| {
            panic!("no {name}: bash .ci/test installs it, or apt-get install {name}")
        })
}

/// What `.ci/test` has put below `target/`.
fn of_test(path: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let path = target.join(path);
    assert!(path.exists(), "no {}: bash .ci/test installs it there", path.display());
    path
}

async fn applied(bed: &Bed) -> serde_json::Value {
    let listed = ipctl(bed.first(), &["bouncer", "list", "-o", "json"]);
    serde_json::from_str(&listed).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pycrowdsec_streams_and_asks() {
    let bed = Bed::embedded(Launch::default()).await;
    let replica = bed.first();
    let python = of_test("bouncers/bin/python3");
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
async fn nodejs_bouncer_asks_and_streams() {
    let bed = Bed::embedded(Launch::default()).await;
    let replica = bed.first();
    block(&bed, "203.0.113.9", "4h").await;
    block(&bed, "198.51.100.0/24", "permanent").await;
    block(&bed, "2001:db8:9::1", "4h").await;
    block(&bed, "2001:db8:a::/48", "4h").await;
    let key = bed.key(Role::Bouncer).await;
    let script = r#"
import { CrowdSecBouncer } from "@crowdsec/nodejs-bouncer";
const [url, bouncerApiToken, mode, ...asked] = process.argv.slice(1);
const streamMode = mode === "stream";
const bouncer = new CrowdSecBouncer({ url, bouncerApiToken, streamMode });
console.log("health", JSON.stringify(await bouncer.lapiClient.checkConnectionHealth()));
for (;;) {
    if (streamMode) await bouncer.refreshDecisions({ scopes: ["ip", "range"] });
    const said = [];
    for (const ip of asked) said.push((await bouncer.getIpRemediation(ip)).remediation);
    console.log(mode, said.join(" "));
    // Counts what is refused, and tells the gate.
    await bouncer.getResponse({ ip: asked[0], remediation: said[0], origin: "manual" });
    await bouncer.pushUsageMetrics("edge");
    if (!streamMode) break;
    await new Promise((resolve) => setTimeout(resolve, 300));
}
"#;
    let run = |mode: &str, asked: &[&str]| {
        let mut command = Command::new("node");
        command.env("LOG_LEVEL", "warn").args(["--input-type=module", "-e", script]);
        command.args([&replica.gate, &key, mode]).args(asked);
        Program::start(command.current_dir(of_test("bouncers-node")))
    };
    let says = async |program: &Program, what: &str| {
        eventually(SOON, what, async || program.said().contains(what).then_some(())).await;
    };
    let asked = ["203.0.113.9", "203.0.113.77", "198.51.100.7", "2001:db8:9::1", "2001:db8:a::5"];
    let live = run("live", &asked);
    says(&live, r#"health {"status":"OK","error":null}"#).await;
    says(&live, "live ban bypass ban ban ban").await;
    // In its stream mode it knows no network of IPv6, and compares addresses of IPv6 spelt in full.
    let stream = run("stream", &asked[..3]);
    says(&stream, "stream ban bypass ban").await;
    ipctl(replica, &["block", "203.0.113.77", "--for", "1h"]);
    ipctl(replica, &["unblock", "203.0.113.9"]);
    says(&stream, "stream bypass ban ban").await;
    ipctl(replica, &["unblock", "198.51.100.0/24"]);
    says(&stream, "stream bypass ban bypass").await;
    let (bouncer, _) =
        eventually(SOON, "it was seen", async || applied(&bed).await.get(0).cloned()).await;
    assert_eq!(bouncer["type"], "nodejs-cs-bouncer");
    assert!(bouncer["version"].as_str().unwrap().starts_with('v'), "{bouncer}");
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
