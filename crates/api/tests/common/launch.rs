//! One `api`: its settings, its process, its listeners.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, eventually};

/// An `api` to be: an empty directory, free ports, and nothing of this process's environment.
pub(crate) struct Launch {
    dir: TempDir,
    variables: BTreeMap<String, String>,
}

/// A running `api`; killed when dropped.
pub(crate) struct Replica {
    dir: TempDir,
    variables: BTreeMap<String, String>,
    child: Child,
    said: Said,
    /// `http://127.0.0.1:PORT`.
    pub(crate) public: String,
    /// Likewise; empty if there is none.
    pub(crate) gate: String,
    /// Likewise.
    pub(crate) control: String,
    client: reqwest::Client,
}

impl Default for Launch {
    fn default() -> Launch {
        // `ipctl` has reqwest speak TLS, and whoever builds a client then has to say by whose means.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let launch = Launch { dir: tempfile::tempdir().unwrap(), variables: BTreeMap::new() };
        launch
            .with("IPWARDEN_PUBLIC__BIND", "127.0.0.1:0")
            .with("IPWARDEN_CONTROL__BIND", "127.0.0.1:0")
            .with("IPWARDEN_GATE__BIND", "127.0.0.1:0")
    }
}

impl Launch {
    /// The same with a variable.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Launch {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The same behind proxies on this machine, so that a test can come from any address.
    pub(crate) fn behind_proxies(self) -> Launch {
        self.with("IPWARDEN_CLIENT_IP__TRUSTED_PROXIES", "127.0.0.0/8")
    }

    /// The same with the server of a variable's URL reached through a proxy.
    pub(crate) fn through(self, name: &str, proxy: SocketAddr) -> Launch {
        let url = &self.variables[name];
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let user = authority.split_once('@').map_or(String::new(), |(user, _)| format!("{user}@"));
        let url = format!("{scheme}://{user}{proxy}{path}");
        self.with(name, &url)
    }

    /// The same on ports that it has again when it is started again.
    pub(crate) fn on_lasting_ports(self) -> Launch {
        let [public, control] =
            [(); 2].map(|()| format!("127.0.0.1:{}", ipwarden_testbed::lasting_port().unwrap()));
        self.with("IPWARDEN_PUBLIC__BIND", &public).with("IPWARDEN_CONTROL__BIND", &control)
    }

    /// The same with its `data_dir` on another disk.
    pub(crate) fn keeps_data_on(self, disk: &Path) -> Launch {
        let data = disk.join("data");
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(data, self.dir.path().join("data")).unwrap();
        self
    }

    /// The same with an `ipwarden.toml`.
    pub(crate) fn file(self, text: &str) -> Launch {
        std::fs::write(self.dir.path().join("ipwarden.toml"), text).unwrap();
        self
    }

    /// Starts it, and waits until it is ready.
    pub(crate) async fn start(self) -> Replica {
        let mut replica = self.begin();
        replica.ready().await;
        replica
    }

    /// Starts it, and waits until it listens, ready or not.
    pub(crate) async fn start_unready(self) -> Replica {
        let mut replica = self.begin();
        replica.listens().await;
        replica
    }

    /// Starts it, and does not wait for anything.
    pub(crate) fn begin(self) -> Replica {
        let Launch { dir, variables } = self;
        let (child, said, _) = spawn(dir.path(), &variables);
        let [public, gate, control] = [const { String::new() }; 3];
        // Sooner than the server closes what is idle: else a request may meet its end.
        let client = reqwest::Client::builder().pool_idle_timeout(Duration::from_secs(2));
        let client = client.build().unwrap();
        Replica { dir, variables, child, said, public, gate, control, client }
    }

    /// Starts it where it must not start. Returns how it ended and what it said.
    pub(crate) async fn fail(self) -> (ExitStatus, String) {
        let (mut child, said, reader) = spawn(self.dir.path(), &self.variables);
        let (status, _) =
            eventually(PATIENCE, "it ends by itself", async || child.try_wait().unwrap()).await;
        reader.join().unwrap();
        let said = said.lock().unwrap().join("\n");
        (status, said)
    }
}

type Said = Arc<Mutex<Vec<String>>>;

fn spawn(dir: &Path, variables: &BTreeMap<String, String>) -> (Child, Said, JoinHandle<()>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_api"))
        .current_dir(dir)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let (stderr, lines) = (child.stderr.take().unwrap(), said.clone());
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines() {
            lines.lock().unwrap().push(line.unwrap());
        }
    });
    (child, said, reader)
}

