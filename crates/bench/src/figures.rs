//! Single figures: what the parts cost by themselves.
//!
//! Times of single operations are the median of five rounds in this process, on the servers' core.

mod lists;
mod path;
mod process;
mod scan;
mod store;

use std::hint::black_box;

use clap::ValueEnum;
use ipwarden_engine::clock::Moment;

use crate::contestants::Bed;
use crate::document::{Figure, Findings};
use crate::load::Load;
use crate::{cores, growth};

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// The guard with more and more of one thing
    Growth,
    /// The steps of a request in process
    Path,
    /// Lists of a million and of ten million networks
    Lists,
    /// From the spool to the stores
    Shipping,
    /// From an access log to the stores
    Importing,
    /// Memory and start of `api`
    Process,
    /// The hourly scan
    Scan,
}

/// Measures those that are named.
pub(crate) async fn measure(
    names: &[Name],
    bed: &Bed,
    load: &Load,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    for name in names {
        match name {
            Name::Growth => growth::measure(bed, load, findings)?,
            Name::Path => path::measure(&bed.directory.join("path"), findings)?,
            Name::Lists => {
                [1, 10].into_iter().for_each(|millions| lists::measure(millions, findings))
            }
            Name::Shipping | Name::Importing => {
                // PostgreSQL stays where it is: whoever writes has a core of its own, as on any machine.
                let _elsewhere = cores::other()?;
                match name {
                    Name::Shipping => store::shipping(bed, findings).await?,
                    _ => store::importing(bed, findings).await?,
                }
            }
            Name::Process => process::measure(bed, findings).await?,
            Name::Scan => scan::measure(findings).await?,
        }
    }
    Ok(())
}

impl Findings {
    /// A figure for the table, and for the goals under `key`.
    fn note(&mut self, key: &str, value: f64, what: impl Into<String>, unit: &str) {
        let (what, shown) = (what.into(), format!("{} {unit}", crate::goals::shown(value)));
        eprintln!("{what}: {shown}");
        self.measured.insert(key.to_owned(), value);
        self.figures.push(Figure::new(what, shown));
    }
}

/// How long it takes, in seconds: the median of five.
fn seconds<T>(mut work: impl FnMut() -> T) -> f64 {
    let mut rounds = [(); 5].map(|()| {
        let began = Moment::now().steady;
        black_box(work());
        (Moment::now().steady - began) as f64 / 1e6
    });
    rounds.sort_by(f64::total_cmp);
    rounds[2]
}

/// The same for one of so many operations, in nanoseconds.
fn nanoseconds<T>(operations: usize, work: impl FnMut() -> T) -> f64 {
    seconds(work) * 1e9 / operations as f64
}
