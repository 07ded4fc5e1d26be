//! A throw-away PostgreSQL cluster: no fsync, trust authentication, TCP on the loopback only.

mod guest;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, anyhow, bail};

pub use self::guest::Guest;
use crate::ports::{free_port, on_a_port};
use crate::watched::{Account, Launch, Private, find_in_path, is_program};

/// Names a running PostgreSQL to use instead of a private one, as `postgres://user@host:port`; its
/// user may create databases.
pub const POSTGRES_VARIABLE: &str = "IPWARDEN_TEST_POSTGRES";

const MISSING: &str = "no PostgreSQL server (`initdb` and `postgres`) in PATH or \
    /usr/lib/postgresql/*/bin: run the tests with `bash .ci/test`, which installs it, or \
    `apt-get install postgresql`";

/// The line of `postmaster.pid` that holds the server's state (LOCK_FILE_LINE_PM_STATUS).
const STATUS_LINE: usize = 7;

/// A PostgreSQL cluster to test against. Clones are the same server.
#[derive(Clone, Debug)]
pub struct PostgresServer {
    /// Without a database and without a slash at its end.
    base: String,
    /// `None` for a server that the environment named.
    own: Option<Arc<Private>>,
}

/// An empty database for one test; dropped with it, whoever is still connected.
#[derive(Debug)]
pub struct TestDatabase {
    server: PostgresServer,
    name: String,
    url: String,
}

/// The cluster that all tests share.
pub fn postgres() -> anyhow::Result<PostgresServer> {
    static SHARED: OnceLock<Result<PostgresServer, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| match std::env::var(POSTGRES_VARIABLE) {
        Ok(url) if !url.is_empty() => {
            Ok(PostgresServer { base: url.trim_end_matches('/').to_owned(), own: None })
        }
        _ => postgres_private().map_err(|error| format!("{error:#}")),
    });
    shared.clone().map_err(|error| anyhow!(error))
}

/// A fresh database, with a name of its own, in the shared cluster.
pub fn postgres_database() -> anyhow::Result<TestDatabase> {
    postgres()?.database()
}

/// A cluster of the test's own, which it may freeze, stop and start again; ends when its last clone
/// is dropped.
pub fn postgres_private() -> anyhow::Result<PostgresServer> {
    postgres_private_with(&[], None)
}

/// The same with settings such as `max_connections=20`, and with its data in a directory of the
/// test's, which it fills or takes away.
pub fn postgres_private_with(
    settings: &[&str],
    place: Option<&Path>,
) -> anyhow::Result<PostgresServer> {
    let programs = Programs::find()?;
    let account = account()?;
    on_a_port(free_port, |port| {
        let directory = tempfile::Builder::new().prefix("ipwarden-postgres-").tempdir()?;
        if let Some(Account { user, group }) = account {
            std::os::unix::fs::chown(directory.path(), Some(user), Some(group))?;
        }
        let cluster = directory.path().join("cluster");
        if let Some(place) = place {
            let data = tempfile::Builder::new().prefix("cluster-").tempdir_in(place)?.keep();
            if let Some(Account { user, group }) = account {
                std::os::unix::fs::chown(&data, Some(user), Some(group))?;
            }
            std::os::unix::fs::symlink(data, &cluster)?;
        }
        initialise(&programs.initdb, directory.path(), &cluster, account)?;
        let launch = Launch {
            program: programs.postgres.clone(),
            arguments: server_arguments(&cluster, port, settings),
            port,
            // From here on it is removed with the server.
            directory: directory.keep(),
            // An immediate shutdown, which also takes the children and shared memory with it.
            signal: "QUIT",
            account,
        };
        let own = Private::start_new(launch, is_ready)?;
        let base = format!("postgres://postgres@127.0.0.1:{port}");
        Ok(PostgresServer { base, own: Some(Arc::new(own)) })
    })
}

impl PostgresServer {
    /// `postgres://postgres@127.0.0.1:<port>/<database>`; the database `postgres` always exists.
    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.base)
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> anyhow::Result<u16> {
        let port = self.base.rsplit(':').next().context("the URL names no port")?;
        Ok(port.parse()?)
    }

    /// The postmaster's process id, if it is ours and running.
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref()?.pid()
    }

    /// Creates an empty database with a name of its own.
    pub fn database(&self) -> anyhow::Result<TestDatabase> {
        let name = crate::unique_name("test");
        self.execute(&format!("create database {name} template template0"))?;
        Ok(TestDatabase { server: self.clone(), url: self.url(&name), name })
    }

    /// Shuts a private server down at once, as a crash would; its files stay.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.private()?.stop()
    }

    /// Starts a stopped server again on its old port and files.
    pub fn start(&self) -> anyhow::Result<()> {
        self.private()?.start()
    }

    /// All that a private server has written to its log.
    pub fn log(&self) -> anyhow::Result<String> {
        self.private()?.log()
    }

    /// Freezes a private server whole: connections stay open and can be made, nothing is answered.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.private()?.freeze()
    }

    /// Ends [`PostgresServer::freeze`].
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.private()?.thaw()
    }

    /// What a statement in the database `postgres` says, one row a line.
    pub fn execute(&self, statement: &str) -> anyhow::Result<String> {
        execute(&self.url("postgres"), statement)
    }

    /// Takes every connection that ordinary users may have, as a user of this name; each is free again
    /// when it is dropped. Superusers still find the few that are kept for them.
    pub fn take_connections(&self, user: &str) -> anyhow::Result<Vec<Guest>> {
        let address = self.base.rsplit('@').next().context("the URL names no server")?;
        let mut guests = Vec::new();
        while let Some(guest) = Guest::enter(address, user)? {
            guests.push(guest);
        }
        Ok(guests)
    }

    fn private(&self) -> anyhow::Result<&Private> {
        self.own.as_deref().context("the environment's server is not ours: use postgres_private()")
    }
}

