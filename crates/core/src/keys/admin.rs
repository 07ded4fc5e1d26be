//! The first admin key: made once, when a store has no key at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;

use super::format::mint;
use super::{Role, insert};
use crate::db::api_keys::ApiKey;
use crate::db::{Db, DbError, api_keys};
use crate::lists::{self, Actor};

/// The file in `data_dir` that the first admin key is written to.
pub const ADMIN_KEY_FILE: &str = "admin.key";

/// Why the first admin key could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FirstKeyError {
    /// Its file could not be written, and no key was made.
    #[error("the first admin key cannot be written to {}: {cause}", .path.display())]
    File {
        /// Where it should have gone.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] DbError),
}

/// Makes an admin key if the store has no key at all, revoked ones included, and writes it to
/// [`ADMIN_KEY_FILE`] in `data_dir`, readable by its owner alone. Returns the file if it was made.
///
/// Replicas that start at once make one between them. The key is on disk before it is in the store,
/// so none is made that nobody can know.
///
/// # Errors
/// [`FirstKeyError`]; then there is no key.
pub async fn first_admin_key(
    db: &Db,
    data_dir: &Path,
    now: DateTime<Utc>,
) -> Result<Option<PathBuf>, FirstKeyError> {
    let path = data_dir.join(ADMIN_KEY_FILE);
    // Nearly every start: there are keys, and nothing is written.
    let keys = db.run(|conn| api_keys::all(conn).boxed()).await?;
    if !keys.is_empty() {
        return finish(&keys, &path).map_err(|cause| FirstKeyError::File { path, cause });
    }
    let minted = mint();
    let beside = data_dir.join(format!("{ADMIN_KEY_FILE}.{}", minted.id));
    let failed = |cause| FirstKeyError::File { path: path.clone(), cause };
    write_private(&beside, &minted.key).map_err(failed)?;
    let made = db
        .transaction(move |conn| {
            async move {
                let at = lists::lock(conn, now).await?;
                if !api_keys::all(conn).await?.is_empty() {
                    return Ok(false);
                }
                let actor = Actor { name: "first-start".to_owned(), address: None };
                insert(conn, minted, "first admin".to_owned(), Role::Admin, &actor, at).await?;
                Ok(true)
            }
            .boxed()
        })
        .await;
    match made {
        Ok(true) => {
            fs::rename(&beside, &path).map_err(failed)?;
            Ok(Some(path))
        }
        Ok(false) => {
            // Another replica was first; its file holds the key.
            let _ = fs::remove_file(&beside);
            Ok(None)
        }
        // Whether the commit came through is unknown, so the file stays for who looks for the key.
        Err(error @ DbError::Unconfirmed(_)) => Err(error.into()),
        Err(error) => {
            let _ = fs::remove_file(&beside);
            Err(error.into())
        }
    }
}

/// Gives the key of a start that was killed behind its commit the name under which it is looked for.
fn finish(keys: &[ApiKey], path: &Path) -> io::Result<Option<PathBuf>> {
    if path.exists() {
        return Ok(None);
    }
    let beside = |key: &ApiKey| path.with_added_extension(&key.id);
    let Some(made) = keys.iter().map(beside).find(|file| file.exists()) else { return Ok(None) };
    fs::rename(made, path)?;
    Ok(Some(path.to_owned()))
}

fn write_private(path: &Path, key: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{key}\n").as_bytes())?;
    file.sync_all()
}
