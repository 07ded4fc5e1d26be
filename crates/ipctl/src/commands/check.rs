//! `ipctl check`.

use ipwarden_core::lists::{self, Checked};
use ipwarden_engine::target;

use super::rows::Suspicious;
use crate::cli::Check;
use crate::failure::Failure;
use crate::invocation::{Invocation, warn};
use crate::output::{Object, clean, time, until};

pub(super) async fn run(given: Invocation, args: Check) -> Result<(), Failure> {
    let target = args.target.or(args.ip).expect("clap has made sure of one of the two");
    let opened = given.open().await?;
    let trusted = &opened.config.client_ip.trusted_proxies;
    let checked = lists::check(&opened.db, target.network, trusted, given.now).await?;
    if target.masked {
        warn(target::Notice::HostBitsMasked(target.network));
    }
    given.out.one(&checked, || sentences(&checked))?;
    Ok(())
}

impl Object for Checked {
    const FIELDS: &'static [&'static str] =
        &["network", "verdict", "because", "allowed", "blocked", "trusted_proxy", "suspicious"];
}

/// The verdict first, then every list that speaks about it.
fn sentences(checked: &Checked) -> String {
    let Checked { network, verdict, because, allowed, blocked, trusted_proxy, suspicious } =
        checked;
    let mut lines = vec![format!("{network}: {}, {}", verdict.as_str(), because.sentence())];
    for (word, entries) in [("allowed", allowed), ("blocked", blocked)] {
        for entry in entries {
            let reason = match entry.reason.as_str() {
                "" => String::new(),
                reason => format!(": {}", clean(reason)),
            };
            lines.push(format!(
                "  {word} as {} {}, {} by {}{reason}",
                entry.network,
                until(entry.expires_at),
                clean(&entry.origin),
                clean(&entry.created_by),
            ));
        }
    }
    if let Some(proxy) = trusted_proxy {
        lines.push(format!("  trusted proxy by {proxy} of the configuration"));
    }
    for finding in suspicious {
        let row = Suspicious::from(finding.clone()).row;
        lines.push(format!(
            "  suspicious: finding {} ({}, {} hits, last seen {}) is {}",
            row.id,
            row.rule,
            row.hits,
            time(row.last_seen),
            row.status.as_str()
        ));
    }
    lines.join("\n")
}