impl TestDatabase {
    /// The URL to connect with.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL to connect with as somebody else than the superuser.
    pub fn url_of(&self, user: &str) -> String {
        self.url.replacen("postgres@", &format!("{user}@"), 1)
    }

    /// All rows of all tables, as text.
    pub fn content(&self) -> anyhow::Result<String> {
        execute(&self.url, "select database_to_xml(false, true, '')")
    }

    /// The database's name, unique in the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // What stays behind goes with the cluster.
        let _ = self.server.execute(&format!("drop database if exists {} with (force)", self.name));
    }
}

fn execute(url: &str, statement: &str) -> anyhow::Result<String> {
    let mut command = Command::new(psql()?);
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement]);
    Ok(succeed(command.arg(url))?.trim().to_owned())
}

/// The client, which is there without a server where the environment names one.
pub(crate) fn psql() -> anyhow::Result<PathBuf> {
    let psql = Programs::find().ok().map(|found| found.psql).filter(|file| is_program(file));
    psql.or_else(|| find_in_path("psql")).context(MISSING)
}

/// The programs of one version of PostgreSQL.
struct Programs {
    initdb: PathBuf,
    postgres: PathBuf,
    psql: PathBuf,
}

impl Programs {
    /// The version in `PATH`, else the newest that Debian's packages put beside it.
    fn find() -> anyhow::Result<Programs> {
        let in_path = find_in_path("initdb").and_then(|found| found.canonicalize().ok());
        let folder = in_path.and_then(|found| found.parent().map(Path::to_owned));
        folder
            .into_iter()
            .chain(packaged())
            .map(|folder| Programs {
                initdb: folder.join("initdb"),
                postgres: folder.join("postgres"),
                psql: folder.join("psql"),
            })
            .find(|found| is_program(&found.initdb) && is_program(&found.postgres))
            .context(MISSING)
    }
}

/// `/usr/lib/postgresql/*/bin`, newest first.
fn packaged() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    versions.sort_by(|left, right| right.cmp(left));
    versions.into_iter().map(|(_, folder)| folder.join("bin")).collect()
}

/// PostgreSQL refuses to run as root, and so does PgBouncer: then it runs as `postgres`, or else as `nobody`.
pub(crate) fn account() -> anyhow::Result<Option<Account>> {
    if numeric_id(&["-u"]) != Some(0) {
        return Ok(None);
    }
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| {
            let user = numeric_id(&["-u", name])?;
            Some(Account { user, group: numeric_id(&["-g", name])? })
        })
        .map(Some)
        .context("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")
}

fn numeric_id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

fn initialise(
    initdb: &Path,
    directory: &Path,
    cluster: &Path,
    account: Option<Account>,
) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(initdb);
    command
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .arg("-D")
        .arg(cluster)
        .env("LC_ALL", "C")
        .current_dir(directory);
    if let Some(Account { user, group }) = account {
        command.uid(user).gid(group);
    }
    succeed(&mut command).map(drop)
}

fn server_arguments(cluster: &Path, port: u16, settings: &[&str]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-D".into(), cluster.into(), "-p".into()];
    arguments.push(port.to_string().into());
    let usual = [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=200",
        "shared_buffers=32MB",
        // Without fsync a commit costs nothing anyway, and being synchronous it survives `stop`.
        "fsync=off",
        "full_page_writes=off",
        "autovacuum=off",
        "timezone=UTC",
    ];
    // Of a setting that is named twice the last counts.
    for setting in usual.iter().chain(settings) {
        arguments.extend(["-c".into(), setting.into()]);
    }
    arguments
}

/// The postmaster writes its state into its lock file, which is how `pg_ctl` knows it too.
fn is_ready(pid: u32, _port: u16, directory: &Path) -> bool {
    let lock_file = directory.join("cluster/postmaster.pid");
    std::fs::read_to_string(lock_file).is_ok_and(|text| {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.first() == Some(&pid.to_string().as_str()) && lines.get(STATUS_LINE) == Some(&"ready")
    })
}

fn succeed(command: &mut Command) -> anyhow::Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("starting {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}: {}", String::from_utf8_lossy(&stderr).trim());
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
