//! A batch into SQLite, as rows of Diesel's.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;

use super::{Marking, NewLogged, forget, touched};
use crate::db::connection::SqliteConn;
use crate::db::schema::{request_logs, touched_hours};
use crate::db::types::{AddrValue, Ts, TsValue};
use crate::db::{Conn, Db, DbError, forgotten};

pub(super) async fn write<M: Marking>(
    db: &Db,
    batch: Vec<NewLogged>,
    mark: M,
) -> Result<M::Told, DbError> {
    db.transaction(move |conn| {
        async move {
            let told = mark.insert(conn).await?;
            let batch = match forget::oldest(&batch) {
                Some(oldest) => forget::without(batch, &forgotten::since(conn, oldest).await?),
                None => batch,
            };
            let Conn::Sqlite(conn) = conn else { unreachable!("PostgreSQL copies") };
            touch(conn, &batch).await?;
            insert(conn, batch).await?;
            Ok(told)
        }
        .boxed()
    })
    .await
}

/// Notes the hours that the scan has to look at again.
async fn touch(conn: &mut SqliteConn, batch: &[NewLogged]) -> Result<(), DbError> {
    // Never the same again, whatever the clock says: by it the scan sees that an hour was touched anew.
    let later = "max(excluded.recorded_at, touched_hours.recorded_at + 1)";
    for (hour, node, recorded_at) in touched(batch) {
        let row = (
            touched_hours::hour.eq(TsValue(hour)),
            touched_hours::node.eq(node.to_string()),
            touched_hours::recorded_at.eq(TsValue(recorded_at)),
        );
        diesel::insert_into(touched_hours::table)
            .values(row)
            .on_conflict((touched_hours::hour, touched_hours::node))
            .do_update()
            .set(touched_hours::recorded_at.eq(sql::<Ts>(later)))
            .execute(conn)
            .await?;
    }
    Ok(())
}

async fn insert(conn: &mut SqliteConn, batch: Vec<NewLogged>) -> Result<(), DbError> {
    // 15 columns: 100 rows stay far below SQLite's 32,766 parameters, and are its fastest size.
    let mut rows = batch.into_iter().map(Row::from).peekable();
    while rows.peek().is_some() {
        let some: Vec<Row> = rows.by_ref().take(100).collect();
        insert_batch!(conn, diesel::insert_into(request_logs::table).values(some))?;
    }
    Ok(())
}

#[derive(Insertable)]
#[diesel(table_name = request_logs, treat_none_as_default_value = false)]
struct Row {
    at: TsValue,
    address: AddrValue,
    method: String,
    path: String,
    status: i16,
    verdict: &'static str,
    sensitive: bool,
    identity: Option<String>,
    country: Option<String>,
    city: Option<String>,
    asn: Option<i64>,
    user_agent: Option<String>,
    reference: Option<String>,
    node: String,
    recorded_at: TsValue,
}

impl From<NewLogged> for Row {
    fn from(new: NewLogged) -> Row {
        Row {
            at: TsValue(new.at),
            address: AddrValue(new.address),
            method: new.method,
            path: new.path,
            status: new.status,
            verdict: new.verdict,
            sensitive: new.sensitive,
            identity: new.identity,
            country: new.country,
            city: new.city,
            asn: new.asn,
            user_agent: new.user_agent,
            reference: new.reference,
            node: new.node.to_string(),
            recorded_at: TsValue(new.recorded_at),
        }
    }
}
