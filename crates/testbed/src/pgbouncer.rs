//! A private PgBouncer in front of a private PostgreSQL.

use std::sync::Arc;

use anyhow::Context;

use crate::ports::{free_port, listens, on_a_port};
use crate::postgres::account;
use crate::watched::{Account, Launch, Private, find_in_path, is_program};
use crate::{PostgresServer, TestDatabase};

const MISSING: &str = "no `pgbouncer` in PATH or /usr/sbin: run the tests with `bash .ci/test`, which \
    installs it, or `apt-get install pgbouncer`";

/// A PgBouncer to test through. Clones are the same one.
#[derive(Clone, Debug)]
pub struct PgBouncer {
    port: u16,
    own: Arc<Private>,
}

/// Starts one that pools in this mode, `session` or `transaction`, with so many connections to the
/// server for each database.
pub fn pgbouncer_private(
    server: &PostgresServer,
    mode: &str,
    connections: usize,
) -> anyhow::Result<PgBouncer> {
    let packaged =
        Some("/usr/sbin/pgbouncer".into()).filter(|file: &std::path::PathBuf| is_program(file));
    let program = find_in_path("pgbouncer").or(packaged).context(MISSING)?;
    let account = account()?;
    let to = server.port()?;
    on_a_port(free_port, |port| {
        let directory = tempfile::Builder::new().prefix("ipwarden-pgbouncer-").tempdir()?;
        let settings = directory.path().join("pgbouncer.ini");
        // `any` trusts whoever comes, as the server does.
        std::fs::write(
            &settings,
            format!(
                "[databases]\n* = host=127.0.0.1 port={to} user=postgres\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = any\npool_mode = {mode}\ndefault_pool_size = {connections}\n\
                 server_login_retry = 1\n"
            ),
        )?;
        if let Some(Account { user, group }) = account {
            std::os::unix::fs::chown(directory.path(), Some(user), Some(group))?;
        }
        let launch = Launch {
            program: program.clone(),
            arguments: vec![settings.into()],
            port,
            // From here on it is removed with the program.
            directory: directory.keep(),
            signal: "KILL",
            account,
        };
        Ok(PgBouncer { port, own: Arc::new(Private::start_new(launch, listens)?) })
    })
}

impl PgBouncer {
    /// The URL of a database, through this.
    pub fn url(&self, database: &TestDatabase) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.port, database.name())
    }

    /// Kills it.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.own.stop()
    }

    /// Starts it again on its old port.
    pub fn start(&self) -> anyhow::Result<()> {
        self.own.start()
    }
}
