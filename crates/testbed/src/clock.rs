//! A clock of its own for one database, so that a test moves the store's time as it moves `now`.
//!
//! PostgreSQL looks for a function in the schemas of the search path. With `public` put before its
//! own catalogue there, whoever asks for `clock_timestamp()` gets ours.

use std::process::Command;

use anyhow::{Context as _, bail};

use crate::TestDatabase;

const OWN_CLOCK: &str = "
    create table test_clock (at timestamptz not null, since timestamptz);
    insert into test_clock select now, now from pg_catalog.clock_timestamp() now;
    create function clock_timestamp() returns timestamptz volatile language sql as
        'select at + coalesce(pg_catalog.clock_timestamp() - since, ''0'') from public.test_clock';
    do $$ begin
        execute format('alter database %I set search_path = public, pg_catalog', current_database());
    end $$;
";

impl TestDatabase {
    /// From the next connection on, the database has a clock of its own; it still goes right.
    ///
    /// # Errors
    /// `psql`'s.
    pub fn own_clock(&self) -> anyhow::Result<()> {
        self.execute(OWN_CLOCK).map(drop)
    }

    /// Stops that clock at an instant, such as `2026-03-01T11:00:00Z`.
    ///
    /// # Errors
    /// `psql`'s.
    pub fn stop_clock(&self, at: &str) -> anyhow::Result<()> {
        self.execute(&format!("update test_clock set at = '{at}', since = null")).map(drop)
    }

    /// Sets that clock, and lets it go on from there.
    ///
    /// # Errors
    /// `psql`'s.
    pub fn set_clock(&self, at: &str) -> anyhow::Result<()> {
        let since = "pg_catalog.clock_timestamp()";
        self.execute(&format!("update test_clock set at = '{at}', since = {since}")).map(drop)
    }

    /// Runs SQL behind the product's back. Returns its rows, a line each, columns split by `|`.
    ///
    /// # Errors
    /// `psql`'s, with what it said.
    pub fn execute(&self, sql: &str) -> anyhow::Result<String> {
        let output = self.psql()?.args(["-c", sql]).output().context("starting psql")?;
        if !output.status.success() {
            bail!("{sql}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// A `psql` of this database, ready to be started; it stops at the first error.
    ///
    /// # Errors
    /// If there is none.
    pub fn psql(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(crate::postgres::psql()?);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", self.url()]);
        Ok(command)
    }
}
