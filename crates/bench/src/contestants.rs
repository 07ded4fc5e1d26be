//! Who takes part, how each is set up, and what its answers must be.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use ipwarden_core::db::{Create, Db, request_logs};
use ipwarden_testbed::{PostgresServer, RedisServer, TestDatabase};

use crate::load::Mix;
use crate::peers;
use crate::server::{Server, beside};

/// Networks on the blocklist of whoever has one.
pub(crate) const BLOCKED: usize = 100_000;

/// The quota under which everybody is admitted: exact, and far above what one client of so many asks.
pub(crate) const ADMITTING: &str = "[[quotas]]\nname = \"bench\"\nanonymous = \"100/10s\"\n";
/// The quota that is used up at once.
const REFUSING: &str = "[[quotas]]\nname = \"bench\"\nanonymous = \"1/1d\"\n";
/// Used up at once on one path.
const OVER_ON_A_PATH: &str = "[[quotas]]\nname = \"over\"\npaths = [\"/over\"]\nanonymous = \"1/1d\"\n\
    [[quotas]]\nname = \"bench\"\nanonymous = \"100/10s\"\n";

/// One of them, running.
pub(crate) struct Contestant {
    /// How the tables call it.
    pub(crate) name: &'static str,
    /// What it is, in a sentence.
    pub(crate) what: String,
    pub(crate) server: Server,
    pub(crate) mix: Mix,
    /// The part of its answers that must be refusals.
    pub(crate) refused: f64,
    /// Whether quotas that are used up are free again at its next turn.
    pub(crate) refills: bool,
    /// Where its records must be in the end.
    store: Store,
}

enum Store {
    None,
    Sqlite(PathBuf),
    Postgres(TestDatabase),
}

/// What contestants stand on.
pub(crate) struct Bed {
    pub(crate) directory: PathBuf,
    pub(crate) postgres: PostgresServer,
    pub(crate) redis: RedisServer,
}

/// A PostgreSQL of this run's own, with the memory of a small dedicated server.
pub(crate) fn postgres() -> anyhow::Result<PostgresServer> {
    let settings = ["shared_buffers=1GB", "work_mem=64MB", "max_wal_size=4GB"];
    ipwarden_testbed::postgres_private_with(&settings, None)
}

/// Those that take part, and those that cannot, with the reason.
#[derive(Default)]
pub(crate) struct Field {
    pub(crate) running: Vec<Contestant>,
    pub(crate) not_run: Vec<(&'static str, String)>,
}

/// What makes one guarded server different from another.
struct Guarded {
    name: &'static str,
    what: &'static str,
    quotas: &'static str,
    arguments: &'static [&'static str],
    postgres: bool,
    redis: bool,
    spool_only: bool,
    mix: Mix,
    refused: f64,
}

const PLAIN: Guarded = Guarded {
    name: "",
    what: "",
    quotas: ADMITTING,
    arguments: &[],
    postgres: false,
    redis: false,
    spool_only: false,
    mix: Mix::Plain,
    refused: 0.0,
};

/// Names that goals refer to.
pub(crate) const BARE: &str = "bare";
pub(crate) const GUARD: &str = "guard";
pub(crate) const EMBEDDED: &str = "embedded";
pub(crate) const EMBEDDED_POSTGRES: &str = "embedded-postgres";
pub(crate) const THROTTLING: &str = "refusing-429";
pub(crate) const BLOCKING: &str = "refusing-403";
pub(crate) const FLEET: &str = "fleet";
pub(crate) const FLEET_REFUSING: &str = "fleet-9-of-10";

const GUARDED: &[Guarded] = &[
    Guarded {
        name: GUARD,
        what: "the same handler wrapped: every request admitted under an exact quota, and in the spool, safe \
               against a kill, before its answer leaves; nothing ships it meanwhile, the oldest goes",
        spool_only: true,
        ..PLAIN
    },
    Guarded {
        name: EMBEDDED,
        what: "the whole product without settings: the same, and shipped to SQLite by the same process",
        ..PLAIN
    },
    Guarded {
        name: EMBEDDED_POSTGRES,
        what: "the same, shipped to PostgreSQL, which runs on the same core",
        postgres: true,
        ..PLAIN
    },
    Guarded {
        name: THROTTLING,
        what: "every request refused with 429 and recorded as `guard` does",
        quotas: REFUSING,
        spool_only: true,
        refused: 1.0,
        ..PLAIN
    },
    Guarded {
        name: BLOCKING,
        what: "every request refused with 403 and recorded as `guard` does",
        arguments: &["--everyone"],
        spool_only: true,
        refused: 1.0,
        ..PLAIN
    },
    Guarded {
        name: FLEET,
        what: "PostgreSQL and Redis, on the same core; every request admitted by Redis, exactly",
        postgres: true,
        redis: true,
        ..PLAIN
    },
    Guarded {
        name: FLEET_REFUSING,
        what: "the same, nine of ten requests from clients whose quota is used up",
        quotas: OVER_ON_A_PATH,
        postgres: true,
        redis: true,
        mix: Mix::NineInTenOver,
        refused: 0.9,
        ..PLAIN
    },
];

