//! The pool on one server, on a cluster and behind Sentinel; with passwords and over TLS.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use deadpool_redis::redis::{self, AsyncCommands};
use ipwarden_engine::clock::Moment;
use ipwarden_engine::network::Network;
use ipwarden_engine::quota::{Bucket, Quota};
use ipwarden_engine::rate_limit::{Limiter, RedisOptions};
use ipwarden_testbed::{RedisCluster, RedisSentinel};
use rstest::rstest;

use super::*;

/// What stands at the other end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Topology {
    One,
    Cluster,
    Sentinel,
}

impl Topology {
    /// Servers that all tests share: nobody may stop them, or flush what others wrote.
    pub(crate) fn url(self) -> String {
        static CLUSTER: OnceLock<RedisCluster> = OnceLock::new();
        static SENTINEL: OnceLock<RedisSentinel> = OnceLock::new();
        match self {
            Topology::One => ipwarden_testbed::redis().expect("Redis").url().to_owned(),
            Topology::Cluster => {
                CLUSTER.get_or_init(|| ipwarden_testbed::redis_cluster().expect("a cluster")).url()
            }
            Topology::Sentinel => SENTINEL
                .get_or_init(|| ipwarden_testbed::redis_sentinel().expect("a sentinel"))
                .url(),
        }
    }
}

fn pool(url: &str) -> RedisPool {
    RedisPool::new(url.parse().expect("a URL"))
}

fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    for word in words {
        command.arg(word);
    }
    command
}

/// A connection as soon as there is one: the first takes longer where the machine is busy.
pub(crate) async fn patiently(pool: &RedisPool) -> PooledConnection {
    for _ in 0..40 {
        if let Ok(connection) = pool.connection().await {
            return connection;
        }
    }
    panic!("no connection in ten seconds")
}

