//! What every command needs: the configuration, the store, who is at the terminal.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use chrono::{DateTime, Utc};
use ipwarden_core::changes;
use ipwarden_core::config::{self, Config, Loaded};
use ipwarden_core::context::open_store;
use ipwarden_core::db::{Create, Db};
use ipwarden_core::lists::{Actor, Rails};
use ipwarden_core::redis::RedisPool;
use ipwarden_engine::network::parse_address;

use crate::cli::{Common, DryRun};
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;

/// One command as it was given.
pub(crate) struct Invocation {
    common: Common,
    /// Where data goes.
    pub(crate) out: Output,
    /// When it was given.
    pub(crate) now: DateTime<Utc>,
}

/// The store of the configuration, open.
pub(crate) struct Opened {
    pub(crate) config: Config,
    pub(crate) db: Db,
}

impl Invocation {
    pub(crate) fn new(common: Common, now: DateTime<Utc>) -> Invocation {
        let out = Output::new(common.output, !common.no_headers, now);
        Invocation { common, out, now }
    }

    /// Reads the configuration; what is odd about it goes to standard error.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        let url = self.common.database_url.as_deref();
        let flags: Vec<(&str, &str)> = url.map(|url| ("database_url", url)).into_iter().collect();
        let path: Option<&Path> = self.common.config.as_deref();
        let loaded = config::load_with_flags(path, config::process_environment(), &flags)?;
        for warning in &loaded.warnings {
            warn(warning);
        }
        Ok(loaded)
    }

    /// Opens the store of the configuration, which must be there; its schema is not looked at.
    pub(crate) async fn open_unchecked(&self) -> Result<Opened, Failure> {
        let config = self.load()?.config;
        let db = open_store(&config, Create::Never).await?;
        Ok(Opened { config, db })
    }

    /// Opens the store of the configuration, which must be there and not too old.
    pub(crate) async fn open(&self) -> Result<Opened, Failure> {
        let opened = self.open_unchecked().await?;
        opened.db.check_schema().await?;
        Ok(opened)
    }
}

impl Opened {
    /// The same store, of which nothing that is done stays, if this is a dry run.
    #[must_use]
    pub(crate) fn rehearsing(mut self, rehearsal: &DryRun) -> Opened {
        if rehearsal.dry_run {
            tell("dry run: nothing is changed; this is what would be done");
            self.db = self.db.rehearsal();
        }
        self
    }

    /// What a block must not reach.
    pub(crate) fn rails(&self) -> Rails {
        Rails::of_this_machine(self.config.client_ip.trusted_proxies.clone())
    }

    /// Tells the replicas at once, if there is a Redis to tell them through; they find out within a
    /// second in any case.
    pub(crate) async fn announce(&self, version: Option<i64>) {
        let (Some(version), Some(url)) = (version, &self.config.redis_url) else { return };
        if self.db.is_rehearsal() {
            return;
        }
        let redis = RedisPool::new(url.clone());
        if let Err(error) = changes::announce(&redis, version).await {
            warn(format!(
                "done, but not announced: replicas see it with their next poll, within a second ({error})"
            ));
        }
    }
}

/// A warning on standard error.
pub(crate) fn warn(message: impl std::fmt::Display) {
    say(format_args!("warning: {message}"));
}

/// A sentence on standard error that nobody needs to act upon.
pub(crate) fn tell(message: impl std::fmt::Display) {
    say(format_args!("{message}"));
}

fn say(line: std::fmt::Arguments<'_>) {
    progress::above(|| {
        let _ = writeln!(anstream::stderr(), "{line}");
    });
}

/// Who is at the terminal, and from where: `cli:USER`, and the first word of `SSH_CONNECTION`.
pub(crate) fn actor() -> Actor {
    let name: String = user().escape_debug().take(64).collect();
    Actor { name: format!("cli:{name}"), address: variable("SSH_CONNECTION").and_then(origin) }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The account that this process runs as, or behind sudo the one that it is run by.
fn user() -> String {
    use std::os::unix::fs::MetadataExt;
    let Ok(own) = std::fs::metadata("/proc/self") else {
        return variable("USER").unwrap_or_else(|| "unknown".to_owned());
    };
    let sudo = variable("SUDO_USER").filter(|_| own.uid() == 0);
    sudo.or_else(|| name_of(own.uid(), &std::fs::read_to_string("/etc/passwd").ok()?))
        .unwrap_or_else(|| format!("uid {}", own.uid()))
}

fn name_of(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn origin(ssh_connection: String) -> Option<IpAddr> {
    let first = ssh_connection.split(' ').next()?;
    // A link-local client has a zone, which no list knows.
    let address = first.split('%').next()?;
    parse_address(address.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_found_in_what_the_system_knows() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbad\nanna:x:1000:1000::/home/anna:/bin/sh\n";
        assert_eq!(name_of(1000, passwd).as_deref(), Some("anna"));
        assert_eq!(name_of(1, passwd), None);
        let from = |text: &str| origin(text.to_owned()).map(|address| address.to_string());
        assert_eq!(from("198.51.100.7 50000 192.0.2.1 22").as_deref(), Some("198.51.100.7"));
        assert_eq!(from("::ffff:198.51.100.7 1 ::1 22").as_deref(), Some("198.51.100.7"));
        assert_eq!(from("fe80::1%eth0 1 fe80::2 22").as_deref(), Some("fe80::1"));
        assert_eq!(from("nobody"), None);
    }
}
