//! Other programs' databases, only ever read.
//!
//! Their tables are not ours: columns differ from version to version, and types from database to
//! database. So statements are plain SQL, and every value comes as text.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use diesel::Connection;
use diesel::sql_types::{Nullable, Text};
use futures_util::FutureExt;
use parking_lot::Mutex;

use super::{Conn, Db};
use crate::config::StoreUrl;

/// Why another program's database could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {name}: {why}")]
pub struct ForeignError {
    name: String,
    why: String,
}

/// Another program's database.
pub struct Foreign {
    name: String,
    inner: Inner,
}

enum Inner {
    Sqlite(Arc<Mutex<diesel::SqliteConnection>>),
    Postgres(Db),
}

/// A row of six texts.
pub type Texts = [Option<String>; 6];

#[derive(diesel::QueryableByName)]
struct Row {
    #[diesel(sql_type = Nullable<Text>)]
    a: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    b: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    c: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    d: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    e: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    f: Option<String>,
}

impl Foreign {
    /// Opens what a URL names, to read it.
    ///
    /// # Errors
    /// When there is nothing, or it is no database.
    pub async fn open(url: &StoreUrl) -> Result<Foreign, ForeignError> {
        let name = url.to_string();
        let inner = match url {
            StoreUrl::Sqlite(path) => return Foreign::open_sqlite(path).await,
            StoreUrl::Postgres(url) => Db::postgres(url, 1).map(Inner::Postgres),
        };
        match inner {
            Ok(inner) => Ok(Foreign { name, inner }),
            Err(error) => Err(ForeignError { name, why: error.to_string() }),
        }
    }

    /// Opens a file of SQLite, to read it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn open_sqlite(path: &Path) -> Result<Foreign, ForeignError> {
        let path = there(path);
        let name = path.display().to_string();
        let failed = |why: String| ForeignError { name: name.clone(), why };
        if !path.is_file() {
            return Err(failed("there is no such file".to_owned()));
        }
        // SQLite reads a URI; what has a meaning in one is escaped.
        let escaped =
            path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let open = move || diesel::SqliteConnection::establish(&format!("file:{escaped}?mode=ro"));
        let opened = tokio::task::spawn_blocking(open).await;
        match opened
            .map_err(|panic| panic.to_string())
            .map(|opened| opened.map_err(|e| e.to_string()))
        {
            Ok(Ok(connection)) => {
                let inner = Inner::Sqlite(Arc::new(Mutex::new(connection)));
                Ok(Foreign { name, inner })
            }
            Ok(Err(why)) | Err(why) => Err(failed(why)),
        }
    }

    /// What it is called, without a password.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a file of SQLite.
    pub fn is_sqlite(&self) -> bool {
        matches!(self.inner, Inner::Sqlite(_))
    }

    /// The columns of a table; none if there is no such table.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn columns(&self, table: &str) -> Result<Vec<String>, ForeignError> {
        let from = match self.inner {
            Inner::Sqlite(_) => format!("name as a, {NONE} from pragma_table_info('{table}')"),
            Inner::Postgres(_) => format!(
                "column_name::text as a, {NONE} from information_schema.columns \
                 where table_name = '{table}' and table_schema = any(current_schemas(false))"
            ),
        };
        let rows = self.rows(format!("select {from}")).await?;
        Ok(rows.into_iter().filter_map(|[name, ..]| name).collect())
    }

    /// The rows of a query whose columns are the texts `a` to `f`.
    ///
    /// # Errors
    /// When it cannot be asked, or refuses.
    pub async fn rows(&self, sql: String) -> Result<Vec<Texts>, ForeignError> {
        let rows: Result<Vec<Row>, String> = match &self.inner {
            Inner::Sqlite(connection) => {
                let connection = connection.clone();
                let load = move || {
                    use diesel::RunQueryDsl;
                    diesel::sql_query(sql).load(&mut *connection.lock())
                };
                match tokio::task::spawn_blocking(load).await {
                    Ok(rows) => rows.map_err(|error| error.to_string()),
                    Err(panic) => Err(panic.to_string()),
                }
            }
            Inner::Postgres(db) => {
                let load = db.run(move |conn| {
                    async move {
                        use diesel_async::RunQueryDsl;
                        match conn {
                            Conn::Postgres(c) => Ok(diesel::sql_query(sql).load(c).await?),
                            Conn::Sqlite(_) => Ok(Vec::new()),
                        }
                    }
                    .boxed()
                });
                load.await.map_err(|error| error.to_string())
            }
        };
        rows.map(|rows| {
            rows.into_iter().map(|Row { a, b, c, d, e, f }| [a, b, c, d, e, f]).collect()
        })
        .map_err(|why| ForeignError { name: self.name.clone(), why })
    }
}

/// The other columns of a query that has one.
const NONE: &str = "cast(null as text) as b, cast(null as text) as c, cast(null as text) as d, \
    cast(null as text) as e, cast(null as text) as f";

/// Django writes `sqlite:///db.sqlite3` for a file beside it; that is taken, if it is there and the file
/// at the root is not.
fn there(path: &Path) -> PathBuf {
    let beside = path.strip_prefix("/").ok().filter(|beside| !path.exists() && beside.is_file());
    beside.unwrap_or(path).to_owned()
}