#[rstest]
#[tokio::test]
async fn commands_on_many_keys_are_answered_in_their_order(
    #[values(Topology::One, Topology::Cluster, Topology::Sentinel)] topology: Topology,
) {
    let pool = pool(&topology.url());
    let prefix = ipwarden_testbed::unique_name("pool");
    let keys: Vec<String> = (0..300).map(|number| format!("{prefix}:{number}")).collect();
    drop(patiently(&pool).await);
    let set = keys.iter().enumerate().map(|(at, key)| command(&["SET", key, &at.to_string()]));
    let set = pool.each::<()>(set.collect()).await.expect("answers");
    assert_eq!(set.iter().filter(|answer| answer.is_ok()).count(), 300);

    let mut get: Vec<Cmd> = keys.iter().map(|key| command(&["GET", key])).collect();
    // One that is refused, in the middle.
    get.insert(150, command(&["LPOP", &keys[0]]));
    let mut answers = pool.each::<Option<u32>>(get).await.expect("answers");
    assert!(answers.remove(150).is_err());
    for (at, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.expect("a number"), Some(at as u32));
    }
    let mut connection = patiently(&pool).await;
    let () = connection.set_ex(&keys[7], 8, 60).await.expect("set");
    assert_eq!(connection.get::<_, u32>(&keys[7]).await.expect("got"), 8);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_four_connections(
    #[values(Topology::One, Topology::Cluster, Topology::Sentinel)] topology: Topology,
) {
    let pool = pool(&topology.url());
    let key = ipwarden_testbed::unique_name("pool");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (pool, key) = (pool.clone(), key.clone());
        tasks.spawn(async move {
            for _ in 0..10 {
                let () = patiently(&pool).await.incr(&key, 1).await.expect("counted");
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(patiently(&pool).await.get::<_, u32>(&key).await.expect("got"), 320);
    let size = match &pool.0 {
        Pools::One(pool) => pool.status().size,
        Pools::Sentinel(pool) => pool.status().size,
        Pools::Cluster(pool) => pool.status().size,
    };
    assert!((1..=MAX_CONNECTIONS).contains(&size), "{size} connections");
}

#[rstest]
#[tokio::test]
async fn a_host_that_says_nothing_delays_the_first_connection_only(
    #[values(Topology::Cluster, Topology::Sentinel)] topology: Topology,
) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let silent = listener.local_addr().expect("bound").port();
    let pool = pool(&topology.url().replacen("://", &format!("://127.0.0.1:{silent},"), 1));
    let before = Moment::now().steady;
    pool.connection().await.err().expect("it waits for the silent host, its caller does not");
    assert!(Moment::now().steady - before < 2_000_000);
    let mut connection = patiently(&pool).await;
    let () = redis::cmd("PING").query_async(&mut connection).await.expect("an answer");
}

#[tokio::test]
async fn after_a_failover_the_pool_leads_to_the_new_master() {
    let servers = ipwarden_testbed::redis_sentinel().expect("a sentinel");
    let pool = pool(&servers.url());
    let key = ipwarden_testbed::unique_name("pool");
    let mut master = patiently(&pool).await;
    let () = master.set(&key, 1).await.expect("set");
    let mut wait = redis::cmd("WAIT");
    let copies: u32 = wait.arg(1).arg(400).query_async(&mut master).await.expect("copied");
    assert_eq!(copies, 1);
    drop(master);
    servers.kill_master().expect("killed");
    pool.connection().await.err().expect("the master is dead, and no other promoted yet");
    let waiting = servers.clone();
    let promoted = tokio::task::spawn_blocking(move || waiting.await_promotion());
    promoted.await.expect("no panic").expect("promoted");
    let answers = async {
        loop {
            if let Ok(mut connection) = pool.connection().await
                && let Ok(value) = connection.incr::<_, _, u32>(&key, 1).await
            {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), answers).await, Ok(2));
}

/// Uses the pool and the limiter with this URL.
async fn works(url: &str) {
    let pool = pool(url);
    drop(patiently(&pool).await);
    let key = ipwarden_testbed::unique_name("pool");
    let answers = pool.each::<u32>(vec![command(&["INCR", &key])]).await.expect("answers");
    assert_eq!(answers[0].as_ref().ok(), Some(&1));
    let patience = Duration::from_secs(10);
    let options = RedisOptions {
        patience,
        silence: patience,
        connect_patience: patience,
        ..Default::default()
    };
    let limiter = Limiter::redis(url.parse().expect("a URL"), options);
    let worker = limiter.worker();
    for remaining in (0..5).rev() {
        let client = Bucket::Network(Network::from(std::net::IpAddr::from([192, 0, 2, 1])));
        let taken = worker.take(&key, client, Quota::ANONYMOUS, Moment::now()).await;
        assert_eq!((taken.admitted, taken.remaining), (true, remaining));
    }
    assert_eq!(limiter.state().fallbacks, 0);
    let url: RedisUrl = url.parse().expect("a URL");
    url.subscriber(patience).await.expect("a subscription");
}

async fn tell(port: u16, commands: &[&[&str]]) {
    let pool = pool(&format!("redis://127.0.0.1:{port}"));
    let mut connection = patiently(&pool).await;
    for words in commands {
        let () = command(words).query_async(&mut connection).await.expect("done");
    }
}

#[rstest]
#[tokio::test]
async fn the_password_of_the_url_opens_what_is_shut_without(
    #[values(Topology::One, Topology::Cluster, Topology::Sentinel)] topology: Topology,
) {
    // The servers stay until the end.
    let (one, cluster, sentinel);
    let (url, ports): (String, Vec<u16>) = match topology {
        Topology::One => {
            one = ipwarden_testbed::redis_private().expect("Redis");
            let port = one.url().rsplit_once(':').expect("a port").1;
            (one.url().to_owned(), vec![port.parse().expect("a number")])
        }
        Topology::Cluster => {
            cluster = ipwarden_testbed::redis_cluster().expect("a cluster");
            (cluster.url(), cluster.ports().collect())
        }
        Topology::Sentinel => {
            sentinel = ipwarden_testbed::redis_sentinel().expect("a sentinel");
            let name = sentinel.master_name();
            let password = ["SENTINEL", "SET", name, "auth-pass", "p@ss/wörd"];
            tell(sentinel.sentinel_port(), &[&password]).await;
            (sentinel.url(), vec![sentinel.replica_port(), sentinel.master_port()])
        }
    };
    for port in ports {
        let user = ["ACL", "SETUSER", "app", "on", ">s3cret", "~*", "&*", "+@all"];
        let masters = ["CONFIG", "SET", "masterauth", "p@ss/wörd"];
        tell(port, &[&user, &masters, &["CONFIG", "SET", "requirepass", "p@ss/wörd"]]).await;
    }
    let with = |credentials| url.replacen("://", &format!("://{credentials}@"), 1);
    works(&with(":p%40ss%2Fw%C3%B6rd")).await;
    works(&with("app:s3cret")).await;
    for wrong in [url.clone(), with(":wrong"), with("app:wrong")] {
        let error: RedisPoolError = match pool(&wrong).connection().await {
            // Without any it is the first command that is refused.
            Ok(mut connection) => connection.get::<_, ()>("key").await.expect_err("shut").into(),
            Err(error) => error,
        };
        assert!(!error.to_string().contains("wörd"), "{error}");
    }
}

/// Says to a copy of this program which URL it shall use, with roots that it trusts of its own.
const TLS_URL: &str = "IPWARDEN_TEST_TLS_URL";

#[tokio::test]
async fn over_tls_a_server_is_trusted_by_its_certificate() {
    if let Ok(url) = std::env::var(TLS_URL) {
        return works(&url).await;
    }
    let desk = tempfile::tempdir().expect("a directory");
    certify(desk.path());
    let server = ipwarden_testbed::redis_private().expect("Redis");
    let port = server.url().rsplit_once(':').expect("a port").1.parse().expect("a number");
    let tls_port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.local_addr().expect("bound").port().to_string()
    };
    let file = |name: &str| desk.path().join(name).to_string_lossy().into_owned();
    let (certificate, key) = (file("server.pem"), file("server.key"));
    let settings = [
        ["tls-auth-clients", "no"],
        ["tls-cert-file", &certificate],
        ["tls-key-file", &key],
        ["tls-port", &tls_port],
        ["requirepass", "s3cret"],
    ];
    let settings = settings.map(|[name, value]| ["CONFIG", "SET", name, value]);
    tell(port, &settings.each_ref().map(|words| &words[..])).await;

    let url = format!("rediss://:s3cret@127.0.0.1:{tls_port}");
    let inner = Command::new(std::env::current_exe().expect("this program"))
        .args(["redis::tests::over_tls_a_server_is_trusted_by_its_certificate", "--exact"])
        .env("SSL_CERT_FILE", file("ca.pem"))
        .env(TLS_URL, &url)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&inner.stdout);
    assert!(inner.status.success() && said.contains("1 passed"), "{said}");
    // This process does not know who signed it.
    let url: RedisUrl = url.parse().expect("a URL");
    let error = url.connect(Duration::from_secs(10)).await.expect_err("not trusted");
    assert!(error.to_string().contains("certificate"), "{error}");
}

/// Writes `ca.pem` and, signed by it for 127.0.0.1, `server.pem` with its key.
fn certify(desk: &Path) {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(desk).args(arguments.split(' '));
        let made = command.output().expect("`openssl` in PATH: apt-get install openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=tests"));
    openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=redis"));
    std::fs::write(desk.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("written");
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile names -out server.pem",
    );
}
