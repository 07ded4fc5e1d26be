//! Writing the log: shipped from a spool, imported from an access log.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::ensure;
use chrono::{DateTime, Utc};
use ipwarden_core::db::{Create, Db};
use ipwarden_core::geo::Geo;
use ipwarden_core::import::{Importer, Input, import};
use ipwarden_core::recorder::Recorder;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::sensitive_path::SensitivePaths;
use ipwarden_engine::spool::{Draft, Spool, SpoolOptions};
use ipwarden_testbed::TestDatabase;

use super::path::record;
use crate::contestants::{Bed, write_places};
use crate::document::Findings;

const ROWS: usize = 500_000;

/// Both stores, fresh; the second word names them in keys.
async fn stores(
    bed: &Bed,
    directory: &Path,
) -> anyhow::Result<[(Db, &'static str, Option<TestDatabase>); 2]> {
    let sqlite = Db::open_sqlite(&directory.join("figures.db"), Create::IfMissing).await?;
    let database = bed.postgres.database()?;
    let postgres = Db::postgres(database.url(), 2)?;
    sqlite.migrate().await?;
    postgres.migrate().await?;
    Ok([(sqlite, "sqlite", None), (postgres, "postgres", Some(database))])
}

fn name_of(store: &str) -> &'static str {
    if store == "sqlite" { "SQLite" } else { "PostgreSQL" }
}

pub(super) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(Moment::now().wall).unwrap_or_default()
}

/// From the spool to the store, with the place of each address.
pub(super) async fn shipping(bed: &Bed, findings: &mut Findings) -> anyhow::Result<()> {
    let clients = ipwarden_bench::addresses::clients(100_000);
    let directory = bed.directory.join("shipping");
    std::fs::create_dir_all(&directory)?;
    let file = directory.join("city.mmdb");
    write_places(&file)?;
    for (db, store, _database) in stores(bed, &directory).await? {
        let geo = Arc::new(Geo::open(vec![file.clone()], Some(&directory), None));
        let mut rates = Vec::new();
        for _ in 0..5 {
            let spool = Spool::open(&directory, SpoolOptions::default())?;
            let mut writer = spool.writer();
            let at = Moment::now().wall;
            for number in 0..ROWS {
                let client = clients[number % clients.len()];
                writer.append(Draft::of(&record(client, at + number as i64)));
            }
            drop(writer);
            let recorder = Recorder::new(spool, db.clone(), geo.clone(), "bench");
            let began = Moment::now().steady;
            let shipped = recorder.ship_all(now()).await?;
            let took = (Moment::now().steady - began) as f64 / 1e6;
            ensure!(shipped == ROWS as u64, "{shipped} of {ROWS} records were shipped");
            rates.push(ROWS as f64 / took);
        }
        rates.sort_by(f64::total_cmp);
        let what = format!(
            "shipping: from the spool into the indexed table of {}, whose server has the other core",
            name_of(store)
        );
        findings.note(&format!("shipped {store}"), rates[2], what, "rows/s");
    }
    Ok(())
}

/// From an access log in the combined format.
pub(super) async fn importing(bed: &Bed, findings: &mut Findings) -> anyhow::Result<()> {
    let directory = bed.directory.join("importing");
    std::fs::create_dir_all(&directory)?;
    let places = directory.join("city.mmdb");
    write_places(&places)?;
    let clients = ipwarden_bench::addresses::clients(100_000);
    let log = directory.join("access.log");
    write_log(&log, &clients)?;
    for (db, store, _database) in stores(bed, &directory).await? {
        let geo = Geo::open(vec![places.clone()], Some(&directory), None);
        let sensitive = Arc::new(SensitivePaths::new(&SensitivePaths::DEFAULT.map(str::to_owned)));
        let importer = Importer { db: &db, geo: &geo, sensitive, by: "cli:bench" };
        let began = Moment::now().steady;
        let imported = import(&importer, Input::open(&log)?, now, |_| {}).await?;
        let took = (Moment::now().steady - began) as f64 / 1e6;
        ensure!(imported.records == ROWS as u64, "{} lines of {ROWS}", imported.records);
        let what = format!("import of an access log of {ROWS} lines into {}", name_of(store));
        findings.note(&format!("import {store}"), ROWS as f64 / took, what, "lines/s");
    }
    Ok(())
}

fn write_log(file: &Path, clients: &[std::net::IpAddr]) -> anyhow::Result<()> {
    let today = now().format("%d/%b/%Y");
    let mut text = String::new();
    for number in 0..ROWS {
        let (hour, minute, second) = (number / 90_000, number / 1_500 % 60, number / 25 % 60);
        writeln!(
            text,
            "{} - - [{today}:{hour:02}:{minute:02}:{second:02} +0000] \"GET /articles/{number} HTTP/1.1\" 200 \
             {} \"-\" \"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\"",
            clients[number % clients.len()],
            number % 10_000,
        )?;
    }
    Ok(std::fs::write(file, text)?)
}
