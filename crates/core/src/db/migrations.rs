//! Brings a store to the schema that this program was built for.

use diesel::connection::SimpleConnection;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use futures_util::FutureExt;

use super::connection::{Conn, Db};
use super::error::DbError;

const POSTGRES: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");

/// Any number will do, as long as every version of ipwarden takes the same one.
const LOCK: i64 = 0x6970_7761_7264_656e;

impl Db {
    /// Applies what is missing, under a lock: replicas may all try at once. Returns the versions that
    /// were applied by this call.
    ///
    /// # Errors
    /// [`DbError::Migration`] when a migration fails; those before it stay applied.
    pub async fn migrate(&self) -> Result<Vec<String>, DbError> {
        match self {
            Db::Postgres(pool) => {
                let connection = pool.dedicated().await?;
                blocking(move || {
                    let mut connection =
                        AsyncConnectionWrapper::<AsyncPgConnection>::from(connection);
                    // Whoever is at it may need minutes on a large store. The lock ends with the
                    // connection, which is not the pool's.
                    connection.batch_execute(&format!(
                        "set statement_timeout = 0; set lock_timeout = 0; \
                         select pg_advisory_lock({LOCK}); set lock_timeout = '5s'"
                    ))?;
                    names(connection.run_pending_migrations(POSTGRES))
                })
                .await
            }
            Db::Sqlite(pool) => {
                let mut connection = pool.dedicated().await?;
                blocking(move || {
                    connection.immediate_transaction(|connection| {
                        names(connection.run_pending_migrations(SQLITE))
                    })
                })
                .await
            }
        }
    }

    /// Whether the store has everything that this program needs. A store that is newer is fine: a
    /// rolling upgrade migrates first.
    ///
    /// # Errors
    /// [`DbError::OldSchema`] names what is missing.
    pub async fn check_schema(&self) -> Result<(), DbError> {
        use diesel::migration::MigrationSource;
        let wanted: Vec<String> = match self {
            Db::Postgres(_) => MigrationSource::<diesel::pg::Pg>::migrations(&POSTGRES)
                .map(|all| all.iter().map(|one| one.name().version().to_string()).collect()),
            Db::Sqlite(_) => MigrationSource::<diesel::sqlite::Sqlite>::migrations(&SQLITE)
                .map(|all| all.iter().map(|one| one.name().version().to_string()).collect()),
        }
        .map_err(|error| DbError::Migration(error.to_string()))?;
        let applied = self.run(|conn| applied(conn).boxed()).await?;
        let missing: Vec<String> =
            wanted.into_iter().filter(|version| !applied.contains(version)).collect();
        if missing.is_empty() { Ok(()) } else { Err(DbError::OldSchema { missing }) }
    }
}

async fn applied(conn: &mut Conn) -> Result<Vec<String>, DbError> {
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Text)]
        version: String,
    }
    let exists = match conn {
        Conn::Postgres(_) => {
            // Where our tables are; the database may hold those of others in other schemas.
            "select 'found' as version \
            where to_regclass('__diesel_schema_migrations') is not null"
        }
        Conn::Sqlite(_) => {
            "select name as version from sqlite_master \
            where name = '__diesel_schema_migrations'"
        }
    };
    let found: Vec<Row> = on!(conn, |c| diesel::sql_query(exists).load(c).await)?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> =
        on!(conn, |c| diesel::sql_query("select version from __diesel_schema_migrations")
            .load(c)
            .await)?;
    Ok(rows.into_iter().map(|row| row.version).collect())
}

/// Diesel's migrations are synchronous, and the async harness panics on a worker's runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DbError> + Send + 'static,
) -> Result<T, DbError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DbError::Migration(error.to_string()))?
}

fn names(
    applied: diesel::migration::Result<Vec<diesel::migration::MigrationVersion<'_>>>,
) -> Result<Vec<String>, DbError> {
    match applied {
        Ok(versions) => Ok(versions.iter().map(ToString::to_string).collect()),
        Err(error) => Err(DbError::Migration(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Create;

    #[tokio::test]
    async fn the_migrations_of_another_program_in_the_same_database_are_not_ours() {
        let database = ipwarden_testbed::postgres_database().unwrap();
        let db = Db::postgres(database.url(), 2).unwrap();
        let other = "create schema other; \
            create table other.__diesel_schema_migrations (version text)";
        db.run(move |conn| conn.batch(other).boxed()).await.unwrap();
        let checked = db.check_schema().await;
        assert!(matches!(checked, Err(DbError::OldSchema { .. })), "{checked:?}");
    }

    #[tokio::test]
    async fn a_store_with_the_schema_of_a_later_version_is_good() {
        let directory = tempfile::tempdir().unwrap();
        let sqlite = directory.path().join("test.db");
        let sqlite = Db::open_sqlite(&sqlite, Create::IfMissing).await.unwrap();
        let database = ipwarden_testbed::postgres_database().unwrap();
        for db in [sqlite, Db::postgres(database.url(), 2).unwrap()] {
            db.migrate().await.unwrap();
            let later =
                "insert into __diesel_schema_migrations (version) values ('99991231000001')";
            db.run(move |conn| conn.batch(later).boxed()).await.unwrap();
            db.check_schema().await.unwrap();
            assert_eq!(db.migrate().await.unwrap(), Vec::<String>::new());
        }
    }
}