impl Replica {
    /// Waits until it is ready, on listeners that may be elsewhere than before.
    pub(crate) async fn ready(&mut self) {
        self.listens().await;
        eventually(PATIENCE, "it is ready", async || {
            let answer = self.client.get(format!("{}/readyz", self.control)).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    async fn listens(&mut self) {
        let Replica { child, said, .. } = self;
        eventually(PATIENCE, "it says where it listens", async || {
            let said = said.lock().unwrap().join("\n");
            assert_eq!(child.try_wait().unwrap(), None, "it ended:\n{said}");
            said.contains("  try ").then_some(())
        })
        .await;
        self.public = self.announced("public");
        self.gate = self.maybe_announced("gate").unwrap_or_default();
        self.control = self.announced("control");
    }

    /// The word behind `name` in the banner.
    pub(crate) fn announced(&self, name: &str) -> String {
        self.maybe_announced(name).unwrap_or_else(|| panic!("no {name} in:\n{}", self.said()))
    }

    fn maybe_announced(&self, name: &str) -> Option<String> {
        let said = self.said();
        let words = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut named = words.filter(|words| words.first() == Some(&name));
        named.next().map(|words| words[1].to_owned())
    }

    /// All that it wrote to stderr.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// Where it was started.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a request to the public listener.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.public))
    }

    /// Starts a question to the gate.
    pub(crate) fn question(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.gate))
    }

    /// What the public listener answers to a client behind the proxy.
    pub(crate) async fn get(&self, client: &str, path: &str) -> Response {
        let request = self.request(Method::GET, path).header("x-forwarded-for", client);
        request.send().await.unwrap()
    }

    /// The same to one who has a key.
    pub(crate) async fn get_as(&self, key: &str, client: &str) -> Response {
        let request = self.request(Method::GET, "/").header("x-forwarded-for", client);
        request.bearer_auth(key).send().await.unwrap()
    }

    /// What the control listener answers: the status, and the body if it is JSON.
    pub(crate) async fn control(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        send(&self.client, method, &format!("{}{path}", self.control), key, body).await
    }

    /// What the control listener answers to somebody who has not asked before: each address has a
    /// few wrong keys only.
    pub(crate) async fn stranger(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let client = reqwest::Client::builder().local_address(Replica::a_stranger());
        send(&client.build().unwrap(), method, &format!("{}{path}", self.control), key, body).await
    }

    /// An address of this machine that nobody has asked from before.
    pub(crate) fn a_stranger() -> IpAddr {
        static NEXT: AtomicU32 = AtomicU32::new(2);
        let host = NEXT.fetch_add(1, Ordering::Relaxed);
        Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + host).into()
    }

    /// What the control listener answers to everybody, as text.
    pub(crate) async fn open(&self, path: &str) -> (StatusCode, String) {
        let answer = self.client.get(format!("{}{path}", self.control)).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    /// The status of what the control listener answers, a 5xx as well.
    pub(crate) async fn control_status(
        &self,
        method: Method,
        path: &str,
        key: &str,
        body: Value,
    ) -> StatusCode {
        let request = self.client.request(method, format!("{}{path}", self.control));
        request.bearer_auth(key).json(&body).send().await.unwrap().status()
    }

    /// The figure of this name, labels included, in `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> i64 {
        let (_, text) = self.open("/metrics").await;
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("no figure {name} in:\n{text}"))
    }

    /// Where the public listener is.
    pub(crate) fn public_address(&self) -> SocketAddr {
        self.public.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Where the control listener is.
    pub(crate) fn control_address(&self) -> SocketAddr {
        self.control.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// The figure of this name, if it still answers.
    pub(crate) async fn last_metric(&self, name: &str) -> Option<i64> {
        let answer = self.client.get(format!("{}/metrics", self.control)).send().await.ok()?;
        let text = answer.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Whether it has ended, and how.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Kills it, as the kernel does when memory is short; it may start again.
    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts what has ended again, on the same directory. Returns how long that took until it was
    /// ready; its listeners are elsewhere now.
    pub(crate) async fn start_again(&mut self) -> Duration {
        let started = tokio::time::Instant::now();
        self.begin_again();
        self.ready().await;
        started.elapsed()
    }

    /// Starts what has ended again, and does not wait for anything.
    pub(crate) fn begin_again(&mut self) {
        let (child, said, _) = spawn(self.dir.path(), &self.variables);
        (self.child, self.said) = (child, said);
    }

    /// Its number among the processes.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its data are.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// Asks it to end in good order.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually(PATIENCE, "it ends", async || child.try_wait().unwrap()).await.0
    }

    /// Ends it in good order. Its directory stays as long as what this returns.
    pub(crate) async fn stop(mut self) -> (ExitStatus, Stopped) {
        self.terminate();
        let status = self.ended().await;
        (status, Stopped(self))
    }

    /// Ends it at once, as the kernel does when memory is short.
    pub(crate) fn kill(mut self) -> Stopped {
        self.crash();
        Stopped(self)
    }
}

async fn send(
    client: &reqwest::Client,
    method: Method,
    url: &str,
    key: Option<&str>,
    body: Option<Value>,
) -> (StatusCode, Value) {
    let mut request = client.request(method, url);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(!status.is_server_error(), "{url}: {status}: {text}");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// An `api` that ended; its directory is still there.
pub(crate) struct Stopped(Replica);

impl Stopped {
    /// Where it was started.
    pub(crate) fn dir(&self) -> &Path {
        self.0.dir()
    }

    /// An `api` to be, on the same data.
    pub(crate) fn again(&self) -> Launch {
        Launch::default().with("IPWARDEN_DATA_DIR", self.dir().join("data").to_str().unwrap())
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
        if !ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- what {} said:\n{}", self.public, self.said());
        }
    }
}
