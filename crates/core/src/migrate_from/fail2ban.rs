//! fail2ban's database, usually `/var/lib/fail2ban/fail2ban.sqlite3`: who is banned, by which jail,
//! until when.

use chrono::{DateTime, TimeDelta, Utc};

use super::Blocks;
use crate::db::foreign::{Foreign, ForeignError};

/// Every ban of every jail.
///
/// Since version 0.11 `bips` holds the bans in force; before, `bans` holds all that ever were.
///
/// # Errors
/// When the file is no database of fail2ban.
pub async fn blocks(foreign: &Foreign, now: DateTime<Utc>) -> Result<Blocks, ForeignError> {
    let mut blocks = Blocks::default();
    let table = if foreign.columns("bips").await?.is_empty() { "bans" } else { "bips" };
    // Older ones have no time of their own: the jail's is not in the database.
    let has_bantime = foreign.columns(table).await?.iter().any(|column| column == "bantime");
    let bantime = if has_bantime { "cast(bantime as text)" } else { "cast(null as text)" };
    let rows = foreign.rows(format!(
        "select ip as a, jail as b, cast(timeofban as text) as c, {bantime} as d, \
         cast(null as text) as e, cast(null as text) as f from {table} order by timeofban"
    ));
    for [ip, jail, banned_at, bantime, ..] in rows.await? {
        let reason = jail.map(|jail| format!("fail2ban: {jail}"));
        let ends = match ends(banned_at.as_deref(), bantime.as_deref()) {
            Ok(ends) => ends,
            Err(why) => {
                blocks.leave_out(why);
                continue;
            }
        };
        match ends {
            Some(ends) if ends <= now => blocks.leave_out("it had ended"),
            ends => blocks.take(&ip.unwrap_or_default(), reason, ends),
        }
    }
    Ok(blocks)
}

/// When a ban ends; `None` for one that never does, which fail2ban writes as a negative time.
fn ends(
    banned_at: Option<&str>,
    bantime: Option<&str>,
) -> Result<Option<DateTime<Utc>>, &'static str> {
    let number = |text: &str| text.trim().parse::<i64>().ok();
    let at = banned_at.and_then(number).and_then(|at| DateTime::from_timestamp(at, 0));
    let (Some(at), Some(seconds)) = (at, bantime.and_then(number)) else {
        return Err("it does not say when it ends");
    };
    if seconds < 0 {
        return Ok(None);
    }
    let span = TimeDelta::try_seconds(seconds).ok_or("it does not say when it ends")?;
    // Beyond the dates that there are is never.
    Ok(at.checked_add_signed(span))
}
