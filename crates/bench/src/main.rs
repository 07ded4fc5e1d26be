//! `bench [quick]`: what ipwarden costs, beside a bare handler and its peers.
//!
//! Everything runs on the loopback of this machine and ends with this program. The whole run writes
//! `docs/BENCHMARKS.md`; a quick one only prints.

mod contestants;
mod cores;
mod cpu;
mod document;
mod figures;
mod goals;
mod growth;
mod load;
mod machine;
mod paced;
mod peers;
mod rounds;
mod server;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, Subcommand, ValueEnum as _};

use crate::contestants::{BARE, Bed, Contestant, EMBEDDED, EMBEDDED_POSTGRES, Field, GUARD};
use crate::document::{Figure, Findings};
use crate::load::Load;
use crate::paced::Pace;
use crate::rounds::{Plan, Spread};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures ipwarden beside a bare handler and its peers.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    form: Option<Form>,
    /// Only these contestants (the bare handler always takes part); nothing is written
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// So many rounds
    #[arg(long)]
    rounds: Option<usize>,
    /// So many seconds for each contestant in each round
    #[arg(long)]
    seconds: Option<u32>,
}

#[derive(Subcommand)]
enum Form {
    /// Three short rounds; nothing is written
    Quick,
    /// Single figures alone; nothing is written
    Figures {
        /// Only these
        #[arg(value_enum)]
        names: Vec<figures::Name>,
    },
    /// The load at an even pace, as a part of a run
    #[command(hide = true)]
    Paced(Pace),
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Form::Paced(pace)) = arguments.form {
        println!("{}", serde_json::to_string(&paced::send(pace)?)?);
        return Ok(());
    }
    cores::confine()?;
    let quick = matches!(arguments.form, Some(Form::Quick));
    let plan = Plan {
        rounds: arguments.rounds.unwrap_or(if quick { 3 } else { 7 }),
        seconds: arguments.seconds.unwrap_or(if quick { 2 } else { 5 }),
    };
    let directory = tempfile::Builder::new().prefix("run-").tempdir_in(working_directory()?)?;
    let bed = Bed {
        directory: directory.path().to_owned(),
        postgres: contestants::postgres()?,
        redis: ipwarden_testbed::redis_private()?,
    };
    let load = Load::new(directory.path())?;
    let mut findings = Findings::default();
    if let Some(Form::Figures { names }) = arguments.form {
        let names = if names.is_empty() { figures::Name::value_variants() } else { &names };
        return figures::measure(names, &bed, &load, &mut findings).await;
    }
    let wanted =
        |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|one| one == name);
    let mut field = Field::start(&bed, wanted).await?;
    let laps = rounds::run(&field.running, &load, plan)?;
    findings.contest(&field, &laps);
    every_record_is_stored(&field.running).await?;
    times_at_half_load(&field.running, plan, &mut findings)?;

    let whole = !quick && arguments.only.is_empty();
    // After each part, so that a run that is cut short leaves what it has found out.
    let write = |findings: &Findings| match whole {
        true => write(&findings.document(plan)),
        false => Ok(()),
    };
    write(&findings)?;
    if whole {
        // The contestants' turn is over; their memory and background work are not in the way.
        drop(std::mem::take(&mut field.running));
        for name in figures::Name::value_variants() {
            figures::measure(&[*name], &bed, &load, &mut findings).await?;
            write(&findings)?;
        }
    }
    println!("{}", findings.document(plan));
    write(&findings)
}

fn write(document: &str) -> anyhow::Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/BENCHMARKS.md");
    std::fs::write(&file, document).with_context(|| file.display().to_string())
}

/// What was answered is in the log, once each.
async fn every_record_is_stored(field: &[Contestant]) -> anyhow::Result<()> {
    for contestant in field {
        let (stored, state) = (contestant.stored().await?, contestant.server.state()?);
        if let (Some(stored), Some(state)) = (stored, state) {
            let name = contestant.name;
            ensure!(
                stored == state.requests(),
                "{name}: {stored} records of {} requests",
                state.requests()
            );
        }
    }
    Ok(())
}

/// Answer times of those who answer alike, at half of what the bare handler can do.
fn times_at_half_load(
    field: &[Contestant],
    plan: Plan,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let Some(full) = findings.measured.get("bare per second").copied() else { return Ok(()) };
    let compared = [BARE, GUARD, EMBEDDED, EMBEDDED_POSTGRES];
    let field: Vec<&Contestant> = field.iter().filter(|one| compared.contains(&one.name)).collect();
    let mut laps: Vec<Vec<(f64, f64)>> = field.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds {
        for (at, contestant) in field.iter().enumerate() {
            let times = paced::run(contestant.server.public, full / 2.0, plan.seconds.min(3))
                .with_context(|| contestant.name)?;
            laps[at].push((times.p50 as f64, times.p99 as f64));
            contestant.server.shipped()?;
        }
    }
    let mut bare = None;
    for (contestant, laps) in field.iter().zip(&laps) {
        let p50 = Spread::of(laps.iter().map(|lap| lap.0));
        let p99 = Spread::of(laps.iter().map(|lap| lap.1));
        let over = p99.median / *bare.get_or_insert(p99.median);
        findings.measured.insert(format!("{} p99", contestant.name), over);
        findings.figures.push(Figure::new(
            format!("answer times of `{}` at {:.0} requests/s", contestant.name, full / 2.0),
            format!(
                "p50 {:.0} us, p99 {:.0} us ({:.0} - {:.0}), {over:.2} of the bare handler's",
                p50.median, p99.median, p99.least, p99.most
            ),
        ));
    }
    Ok(())
}

/// Where this program keeps its files, beside what cargo builds.
pub(crate) fn working_directory() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let Some(target) = own.ancestors().nth(2) else { bail!("{} is nowhere", own.display()) };
    let directory = target.join("bench");
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}
