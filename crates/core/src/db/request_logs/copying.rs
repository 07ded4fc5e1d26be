//! A batch into PostgreSQL, by `COPY`.

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use tokio_postgres::types::Type;

use super::{Marking, NewLogged, UnderWay, forget, rows, touched};
use crate::db::client::Parameter;
use crate::db::postgres::PostgresPool;
use crate::db::{Client, DbError, forgotten};

/// PostgreSQL gives ids in blocks of so many (see `migrations`).
const BLOCK: usize = 10_000;

pub(super) async fn write<M: Marking>(
    pool: &PostgresPool,
    batch: Vec<NewLogged>,
    mark: M,
    under_way: UnderWay,
) -> Result<M::Told, DbError> {
    pool.copying(move |client| {
        async move {
            let told = mark.copy(client).await?;
            let batch = match forget::oldest(&batch) {
                Some(oldest) => forget::without(batch, &forgotten::since_by(client, oldest).await?),
                None => batch,
            };
            for (hour, node, recorded_at) in touched(&batch) {
                touch(client, hour, &node, recorded_at).await?;
            }
            let mut under_way = Some(under_way);
            for block in batch.chunks(BLOCK) {
                let first_id = client.rows("select nextval('request_log_ids')", &[]).await?;
                let pieces = rows::pieces(block, first_id[0].get(0));
                // Only with the first piece has the server said that it waits for them.
                let pieces = pieces.inspect(|_| drop(under_way.take()));
                client.copy_in(rows::COPY, pieces).await?;
            }
            Ok(told)
        }
        .boxed()
    })
    .await
}

/// Notes an hour that the scan has to look at again.
async fn touch(
    client: &Client,
    hour: DateTime<Utc>,
    node: &str,
    recorded_at: DateTime<Utc>,
) -> Result<(), DbError> {
    // Never the same again, whatever the clock says: by it the scan sees that an hour was touched anew.
    let sql = "insert into touched_hours (hour, node, recorded_at) values ($1, $2, $3) \
        on conflict (hour, node) do update set recorded_at = \
        greatest(excluded.recorded_at, touched_hours.recorded_at + interval '1 microsecond')";
    let parameters: [Parameter<'_>; 3] =
        [(&hour, Type::TIMESTAMPTZ), (&node, Type::TEXT), (&recorded_at, Type::TIMESTAMPTZ)];
    client.change(sql, &parameters).await.map(drop)
}
