//! A log that is still being written, through its rotation.
//!
//! Rotation by renaming is seen by the file behind the name being another one; what was written to the
//! old one meanwhile is read first. Rotation by copying and truncating is seen by the file being
//! shorter than what was read of it. Who truncates a log and fills it beyond that within a quarter of a
//! second is not noticed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::{ImportError, Imported, Importer, Input, Progress};
use super::{give_back, import_under, take_lease};
use crate::access_log::Format;

/// How often somebody looks whether the new file of a rotation is there.
const PAUSE: Duration = Duration::from_millis(250);

/// What the reader of a growing file looks at.
#[derive(Clone)]
pub(super) struct Following {
    pub(super) path: PathBuf,
    pub(super) stop: CancellationToken,
}

/// Imports a log and whatever is added to it until `stop`; the lease of imports is held all the while.
///
/// # Errors
/// [`ImportError`], also when the file cannot be read at the beginning; one that is gone later is waited
/// for.
pub async fn follow(
    with: &Importer<'_>,
    path: &Path,
    format: Option<Format>,
    clock: impl Fn() -> DateTime<Utc>,
    mut report: impl FnMut(Progress),
    stop: CancellationToken,
) -> Result<Imported, ImportError> {
    let lease = take_lease(with, clock()).await?;
    let following = Following { path: path.to_owned(), stop };
    let mut all = Imported::default();
    let outcome = async {
        let mut first = true;
        while first || !following.stop.is_cancelled() {
            let input = match Input::open(path) {
                Ok(input) => input.written_as(format),
                Err(error) if !first && error.kind() == io::ErrorKind::NotFound => {
                    tokio::select! {
                        () = following.stop.cancelled() => {}
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                    continue;
                }
                Err(cause) => {
                    return Err(ImportError::Unreadable {
                        name: path.display().to_string(),
                        cause,
                    });
                }
            };
            first = false;
            let before = all.records;
            let follow = Some(following.clone());
            let told = &mut |progress: Progress| {
                report(Progress { records: before + progress.records, ..progress });
            };
            all.join(import_under(with, &lease, input, follow, &clock, told).await?);
        }
        Ok(())
    }
    .await;
    give_back(with, lease, clock()).await;
    outcome.map(|()| all)
}
