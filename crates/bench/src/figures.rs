//! Single figures: what the parts cost by themselves.
//!
//! Times of single operations are the median of five rounds in this process, on the servers' core.

mod lists;
mod path;
mod process;
mod scan;
mod store;

use std::hint::black_box;

use ipwarden_engine::clock::Moment;

use crate::contestants::Bed;
use crate::cores;
use crate::document::{Figure, Findings};

/// Measures all of them.
pub(crate) async fn all(bed: &Bed, findings: &mut Findings) -> anyhow::Result<()> {
    path::measure(&bed.directory.join("path"), findings)?;
    for millions in [1, 10] {
        lists::measure(millions, findings);
    }
    {
        // PostgreSQL stays where it is: whoever writes has a core of its own, as on any machine.
        let _elsewhere = cores::other()?;
        store::shipping(bed, findings).await?;
        store::importing(bed, findings).await?;
    }
    process::measure(bed, findings).await?;
    scan::measure(bed, findings).await
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
