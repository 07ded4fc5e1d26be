//! What the process itself says: on stderr, as text or as JSON. Standard output belongs to data.
//!
//! A service writes at most one line of a cause in ten seconds (`limit.rs`); a command writes all.

mod limit;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::limit::Limit;
use crate::config::{Log, LogFormat};

/// Sends events of a service to stderr from here on, panics as well. A second call changes nothing, as
/// tests of a binary's parts make several.
///
/// Colours only on a terminal, and not with `NO_COLOR` (no-color.org).
pub fn start(log: &Log) {
    begin(log, Some(Limit::start()));
    // Whoever asks for backtraces gets them as they are usual.
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        std::panic::set_hook(Box::new(|panic| tracing::error!(cause = %panic, "a bug")));
    }
}

/// The same for a command, which says what it has to say and ends.
pub fn start_command(log: &Log) {
    begin(log, None);
}

fn begin(log: &Log, limit: Option<Limit>) {
    // The configuration has read this text before; whoever builds a `Log` by hand gets `info`.
    let filter = EnvFilter::try_new(directives(&log.level));
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(directives("info")));
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !no_color);
    let started = match log.format {
        LogFormat::Text => builder.finish().with(limit).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().with(limit).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging had been started before");
    }
}

/// At the default level a person wants to hear of the service, not of the inner life of its
/// libraries; whoever asks for more, or for anything in particular, gets just that.
///
/// `actix_http` has an error for every request that is no HTTP: strangers would write our log.
fn directives(level: &str) -> String {
    match level {
        "info" => "info,actix_http=off,actix_server=warn,tokio_cron_scheduler=warn".to_owned(),
        asked => asked.to_owned(),
    }
}
