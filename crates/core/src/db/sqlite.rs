//! The embedded store: a small pool of connections to one SQLite file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use diesel::Connection;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::connection::{Conn, Inline, SqliteConn};
use super::error::DbError;

/// Whether a store may be made where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// The service makes its own.
    IfMissing,
    /// `ipctl` never does: a typo must not become an empty store.
    Never,
}

/// Connections to one file, each used by one blocking thread at a time.
#[derive(Clone)]
pub struct SqlitePool {
    inner: Arc<Inner>,
    /// Whether transactions are rolled back at their end.
    pub(super) rehearsal: bool,
}

struct Inner {
    path: PathBuf,
    idle: Mutex<Vec<SqliteConn>>,
    connections: Semaphore,
    // SQLite has one writer anyway; queueing here is fair, while its busy handler sleeps and guesses.
    writer: tokio::sync::Mutex<()>,
}

const MAX_CONNECTIONS: usize = 4;

/// WAL lets readers and the writer pass each other and survives a kill of the process; the busy
/// timeout is for writers in other processes (`ipctl`). What is deleted is overwritten: it was deleted because
/// nobody may read it any more.
const SETUP: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; \
    PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON; PRAGMA cache_size = -16000; \
    PRAGMA secure_delete = ON;";

impl SqlitePool {
    pub(super) async fn open(path: &Path, create: Create) -> Result<SqlitePool, DbError> {
        let path = std::path::absolute(path)
            .map_err(|error| DbError::Unreachable(format!("{}: {error}", path.display())))?;
        if create == Create::Never && !path.is_file() {
            return Err(DbError::Missing(path));
        }
        let inner = Arc::new(Inner {
            path,
            idle: Mutex::new(Vec::new()),
            connections: Semaphore::new(MAX_CONNECTIONS),
            writer: tokio::sync::Mutex::new(()),
        });
        let pool = SqlitePool { inner, rehearsal: false };
        // The first look tells at once whether the file is a database at all.
        pool.run(|conn| Box::pin(async move { conn.batch("PRAGMA schema_version").await })).await?;
        Ok(pool)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    pub(super) fn rehearsal(&self) -> SqlitePool {
        SqlitePool { rehearsal: true, ..self.clone() }
    }

    pub(super) async fn run<T, F>(&self, body: F) -> Result<T, DbError>
    where
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, DbError>> + Send + 'static,
        T: Send + 'static,
    {
        let _turn = self.inner.connections.acquire().await.expect("the semaphore is never closed");
        self.on_blocking_thread(body).await
    }

    pub(super) async fn write<T, F>(&self, body: F) -> Result<T, DbError>
    where
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, DbError>> + Send + 'static,
        T: Send + 'static,
    {
        let _writer = self.inner.writer.lock().await;
        self.run(body).await
    }

    async fn on_blocking_thread<T, F>(&self, body: F) -> Result<T, DbError>
    where
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, DbError>> + Send + 'static,
        T: Send + 'static,
    {
        let inner = self.inner.clone();
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let idle = inner.idle.lock().pop();
            let connection = match idle {
                Some(connection) => connection,
                None => SqliteConn::with_runtime(open_connection(&inner.path)?, Inline),
            };
            let mut conn = Conn::Sqlite(connection);
            // Every await in here is ready at once (`Inline`), so this never parks the thread. A body
            // that panics takes its connection with it, and SQLite rolls back.
            let outcome = runtime.block_on(body(&mut conn));
            if let Conn::Sqlite(connection) = conn {
                inner.idle.lock().push(connection);
            }
            outcome
        })
        .await
        .map_err(|error| DbError::Unreachable(format!("a statement was cut short: {error}")))?
    }

    /// A connection that is not the pool's.
    pub(super) async fn dedicated(&self) -> Result<diesel::SqliteConnection, DbError> {
        let path = self.inner.path.clone();
        tokio::task::spawn_blocking(move || open_connection(&path))
            .await
            .map_err(|error| DbError::Unreachable(error.to_string()))?
    }

    /// What is wrong with the file, by SQLite's own check of all its pages and indices; empty if
    /// nothing is. It reads the whole file.
    ///
    /// # Errors
    /// When the file cannot be opened or read at all.
    pub async fn check_integrity(&self) -> Result<Vec<String>, DbError> {
        use diesel::RunQueryDsl;
        #[derive(diesel::QueryableByName)]
        struct Finding {
            #[diesel(sql_type = diesel::sql_types::Text)]
            integrity_check: String,
        }
        let mut connection = self.dedicated().await?;
        let check = move || diesel::sql_query("PRAGMA integrity_check").load(&mut connection);
        let findings: Vec<Finding> = tokio::task::spawn_blocking(check)
            .await
            .map_err(|error| DbError::Unreachable(error.to_string()))??;
        let findings = findings.into_iter().map(|finding| finding.integrity_check);
        Ok(findings.filter(|text| text != "ok").collect())
    }

    /// Moves everything from the write-ahead log into the file, and empties the log.
    ///
    /// # Errors
    /// [`DbError::Hindered`] when somebody reads all the time.
    pub(super) async fn empty_log(&self) -> Result<(), DbError> {
        use diesel::RunQueryDsl;
        #[derive(diesel::QueryableByName)]
        struct Checkpoint {
            #[diesel(sql_type = diesel::sql_types::Integer)]
            busy: i32,
        }
        let mut connection = self.dedicated().await?;
        let checkpoint = move || {
            let checkpoint: Checkpoint =
                diesel::sql_query("PRAGMA wal_checkpoint(TRUNCATE)").get_result(&mut connection)?;
            Ok::<_, DbError>(checkpoint.busy)
        };
        let busy = tokio::task::spawn_blocking(checkpoint)
            .await
            .map_err(|error| DbError::Unreachable(error.to_string()))??;
        match busy {
            0 => Ok(()),
            _ => Err(DbError::Hindered("its write-ahead log is being read".to_owned())),
        }
    }

    /// A connection of its own that notices commits of others.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn watch(&self) -> Result<DataVersion, DbError> {
        Ok(DataVersion(self.dedicated().await?))
    }
}

/// Tells whether any other connection has committed: 3 us a look, no table is read.
pub struct DataVersion(diesel::SqliteConnection);

impl DataVersion {
    /// A number that changes with every other connection's commit.
    ///
    /// # Errors
    /// When the file is gone or damaged.
    pub fn look(&mut self) -> Result<i64, DbError> {
        use diesel::RunQueryDsl;
        #[derive(diesel::QueryableByName)]
        struct Version {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            data_version: i64,
        }
        let row: Version = diesel::sql_query("PRAGMA data_version").get_result(&mut self.0)?;
        Ok(row.data_version)
    }
}

fn open_connection(path: &Path) -> Result<diesel::SqliteConnection, DbError> {
    use diesel::connection::SimpleConnection;
    let open = || {
        let mut connection = diesel::SqliteConnection::establish(&path.to_string_lossy())
            .map_err(|error| error.to_string())?;
        connection.batch_execute(SETUP).map_err(|error| error.to_string())?;
        Ok(connection)
    };
    open().map_err(|error: String| {
        let at = path.display();
        match error.contains("readonly database") {
            // Most often a command given as another user than the service runs as.
            true => DbError::Hindered(format!(
                "{at}: {error}; its user needs to write the file and the directory it lies in"
            )),
            false => DbError::Unreachable(format!("{at}: {error}")),
        }
    })
}
