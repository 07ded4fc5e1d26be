//! What each command does: one file per command, or per pair that mirror each other.

mod allow;
mod block;
mod bouncer;
mod check;
mod completions;
mod config;
mod export;
mod export_data;
mod export_rules;
mod forget;
mod geo;
mod geo_update;
mod import_list;
mod import_log;
mod key;
mod list;
mod logs;
mod man;
mod migrate;
mod migrate_from;
mod review;
mod rows;
mod scan;
mod stats;
mod suspicious;
mod unblock;
mod user;

use crate::cli::{Bouncer, Command, ConfigCommand, Export, Geo, Import, Key, MigrateFrom, User};
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
        Command::Stats(args) => stats::run(given, args).await,
        Command::Scan(args) => scan::run(given, args).await,
        Command::Import(Import::AccessLog(args)) => import_log::run(given, args).await,
        Command::Import(Import::Blocklist(args)) => import_list::blocklist(given, args).await,
        Command::Import(Import::Allowlist(args)) => import_list::allowlist(given, args).await,
        Command::Export(Export::Blocklist(args)) => export::blocklist(given, args).await,
        Command::Export(Export::Allowlist(args)) => export::allowlist(given, args).await,
        Command::Export(Export::Data(args)) => export_data::run(given, args).await,
        Command::Geo(Geo::Lookup(args)) => geo::lookup(given, args).await,
        Command::Geo(Geo::Info) => geo::info(given),
        Command::Geo(Geo::Update(args)) => geo_update::run(given, args).await,
        Command::Key(Key::Create(args)) => key::create(given, args).await,
        Command::Key(Key::List) => key::list(given).await,
        Command::Key(Key::Revoke(args)) => key::revoke(given, args).await,
        Command::Bouncer(Bouncer::Add(args)) => bouncer::add(given, args).await,
        Command::Bouncer(Bouncer::List) => bouncer::list(given).await,
        Command::Bouncer(Bouncer::Delete(args)) => bouncer::delete(given, args).await,
        Command::User(User::Add(args)) => user::add(given, args).await,
        Command::User(User::List) => user::list(given).await,
        Command::User(User::Remove(args)) => user::remove(given, args).await,
        Command::User(User::Passwd(args)) => user::passwd(given, args).await,
        Command::Forget(args) => forget::run(given, args).await,
        Command::Migrate(args) => migrate::run(given, args).await,
        Command::MigrateFrom(from) => match from {
            MigrateFrom::Django(args) => migrate_from::from_django(given, args).await,
            MigrateFrom::Fail2ban(args) => migrate_from::from_fail2ban(given, args).await,
            MigrateFrom::Crowdsec(args) => migrate_from::from_crowdsec(given, args).await,
        },
        Command::Config(ConfigCommand::Check) => config::check(given),
        Command::Config(ConfigCommand::Show) => config::show(given),
        Command::Completions(args) => completions::run(given, args),
        Command::Man(args) => man::run(given, args),
    }
}
