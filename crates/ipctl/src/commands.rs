//! What each command does: one file per command, or per pair that mirror each other.

mod allow;
mod block;
mod check;
mod completions;
mod config;
mod geo;
mod import;
mod key;
mod list;
mod logs;
mod man;
mod migrate;
mod review;
mod rows;
mod scan;
mod suspicious;
mod unblock;

use crate::cli::{Command, ConfigCommand, Geo, Import, Key};
use crate::failure::Failure;
use crate::invocation::Invocation;

pub(crate) async fn run(given: Invocation, command: Command) -> Result<(), Failure> {
    match command {
        Command::Block(args) => block::run(given, args).await,
        Command::Unblock(args) => unblock::unblock(given, args).await,
        Command::ListBlocked(args) => list::blocked(given, args).await,
        Command::Allow(args) => allow::run(given, args).await,
        Command::Disallow(args) => unblock::disallow(given, args).await,
        Command::ListAllowed(args) => list::allowed(given, args).await,
        Command::ListSuspicious(args) => suspicious::run(given, args).await,
        Command::Review(args) => review::run(given, args).await,
        Command::Check(args) => check::run(given, args).await,
        Command::Logs(args) => logs::run(given, args).await,
        Command::Scan(args) => scan::run(given, args).await,
        Command::Import(Import::AccessLog(args)) => import::run(given, args).await,
        Command::Geo(Geo::Lookup(args)) => geo::lookup(given, args).await,
        Command::Geo(Geo::Info) => geo::info(given),
        Command::Key(Key::Create(args)) => key::create(given, args).await,
        Command::Key(Key::List) => key::list(given).await,
        Command::Key(Key::Revoke(args)) => key::revoke(given, args).await,
        Command::Migrate => migrate::run(given).await,
        Command::Config(ConfigCommand::Check) => config::check(given),
        Command::Config(ConfigCommand::Show) => config::show(given),
        Command::Completions(args) => completions::run(given, args),
        Command::Man(args) => man::run(given, args),
    }
}