impl Field {
    /// Starts everybody whose name is wanted.
    pub(crate) async fn start(bed: &Bed, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Field> {
        let mut field = Field::default();
        let command = Command::new(beside("bench-bare")?);
        field.running.push(Contestant {
            name: BARE,
            what: "an actix-web handler with nothing around it, on one worker: the limit"
                .to_owned(),
            server: Server::announced(command, Vec::new())?,
            mix: Mix::Plain,
            refused: 0.0,
            refills: false,
            store: Store::None,
        });
        for one in GUARDED.iter().filter(|one| wanted(one.name)) {
            field.running.push(guarded(bed, one).await.with_context(|| one.name)?);
        }
        field.peers(bed, wanted);
        Ok(field)
    }

    fn peers(&mut self, bed: &Bed, wanted: impl Fn(&str) -> bool) {
        let nginx = |rate, burst| {
            let server = peers::nginx(&bed.directory, BLOCKED, rate, burst)?;
            anyhow::Ok((server, Store::None))
        };
        let django = || {
            let database = bed.postgres.database()?;
            let server = peers::django(&bed.directory, &bed.postgres, database.url(), &bed.redis)?;
            anyhow::Ok((server, Store::Postgres(database)))
        };
        type Start<'a> = &'a dyn Fn() -> anyhow::Result<(Server, Store)>;
        let peers: [(&'static str, &str, f64, Start); 3] = [
            (
                "nginx",
                "real address from the header, 100,000 networks in `geo`, `limit_req` of 10 a second with a \
                 burst of 100, buffered access log; answers by itself",
                0.0,
                &|| nginx("10r/s", 100),
            ),
            ("nginx-429", "the same, its `limit_req` used up", 1.0, &|| nginx("1r/m", 0)),
            (
                "django",
                "the original design: gunicorn (3 workers of 4 threads), django-ratelimit in Redis, a look at \
                 the blocklist and a row per request in PostgreSQL, the place from Redis",
                0.0,
                &django,
            ),
        ];
        for (name, what, refused, start) in peers.into_iter().filter(|peer| wanted(peer.0)) {
            match start() {
                Ok((server, store)) => self.running.push(Contestant {
                    name,
                    what: what.to_owned(),
                    server,
                    mix: Mix::Plain,
                    refused,
                    // nginx counts by the minute at the most.
                    refills: refused > 0.0,
                    store,
                }),
                Err(error) => self.not_run.push((name, format!("{error:#}"))),
            }
        }
    }
}

async fn guarded(bed: &Bed, one: &Guarded) -> anyhow::Result<Contestant> {
    let directory = bed.directory.join(one.name);
    let mut command = command(&directory, one.quotas, BLOCKED, one.spool_only)?;
    command.env("IPWARDEN_NODE", one.name).args(one.arguments);
    let mut others = Vec::new();
    let mut store = match one.spool_only {
        true => Store::None,
        false => Store::Sqlite(directory.join("data/ipwarden.db")),
    };
    if one.postgres {
        let database = bed.postgres.database()?;
        Db::postgres(database.url(), 2)?.migrate().await?;
        command.env("DATABASE_URL", database.url());
        others.extend(bed.postgres.pid());
        store = Store::Postgres(database);
    }
    if one.redis {
        command.env("REDIS_URL", bed.redis.url());
        others.extend(bed.redis.pid());
    }
    Ok(Contestant {
        name: one.name,
        what: one.what.to_owned(),
        server: Server::announced(command, others)?,
        mix: one.mix,
        refused: one.refused,
        refills: false,
        store,
    })
}

/// A guarded server in a directory of its own.
pub(crate) fn command(
    directory: &Path,
    quotas: &str,
    blocked: usize,
    spool_only: bool,
) -> anyhow::Result<Command> {
    std::fs::create_dir_all(directory.join("geoip"))?;
    std::fs::write(directory.join("ipwarden.toml"), quotas)?;
    write_places(&directory.join("geoip/city.mmdb"))?;
    let mut command = Command::new(beside("bench-guarded")?);
    command
        .current_dir(directory)
        .env_clear()
        .env("IPWARDEN_CLIENT_IP__TRUSTED_PROXIES", "127.0.0.0/8")
        .env("IPWARDEN_LOG__LEVEL", "error")
        .args(["--blocked", &blocked.to_string()])
        .stderr(std::fs::File::create(directory.join("log"))?);
    if spool_only {
        command.arg("--spool-only").env("IPWARDEN_REQUEST_LOG__SPOOL_BYTES", "256MiB");
    }
    Ok(command)
}

/// A file that knows a place for every client, in the schema of GeoLite2-City.
pub(crate) fn write_places(file: &Path) -> anyhow::Result<()> {
    let networks: Vec<String> = (1..127)
        .flat_map(|first| {
            (0..256).step_by(16).map(move |second| format!("{first}.{second}.0.0/12"))
        })
        .collect();
    let cities: Vec<String> = (0..networks.len()).map(|at| format!("City {at}")).collect();
    let mut places: Vec<(&str, &str, &str)> =
        networks.iter().zip(&cities).map(|(network, city)| (&**network, "DE", &**city)).collect();
    places.push(("2400::/12", "SG", "Singapore"));
    ipwarden_testbed::geo::write_city(file, &places)
}

impl Contestant {
    /// How many records its store holds; `None` if it has none of ours.
    pub(crate) async fn stored(&self) -> anyhow::Result<Option<u64>> {
        let db = match &self.store {
            Store::Sqlite(file) => Db::open_sqlite(file, Create::Never).await?,
            Store::Postgres(database) if self.server.state()?.is_some() => {
                Db::postgres(database.url(), 1)?
            }
            Store::None | Store::Postgres(_) => return Ok(None),
        };
        let count = db.run(|conn| request_logs::count(conn).boxed()).await?;
        Ok(Some(u64::try_from(count)?))
    }
}
