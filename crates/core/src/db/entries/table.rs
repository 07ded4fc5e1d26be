//! The module of a list's table: its columns and its statements.

macro_rules! entries_table {
    ($table:ident) => {
        use chrono::{DateTime, Utc};
        use diesel::prelude::*;
        use diesel_async::RunQueryDsl;
        use futures_util::TryStreamExt as _;
        use ipwarden_engine::network::Network;

        use super::entries::{Entry, Listed, NewEntry, Put};
        use super::schema::$table::dsl;
        use super::types::{MaybeTs, NetValue, TsValue};
        use super::{Conn, DbError};

        #[derive(Queryable)]
        struct Row {
            id: i64,
            network: NetValue,
            reason: String,
            origin: String,
            created_by: String,
            created_at: TsValue,
            expires_at: MaybeTs,
        }

        impl From<Row> for Entry {
            fn from(row: Row) -> Entry {
                Entry {
                    id: row.id,
                    network: row.network.0,
                    reason: row.reason,
                    origin: row.origin,
                    created_by: row.created_by,
                    created_at: row.created_at.0,
                    expires_at: row.expires_at.into(),
                }
            }
        }

        fn entries(rows: Vec<Row>) -> Vec<Entry> {
            rows.into_iter().map(Entry::from).collect()
        }

        /// Makes the row of (network, origin) say what `new` says. Who first made it, and when,
        /// stays.
        ///
        /// # Errors
        /// As any statement.
        pub async fn put(conn: &mut Conn, new: NewEntry) -> Result<(Entry, Put), DbError> {
            let found = dsl::$table
                .filter(dsl::network.eq(NetValue(new.network)))
                .filter(dsl::origin.eq(new.origin.clone()));
            let old: Option<Row> = on!(conn, |c| found.first(c).await.optional())?;
            match old.map(Entry::from) {
                Some(old) if old.reason == new.reason && old.expires_at == new.expires_at => {
                    Ok((old, Put::Unchanged))
                }
                Some(old) => {
                    let row: Row = on!(conn, |c| diesel::update(dsl::$table.find(old.id))
                        .set((
                            dsl::reason.eq(new.reason),
                            dsl::expires_at.eq(MaybeTs::from(new.expires_at)),
                        ))
                        .get_result(c)
                        .await)?;
                    Ok((row.into(), Put::Updated))
                }
                None => {
                    let row: Row = on!(conn, |c| diesel::insert_into(dsl::$table)
                        .values((
                            dsl::network.eq(NetValue(new.network)),
                            dsl::reason.eq(new.reason),
                            dsl::origin.eq(new.origin),
                            dsl::created_by.eq(new.created_by),
                            dsl::created_at.eq(TsValue(new.created_at)),
                            dsl::expires_at.eq(MaybeTs::from(new.expires_at)),
                        ))
                        .get_result(c)
                        .await)?;
                    Ok((row.into(), Put::Created))
                }
            }
        }

        #[derive(Insertable)]
        #[diesel(table_name = super::schema::$table, treat_none_as_default_value = false)]
        struct NewRow {
            network: NetValue,
            reason: String,
            origin: String,
            created_by: String,
            created_at: TsValue,
            expires_at: MaybeTs,
        }

        impl From<NewEntry> for NewRow {
            fn from(new: NewEntry) -> NewRow {
                NewRow {
                    network: NetValue(new.network),
                    reason: new.reason,
                    origin: new.origin,
                    created_by: new.created_by,
                    created_at: TsValue(new.created_at),
                    expires_at: MaybeTs::from(new.expires_at),
                }
            }
        }

        /// Adds rows of which none is there yet by (network, origin), in few statements.
        ///
        /// # Errors
        /// As any statement.
        pub async fn insert(conn: &mut Conn, new: Vec<NewEntry>) -> Result<(), DbError> {
            let rows: Vec<NewRow> = new.into_iter().map(NewRow::from).collect();
            let rows = diesel::insert_into(dsl::$table).values(rows);
            match conn {
                Conn::Postgres(c) => rows.execute(c).await?,
                Conn::Sqlite(c) => insert_batch!(c, rows)?,
            };
            Ok(())
        }

        /// All rows of one origin, ended or not.
        ///
        /// # Errors
        /// As any statement.
        pub async fn of_origin(conn: &mut Conn, origin: &str) -> Result<Vec<Entry>, DbError> {
            let rows = dsl::$table.filter(dsl::origin.eq(origin.to_owned()));
            on!(conn, |c| rows.load::<Row>(c).await).map(entries)
        }

        /// Gives rows another reason and end.
        ///
        /// # Errors
        /// As any statement.
        pub async fn update(
            conn: &mut Conn,
            ids: &[i64],
            reason: &str,
            expires_at: Option<DateTime<Utc>>,
        ) -> Result<(), DbError> {
            for ids in ids.chunks(super::entries::AT_ONCE) {
                let rows = dsl::$table.filter(dsl::id.eq_any(ids.to_vec()));
                let set = (
                    dsl::reason.eq(reason.to_owned()),
                    dsl::expires_at.eq(MaybeTs::from(expires_at)),
                );
                on!(conn, |c| diesel::update(rows).set(set).execute(c).await)?;
            }
            Ok(())
        }

        /// Deletes the rows with these ids.
        ///
        /// # Errors
        /// As any statement.
        pub async fn delete(conn: &mut Conn, ids: &[i64]) -> Result<(), DbError> {
            for ids in ids.chunks(super::entries::AT_ONCE) {
                let rows = dsl::$table.filter(dsl::id.eq_any(ids.to_vec()));
                on!(conn, |c| diesel::delete(rows).execute(c).await)?;
            }
            Ok(())
        }

        /// Deletes all rows of exactly this network and returns them.
        ///
        /// # Errors
        /// As any statement.
        pub async fn remove(conn: &mut Conn, network: Network) -> Result<Vec<Entry>, DbError> {
            let rows = dsl::$table.filter(dsl::network.eq(NetValue(network)));
            on!(conn, |c| diesel::delete(rows).get_results::<Row>(c).await).map(entries)
        }

        /// Deletes up to `limit` rows that have ended by `now` and returns their networks.
        ///
        /// # Errors
        /// As any statement.
        pub async fn prune(
            conn: &mut Conn,
            now: DateTime<Utc>,
            limit: i64,
        ) -> Result<Vec<Network>, DbError> {
            let ended = dsl::$table
                .filter(dsl::expires_at.le(TsValue(now)))
                .order(dsl::expires_at)
                .limit(limit)
                .select(dsl::id);
            let ids: Vec<i64> = on!(conn, |c| ended.load(c).await)?;
            let rows = dsl::$table.filter(dsl::id.eq_any(ids));
            on!(conn, |c| diesel::delete(rows).get_results::<Row>(c).await)
                .map(|rows| rows.into_iter().map(|row| row.network.0).collect())
        }

        /// The rows of exactly this network, ended or not.
        ///
        /// # Errors
        /// As any statement.
        pub async fn of(conn: &mut Conn, network: Network) -> Result<Vec<Entry>, DbError> {
            let rows = dsl::$table.filter(dsl::network.eq(NetValue(network))).order(dsl::id);
            on!(conn, |c| rows.load::<Row>(c).await).map(entries)
        }

        /// Deletes the rows of exactly this network that ended by `now`; returns how many.
        ///
        /// # Errors
        /// As any statement.
        pub async fn prune_of(
            conn: &mut Conn,
            network: Network,
            now: DateTime<Utc>,
        ) -> Result<usize, DbError> {
            let ended = dsl::$table
                .filter(dsl::network.eq(NetValue(network)))
                .filter(dsl::expires_at.le(TsValue(now)));
            on!(conn, |c| diesel::delete(ended).execute(c).await)
        }

        /// Whether there is a row that ended by `now`.
        ///
        /// # Errors
        /// As any statement.
        pub async fn has_ended(conn: &mut Conn, now: DateTime<Utc>) -> Result<bool, DbError> {
            let ended = dsl::$table.filter(dsl::expires_at.le(TsValue(now))).select(dsl::id);
            let first: Option<i64> = on!(conn, |c| ended.first(c).await.optional())?;
            Ok(first.is_some())
        }

        /// Every row that has not ended by `now`, as the guard sees it.
        ///
        /// # Errors
        /// As any statement.
        pub async fn listed(conn: &mut Conn, now: DateTime<Utc>) -> Result<Vec<Listed>, DbError> {
            let active = dsl::$table
                .filter(dsl::expires_at.is_null().or(dsl::expires_at.gt(TsValue(now))))
                .select((dsl::network, dsl::origin.eq(super::entries::SCAN), dsl::expires_at));
            on!(conn, |c| async {
                active
                    .load_stream::<(NetValue, bool, MaybeTs)>(c)
                    .await?
                    .map_ok(|(network, by_scan, ends)| Listed {
                        network: network.0,
                        by_scan,
                        expires_at: ends.into(),
                    })
                    .try_collect()
                    .await
            }
            .await)
        }

        /// The rows of exactly these networks that have not ended by `now`, as the guard sees them.
        ///
        /// # Errors
        /// As any statement.
        pub async fn listed_of(
            conn: &mut Conn,
            networks: &[Network],
            now: DateTime<Utc>,
        ) -> Result<Vec<Listed>, DbError> {
            let rows = active_of(conn, networks, now).await?;
            Ok(rows.iter().map(Listed::from).collect())
        }

        /// The rows of exactly these networks that have not ended by `now`.
        ///
        /// # Errors
        /// As any statement.
        pub async fn active_of(
            conn: &mut Conn,
            networks: &[Network],
            now: DateTime<Utc>,
        ) -> Result<Vec<Entry>, DbError> {
            let mut all = Vec::new();
            for chunk in networks.chunks(super::entries::AT_ONCE) {
                let active = dsl::$table
                    .filter(dsl::network.eq_any(chunk.iter().copied().map(NetValue)))
                    .filter(dsl::expires_at.is_null().or(dsl::expires_at.gt(TsValue(now))));
                let rows: Vec<Row> = on!(conn, |c| active.load(c).await)?;
                all.extend(rows.into_iter().map(Entry::from));
            }
            Ok(all)
        }

        /// The rows whose network contains all of `network`, widest first.
        ///
        /// # Errors
        /// As any statement.
        pub async fn covering(
            conn: &mut Conn,
            network: Network,
            now: DateTime<Utc>,
        ) -> Result<Vec<Entry>, DbError> {
            // At most 129 networks contain another, so both databases can ask their index.
            let wider: Vec<NetValue> = (0..=network.prefix())
                .filter_map(|prefix| Network::new(network.address(), prefix).ok())
                .map(NetValue)
                .collect();
            let rows = dsl::$table
                .filter(dsl::network.eq_any(wider))
                .filter(dsl::expires_at.is_null().or(dsl::expires_at.gt(TsValue(now))))
                .order((dsl::network, dsl::id));
            on!(conn, |c| rows.load::<Row>(c).await).map(entries)
        }

        /// Up to `limit` rows whose network lies inside `network`, itself included.
        ///
        /// # Errors
        /// As any statement.
        pub async fn inside(
            conn: &mut Conn,
            network: Network,
            now: DateTime<Utc>,
            limit: i64,
        ) -> Result<Vec<Entry>, DbError> {
            // Both databases sort a network before those inside it, and these before its last address.
            let rows = dsl::$table
                .filter(dsl::network.ge(NetValue(network)))
                .filter(dsl::network.le(NetValue(Network::from(network.last_address()))))
                .filter(dsl::expires_at.is_null().or(dsl::expires_at.gt(TsValue(now))))
                .order((dsl::network, dsl::id))
                .limit(limit);
            on!(conn, |c| rows.load::<Row>(c).await).map(entries)
        }

        /// Up to `limit` rows with ids below `before`, newest first: a page of the whole list.
        ///
        /// # Errors
        /// As any statement.
        pub async fn page(
            conn: &mut Conn,
            before: Option<i64>,
            limit: i64,
            now: DateTime<Utc>,
        ) -> Result<Vec<Entry>, DbError> {
            let rows = dsl::$table
                .filter(dsl::id.lt(before.unwrap_or(i64::MAX)))
                .filter(dsl::expires_at.is_null().or(dsl::expires_at.gt(TsValue(now))))
                .order(dsl::id.desc())
                .limit(limit);
            on!(conn, |c| rows.load::<Row>(c).await).map(entries)
        }

        /// The row with this id, ended or not.
        ///
        /// # Errors
        /// As any statement.
        pub async fn find(conn: &mut Conn, id: i64) -> Result<Option<Entry>, DbError> {
            let row: Option<Row> = on!(conn, |c| dsl::$table.find(id).first(c).await.optional())?;
            Ok(row.map(Entry::from))
        }
    };
}
pub(in crate::db) use entries_table;
